//! Everything of a tree but the files' bytes: directories first; hard links, symbolic links and pipes after the files;
//! modes and times of directories last, since every new name changes its directory's time.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use coracle_format::{Entry, Index, Kind, Time, Xattr};
use nix::{
    NixPath,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, futimens, mkdirat, utimensat},
        time::TimeSpec,
    },
    unistd::{linkat, symlinkat},
};

use super::{Modes, failure::Failure, files::file_mode};

/// A path that the kernel takes whole; longer ones are opened piece by piece.
const LONGEST: usize = 4000;

/// The directory that the tree grows in.
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
}

/// A directory of the tree and a path below it that the kernel takes.
pub(super) enum Base<'a> {
    Root(BorrowedFd<'a>),
    Open(OwnedFd),
}

impl AsFd for Base<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => root.as_fd(),
            Self::Open(dir) => dir.as_fd(),
        }
    }
}

impl Tree<'_> {
    /// Splits off what the kernel would not take, by opening directories on the way.
    pub(super) fn base<'p>(&self, path: &'p [u8]) -> Result<(Base<'_>, &'p [u8]), Errno> {
        let mut base = Base::Root(self.root);
        let mut rest = path;
        while rest.len() > LONGEST {
            let at = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            base = Base::Open(openat(&base, &rest[..at], flags, Mode::empty())?);
            rest = &rest[at + 1..];
        }
        Ok((base, rest))
    }

    pub(super) fn open(&self, path: &[u8], flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        let (base, path) = self.base(path)?;
        openat(base, path, flags, mode)
    }

    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.open(if path.is_empty() { b"." } else { path }, flags, Mode::empty())
    }

    /// Makes all directories, parents before children, open to their owner only.
    pub(super) fn make_directories(&self, index: &Index) -> Result<(), Failure> {
        for entry in &index.entries {
            if entry.kind == Kind::Directory && !entry.path.is_empty() {
                let (base, path) = self.base(&entry.path).map_err(Failure::step("create", &entry.path))?;
                mkdirat(base, path, Mode::S_IRWXU).map_err(Failure::step("create", &entry.path))?;
            }
        }
        Ok(())
    }

    pub(super) fn make_symlink(&self, entry: &Entry, target: &[u8]) -> Result<(), Errno> {
        let (base, path) = self.base(&entry.path)?;
        symlinkat(target, &base, path)?;
        set_times_at(&base, path, entry.mtime)
    }

    fn hard_link(&self, from: &Entry, to: &Entry) -> Result<(), Failure> {
        let failed = || Failure::step("link", &to.path);
        let (old_base, old) = self.base(&from.path).map_err(failed())?;
        let (new_base, new) = self.base(&to.path).map_err(failed())?;
        match linkat(&old_base, old, &new_base, new, AtFlags::empty()) {
            // AFS, exFAT and the like, or too many links to one file: a copy is the same to a reader.
            Err(Errno::EPERM | Errno::EXDEV | Errno::EMLINK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                self.copy(from, to).map_err(failed())
            }
            other => other.map_err(failed()),
        }
    }

    fn copy(&self, from: &Entry, to: &Entry) -> Result<(), Errno> {
        let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let reading = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut old = File::from(self.open(&from.path, reading, Mode::empty())?);
        let mode = Mode::from_bits_truncate(old.metadata().map_err(errno).map(|data| {
            use std::os::unix::fs::PermissionsExt as _;
            data.permissions().mode() & 0o7777
        })?);
        let writing = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut new = File::from(self.open(&to.path, writing, mode)?);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let len = old.read(&mut buffer).map_err(errno)?;
            if len == 0 {
                break;
            }
            new.write_all(&buffer[..len]).map_err(errno)?;
        }
        set_times(new.as_fd(), from.mtime)
    }
}

/// Hard links, which lead to files only, so that no symbolic link is followed on the way; pipes too.
pub(super) fn make_hard_links(tree: &Tree<'_>, index: &Index, modes: Modes) -> Result<(), Failure> {
    for entry in &index.entries {
        match entry.kind {
            Kind::HardLink { entry: to } => tree.hard_link(&index.entries[to as usize], entry)?,
            Kind::Fifo => make_pipe(tree, entry, modes)?,
            _ => {}
        }
    }
    Ok(())
}

