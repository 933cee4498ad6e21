//! Removal: a container vanishes by one rename; its files follow, whatever modes the guest left.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{Container, Containers, base, error::ContainerError};
use crate::store::{lock, make_directory, trees::image};

/// Directories held open at once while removing; what is deeper is moved up first.
const DEEPEST: usize = 100;

impl Containers<'_> {
    pub(super) fn trash(self) -> PathBuf {
        self.store.root().join("trash")
    }

    /// Removes a container with its names. `force` also removes one whose settings are damaged.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`], [`ContainerError::Protected`] and [`ContainerError::Running`], all before anything has
    /// changed; [`ContainerError::Remove`] if files are left, out of the way.
    pub fn remove(self, container: &Container, force: bool) -> Result<(), ContainerError> {
        let shown = || container.short_id().to_owned();
        let changing = container.lock()?;
        let settings = match container.settings() {
            Ok(settings) if settings.protected => return Err(ContainerError::Protected { container: shown() }),
            Err(ContainerError::Damaged { .. }) if force => None,
            Err(error) => return Err(error),
            Ok(settings) => Some(settings),
        };
        let lease = container.lease_alone()?.ok_or_else(|| ContainerError::Running { container: shown() })?;
        if let Some(layers) = settings.and_then(|settings| container.stands_on(&settings)) {
            give_view(container, &layers);
        }
        let aside = self.throw_away(&container.directory, &container.id)?;
        drop((lease, changing));
        // Names of what is gone mean nothing, so failing here harms nobody.
        let names = self.lock_names().and_then(|names| names.sweep());
        remove_aside(&aside)?;
        names.map(|_| ())
    }

    /// Moves something into the trash; `NoSuch` if another was faster.
    pub(in crate::store) fn throw_away(self, path: &Path, id: &str) -> Result<PathBuf, ContainerError> {
        let trash = self.trash();
        make_directory(&trash).map_err(ContainerError::file("make", &trash))?;
        // A name of its own, even if an older one of this id could not be removed.
        let aside = (0_u32..).map(|number| trash.join(format!("{id}.{number}"))).find(|path| !path.exists());
        let aside = aside.unwrap_or_else(|| trash.join(id));
        match fs::rename(path, &aside) {
            Ok(()) => Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ContainerError::NoSuch { given: super::short(id).to_owned() })
            }
            Err(error) => Err(ContainerError::file("rename", path)(error)),
        }
    }

    /// Paths of what killed commands left: drafts of containers and image trees that nobody makes any more, and trash.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn leftovers(self) -> Result<Vec<PathBuf>, ContainerError> {
        let mut left = Vec::new();
        for (directory, prefix) in
            [(self.directory(), ".new-"), (image::directory(self.store.root()), ".new-"), (self.trash(), "")]
        {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ContainerError::file("read", directory)(error)),
            };
            for entry in entries.filter_map(Result::ok) {
                if entry.file_name().as_bytes().starts_with(prefix.as_bytes())
                    && (prefix.is_empty() || abandoned(&entry.path()).is_some())
                {
                    left.push(entry.path());
                }
            }
        }
        left.sort();
        Ok(left)
    }

    /// Removes the views that are kept for the next containers of images.
    ///
    /// # Errors
    /// [`ContainerError::File`], [`ContainerError::Remove`].
    pub fn drop_spare_views(self) -> Result<(), ContainerError> {
        let trees = fs::read_dir(image::directory(self.store.root()));
        for spare in trees.into_iter().flatten().flatten().map(|tree| tree.path().join(coracle_view::SPARE)) {
            match self.throw_away(&spare, coracle_view::SPARE) {
                Ok(aside) => remove_tree(&aside)?,
                // None, or taken just now.
                Err(ContainerError::NoSuch { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what killed commands left, names of containers that are gone too; how many things it was.
    ///
    /// # Errors
    /// The first failure, after the rest is removed.
    pub fn sweep(self) -> Result<usize, ContainerError> {
        let left = self.leftovers()?;
        let mut result = Ok(self.lock_names()?.sweep()?);
        for path in left {
            match (self.sweep_one(&path), &mut result) {
                (Ok(gone), Ok(swept)) => *swept += usize::from(gone),
                (Err(error), Ok(_)) => result = Err(error),
                (_, Err(_)) => {}
            }
        }
        result
    }

    /// Removes something that was left; false if it stays, since somebody has it open or makes it after all.
    fn sweep_one(self, path: &Path) -> Result<bool, ContainerError> {
        if path.parent() == Some(&self.trash()) {
            return remove_aside(path);
        }
        // The lock is held until it is out of the way, so that whoever waits for it finds it gone.
        let Some(lease) = abandoned(path) else { return Ok(false) };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = match self.throw_away(path, name.trim_start_matches('.')) {
            Err(ContainerError::NoSuch { .. }) => return Ok(false),
            aside => aside?,
        };
        drop(lease);
        remove_aside(&aside)
    }
}

/// Keeps the view of a container that goes for the image's next, if nothing was changed in it. That is saved work and no
/// more, so whatever fails here is passed over.
fn give_view(container: &Container, layers: &base::Layers) {
    if !container.view().is_dir() || container.has_edits() && container.restore(false).is_err() {
        return;
    }
    let truths = layers.lower.with_file_name("truths");
    let _ = coracle_view::spare(&coracle_view::Asked {
        tree: &layers.lower,
        truths: Some(&truths),
        changes: &layers.changes,
    });
}

/// The lease of a draft, if it has one, when nobody makes its container any more. Where there are no locks, a day tells.
fn abandoned(draft: &Path) -> Option<Option<fs::File>> {
    let path = draft.join("lease");
    let older = |hours: u64| {
        let made = fs::metadata(draft).and_then(|meta| meta.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > hours * 3600))
    };
    match fs::File::options().read(true).write(true).open(&path) {
        Ok(file) => match lock::try_exclusive(&file) {
            Ok(lock::Try::Locked) => Some(Some(file)),
            Ok(lock::Try::None) if older(24) => Some(Some(file)),
            Ok(_) | Err(_) => None,
        },
        // Killed before it had one; or about to make it, and then it notices. From another node it might not.
        Err(error) if error.kind() == io::ErrorKind::NotFound => (base::is_local(draft) || older(1)).then_some(None),
        Err(_) => None,
    }
}

/// Removes what is in the trash. What programs have open stays on NFS until they close it, under names of the node's own:
/// false then, and a later sweep removes the rest.
///
/// # Errors
/// [`ContainerError::Remove`].
pub(in crate::store) fn remove_aside(path: &Path) -> Result<bool, ContainerError> {
    remove(path).map(|held| !held)
}

/// Removes whatever is at a path; nothing there is fine. Directories closed by their mode are opened, no link is followed,
/// and no depth is too great. What cannot be removed is named, after all else is gone.
///
/// # Errors
/// [`ContainerError::Remove`].
pub fn remove_tree(path: &Path) -> Result<(), ContainerError> {
    if remove(path)? {
        return Err(ContainerError::Remove { path: path.to_owned(), cause: Errno::EBUSY.into() });
    }
    Ok(())
}

/// The same; whether something stays since programs have it open.
fn remove(path: &Path) -> Result<bool, ContainerError> {
    let failed = |errno: Errno| ContainerError::Remove { path: path.to_owned(), cause: errno.into() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).ok_or(Errno::EINVAL);
    let name = name.map_err(failed)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = match nix::fcntl::open(parent, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(false),
        result => result.map_err(failed)?,
    };
    let mut removal = Removal { top: None, moved: 0, held: false, failed: None };
    removal.remove(parent.as_fd(), &name, 0);
    match removal.failed {
        None => Ok(removal.held),
        Some((at, errno)) => Err(ContainerError::Remove {
            path: if at == name { path.to_owned() } else { path.join(std::ffi::OsStr::from_bytes(at.as_bytes())) },
            cause: errno.into(),
        }),
    }
}

struct Removal {
    /// The directory that is removed, for what is moved up.
    top: Option<OwnedFd>,
    moved: u64,
    /// Files that are open stay, as `.nfs…`.
    held: bool,
    /// The first name that stays, and why.
    failed: Option<(CString, Errno)>,
}

impl Removal {
    /// Removes one name of a directory.
    fn remove(&mut self, directory: BorrowedFd<'_>, name: &CStr, depth: usize) {
        match self.try_remove(directory, name, depth) {
            // Another command was faster, on this node or another.
            Ok(()) | Err(Errno::ENOENT | Errno::ESTALE) => {}
            Err(Errno::EBUSY) if is_kept_open(name) => self.held = true,
            Err(errno) => _ = self.failed.get_or_insert((name.to_owned(), errno)),
        }
    }

    fn try_remove(&mut self, directory: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            // Linux says EISDIR for a directory; EPERM and EACCES may be a directory on others' servers.
            Err(Errno::EISDIR | Errno::EPERM | Errno::EACCES) => {}
            answer => return answer,
        }
        let kind = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & SFlag::S_IFMT.bits();
        if kind != SFlag::S_IFDIR.bits() {
            // The directory that it is in may be closed.
            fchmod(directory, Mode::S_IRWXU)?;
            return unlinkat(directory, name, UnlinkatFlags::NoRemoveDir);
        }
        if depth >= DEEPEST
            && let Some(top) = &self.top
        {
            self.moved += 1;
            let new = CString::new(format!(".coracle-deep-{}", self.moved)).map_err(|_| Errno::EINVAL)?;
            let moved = renameat(directory, name, top, new.as_c_str());
            return moved.or_else(|errno| {
                // To be moved, a directory must be writable itself: its `..` changes.
                if errno != Errno::EACCES {
                    return Err(errno);
                }
                fchmodat(directory, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                fchmod(directory, Mode::S_IRWXU)?;
                renameat(directory, name, top, new.as_c_str())
            });
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(directory, name, flags, Mode::empty());
        let inner = open().or_else(|errno| {
            if errno != Errno::EACCES {
                return Err(errno);
            }
            fchmodat(directory, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
            open()
        })?;
        if depth == 0 {
            self.top = Some(inner.try_clone().map_err(|_| Errno::EMFILE)?);
        }
        loop {
            let moved = self.moved;
            for name in names(&inner)? {
                self.remove(inner.as_fd(), &name, depth + 1);
            }
            // What came up from below is here now.
            if depth > 0 || moved == self.moved || self.failed.is_some() {
                break;
            }
        }
        match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::EACCES) => {
                fchmod(directory, Mode::S_IRWXU)?;
                unlinkat(directory, name, UnlinkatFlags::RemoveDir)
            }
            // One of the names in it has been told of.
            Err(Errno::ENOTEMPTY) if self.failed.is_some() || self.held => Ok(()),
            // A file that was open has got another name meanwhile.
            Err(Errno::ENOTEMPTY) => match names(&inner)? {
                // Another command was removing it as well.
                left if left.is_empty() => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
                left if left.iter().all(|name| is_kept_open(name)) => {
                    self.held = true;
                    Ok(())
                }
                _ => Err(Errno::ENOTEMPTY),
            },
            answer => answer,
        }
    }
}

/// Whether this is NFS's name for a file that was removed and is open.
fn is_kept_open(name: &CStr) -> bool {
    name.to_bytes().starts_with(b".nfs")
}

/// The names in a directory, which may lose them while they are removed.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let read = |directory: &OwnedFd| -> Result<Vec<CString>, Errno> {
        let mut listing = Dir::openat(directory, c".", flags, Mode::empty())?;
        let names = listing.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let names: Vec<CString> = names.collect::<Result<_, _>>()?;
        Ok(names.into_iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect())
    };
    read(directory).or_else(|errno| {
        // It can be listed and not entered.
        if errno != Errno::EACCES {
            return Err(errno);
        }
        fchmod(directory, Mode::S_IRWXU)?;
        read(directory)
    })
}
