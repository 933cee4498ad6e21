//! Mount points that the tree lacks, made without touching the tree.
//!
//! The nearest directory that exists is covered by a tmpfs that holds the new mount points and everything that the
//! directory held: directories and files bound, symbolic links made again. One cover serves all mount points missing
//! below its directory. A directory with many files is covered by a read-only overlay of the new ones over the old
//! instead, where the kernel lets users mount overlays (Linux 5.11): one mount in place of one per entry.

use std::{
    collections::BTreeMap,
    fs::{File, create_dir, create_dir_all},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use coracle_api::RunError;
use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, readlinkat},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, fstat, fstatat},
    unistd::symlinkat,
};

use crate::{
    mounts::{bind_recursive, remount_read_only},
    resolve::{self, Place},
    root::Root,
    sys::{Step, fd_path},
};

/// Files and links of a directory from which an overlay serves better than a bind for each. Measured: an entry costs
/// about 35 µs, made and unmade, and the overlay with its tmpfs 180 µs; but whatever lies below an overlay takes two to
/// three times as long to look up, so directories are worth their binds, and the root directory, which holds little
/// else, is never hidden behind one.
const MANY: usize = 12;

/// What a mount point must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For a directory.
    Directory,
    /// For anything else.
    File,
}

impl Kind {
    /// The kind of mount point that this host file needs.
    pub(crate) fn of(host: &Path) -> io::Result<Self> {
        Ok(if std::fs::metadata(host)?.is_dir() { Self::Directory } else { Self::File })
    }
}

/// Makes every mount point of `wanted` exist below `root`, which is read-only.
pub(crate) fn provide(root: &mut Root, wanted: &[(&Path, Kind)]) -> Result<(), RunError> {
    let mut covers: BTreeMap<PathBuf, Vec<(PathBuf, Kind)>> = BTreeMap::new();
    for (guest, kind) in wanted {
        if let Ok(Place::Missing(missing)) = resolve::resolve(root.place.as_fd(), guest) {
            covers.entry(missing.ancestor_path).or_default().push((missing.rest, *kind));
        }
    }
    // In order of their paths, so that a cover of /a is there before one of /a/b is put on top of what it bound.
    for (directory, entries) in covers {
        let what = || format!("make mount points in /{}", directory.display());
        cover(root, &directory, &entries).step(what)?;
    }
    Ok(())
}

fn cover(root: &mut Root, directory: &Path, new: &[(PathBuf, Kind)]) -> io::Result<()> {
    let lower = resolve::open(root.place.as_fd(), directory)?;
    let old = entries(&lower)?;
    let mode = fstat(&lower)?.st_mode & 0o7777;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &fd_path(&lower), Some("tmpfs"), flags, Some(format!("mode={mode:o}").as_str()))?;
    let upper = if directory.as_os_str().is_empty() {
        root.covered()?;
        root.place.try_clone()?
    } else {
        resolve::open(root.place.as_fd(), directory)?
    };
    for (path, kind) in new {
        make(&fd_path(&upper), path, *kind)?;
    }
    let files = old.iter().filter(|(_, kind)| *kind != Type::Directory).count();
    if files >= MANY && overlay(&upper, &lower).is_ok() {
        return if directory.as_os_str().is_empty() { root.covered() } else { Ok(()) };
    }
    for (name, kind) in &old {
        again(&lower, &upper, name, *kind)?;
    }
    Ok(remount_read_only(&fd_path(&upper))?)
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<(PathBuf, Type)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = Vec::new();
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            Some(kind) => kind,
            None => kind_of(directory, name)?,
        };
        found.push((PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())), kind));
    }
    Ok(found)
}

/// For file systems whose directories do not tell.
fn kind_of(directory: &OwnedFd, name: &std::ffi::CStr) -> nix::Result<Type> {
    let mode = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode;
    Ok(match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Type::Directory,
        SFlag::S_IFLNK => Type::Symlink,
        _ => Type::File,
    })
}

/// Shows one old entry in the cover.
fn again(lower: &OwnedFd, upper: &OwnedFd, name: &Path, kind: Type) -> io::Result<()> {
    if kind == Type::Symlink {
        return Ok(symlinkat(readlinkat(lower, name)?.as_os_str(), upper, name)?);
    }
    let place = fd_path(upper).join(name);
    if kind == Type::Directory {
        create_dir(&place)?
    } else {
        File::create(&place).map(drop)?
    }
    Ok(bind_recursive(&fd_path(lower).join(name), &place)?)
}

/// A read-only overlay: the cover's entries over the directory's.
fn overlay(upper: &OwnedFd, lower: &OwnedFd) -> nix::Result<()> {
    let layers = format!("lowerdir={}:{}", fd_path(upper).display(), fd_path(lower).display());
    let flags = MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    mount(Some("overlay"), &fd_path(upper), Some("overlay"), flags, Some(layers.as_str()))
}

/// Makes a mount point, and the directories to it, below `directory`; one that is there already is fine.
pub(crate) fn make(directory: &Path, path: &Path, kind: Kind) -> io::Result<()> {
    let place = directory.join(path);
    let made = match kind {
        Kind::Directory => create_dir_all(&place),
        Kind::File => {
            if let Some(parent) = place.parent() {
                create_dir_all(parent)?;
            }
            File::options().write(true).create_new(true).open(&place).map(drop)
        }
    };
    match made {
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(()),
        answer => answer,
    }
}