fn make_pipe(tree: &Tree<'_>, entry: &Entry, modes: Modes) -> Result<(), Failure> {
    let failed = || Failure::step("create", &entry.path);
    let (base, path) = tree.base(&entry.path).map_err(failed())?;
    let mode = Mode::from_bits_truncate(file_mode(entry.mode, modes));
    let kind = nix::sys::stat::SFlag::S_IFIFO;
    match nix::sys::stat::mknodat(&base, path, kind, mode, 0) {
        // Some network file systems have no pipes; a program that wants this one will say so.
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(failed()(errno)),
        Ok(()) => set_times_at(&base, path, entry.mtime).map_err(failed()),
    }
}

/// One thread's share of the symbolic links.
pub(super) fn make_symlinks(tree: &Tree<'_>, index: &Index, next: &AtomicUsize) -> Result<(), Failure> {
    for_each(&index.entries, next, |_, entry| {
        let Kind::Symlink { target } = &entry.kind else { return Ok(()) };
        tree.make_symlink(entry, target).map_err(Failure::step("create the symbolic link", &entry.path))
    })
}

/// One thread's share of the directories' modes, times and attributes.
///
/// With true modes the caller uses one thread: a directory may close itself to its owner, so children come before parents.
pub(super) fn finish_directories(
    tree: &Tree<'_>,
    index: &Index,
    modes: Modes,
    next: &AtomicUsize,
    lost: &AtomicU64,
) -> Result<(), Failure> {
    for_each(&index.entries, next, |_, entry| {
        if entry.kind != Kind::Directory {
            return Ok(());
        }
        let failed = || Failure::step("set the mode and times of", &entry.path);
        if !entry.xattrs.is_empty() {
            let directory = tree.directory(&entry.path).map_err(failed())?;
            lost.fetch_add(set_xattrs(directory.as_fd(), &entry.xattrs), Ordering::Relaxed);
        }
        let (base, path) = tree.base(&entry.path).map_err(failed())?;
        let path = if path.is_empty() { b"." } else { path };
        let mode = directory_mode(entry.mode, modes);
        // The time first: a directory that its owner cannot enter may be the root itself, with `.` for a path.
        set_times_at(&base, path, entry.mtime).map_err(failed())?;
        if mode != 0o700 || path == b"." {
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(&base, path, mode, FchmodatFlags::FollowSymlink).map_err(failed())?;
        }
        Ok(())
    })
}

/// Permission bits of a directory on disk. A shared one keeps its write bits, so that its owner can remove it by `rm -r`;
/// others are kept out by the cache's own directory.
fn directory_mode(mode: u16, modes: Modes) -> libc::mode_t {
    let mode = libc::mode_t::from(mode);
    match modes {
        Modes::Shared => (mode & 0o1777) | 0o700,
        Modes::True => mode & 0o1777,
    }
}

/// Shares entries among threads in runs, last entries first; each comes with its number.
pub(super) fn for_each<'e>(
    entries: &'e [Entry],
    next: &AtomicUsize,
    mut work: impl FnMut(usize, &'e Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    const RUN: usize = 256;
    loop {
        let taken = next.fetch_add(RUN, Ordering::Relaxed);
        let Some(end) = entries.len().checked_sub(taken).filter(|end| *end > 0) else { return Ok(()) };
        let start = end.saturating_sub(RUN);
        for (number, entry) in entries[start..end].iter().enumerate().rev() {
            work(start + number, entry)?;
        }
    }
}

/// Sets attributes of the `user.` class, and returns how many the file system did not take. The others belong to root, or
/// to security modules; the index has them all.
pub(super) fn set_xattrs(file: BorrowedFd<'_>, xattrs: &[Xattr]) -> u64 {
    let mut lost = 0;
    for xattr in xattrs.iter().filter(|xattr| xattr.name.starts_with(b"user.")) {
        let set = xattr.name.with_nix_path(|name| {
            // SAFETY: the name is NUL-terminated, value and length describe one live slice (fsetxattr(2)).
            unsafe {
                libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), xattr.value.as_ptr().cast(), xattr.value.len(), 0)
            }
        });
        lost += u64::from(set != Ok(0));
    }
    lost
}

/// Sets the modification time; the access time is left as it is, which is now.
pub(super) fn set_times(file: BorrowedFd<'_>, mtime: Time) -> Result<(), Errno> {
    futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(mtime))
}

fn set_times_at(base: &Base<'_>, path: &[u8], mtime: Time) -> Result<(), Errno> {
    match utimensat(base, path, &TimeSpec::UTIME_OMIT, &time_spec(mtime), UtimensatFlags::NoFollowSymlink) {
        // Old file systems know no times of symbolic links.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        other => other,
    }
}

fn time_spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds))
}
