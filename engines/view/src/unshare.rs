//! Breaking a link: a name that means a shared file gets a copy of its own in place.
//!
//! The copy is made in the view's `tmp`, complete with attributes, and renamed over the name. An engine that makes its
//! guest's renames and removals itself makes them under the same lock ([`View::turn`]), so that none comes between the last
//! look at the name and the rename: no file that a guest puts there is lost, and a name that it removes stays removed.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens},
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::{FileId, View, copy, error::errno};

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unshared {
    /// It means this file of its own now.
    Copied(FileId),
    /// It does not mean the shared file (any more): somebody was faster.
    Meanwhile,
}

/// A flock held, until dropped.
pub(crate) struct Locked<'a>(BorrowedFd<'a>);

impl<'a> Locked<'a> {
    /// Waits for the lock. Where there are no locks, renames alone keep order.
    pub(crate) fn wait(file: BorrowedFd<'a>) -> Self {
        // SAFETY: flock takes integers.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 && Errno::last() == Errno::EINTR {}
        Self(file)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: flock takes integers.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// A turn at changing names, until dropped.
pub struct Turn<'v> {
    _lock: Locked<'v>,
    _turn: MutexGuard<'v, ()>,
}

impl View {
    /// Waits until nobody breaks a link, and keeps it so.
    #[must_use]
    pub fn turn(&self) -> Turn<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { _lock: Locked::wait(self.lock.as_fd()), _turn: turn }
    }

    /// Gives the name `host` (absolute, no symbolic link at its end) a copy of the shared file that it means, with
    /// permission bits `mode`. Times of its directory stay.
    ///
    /// # Errors
    /// What the kernel says: `ENOSPC`, `EDQUOT`, `EACCES`… The name is as it was then.
    pub fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Unshared, Errno> {
        self.put(host, shared, &self.aside()?, Some(mode))
    }

    /// A place for a copy that is made before it is needed.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn aside(&self) -> Result<Aside, Errno> {
        let dir = self.tmp.try_clone().map_err(|error| errno(&error))?;
        Ok(Aside::new(dir))
    }

    /// Makes the copy that [`unshare_by`](Self::unshare_by) needs, in another process perhaps; `false` if the name
    /// means another file by now.
    ///
    /// # Errors
    /// As [`unshare`](Self::unshare).
    pub fn copy_aside(&self, aside: &Aside, host: &CStr, shared: &FileId, mode: u32) -> Result<bool, Errno> {
        let (parent, name) = named(host)?;
        match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, shared) => aside.copy_of(&parent, name, &stat, mode).map(|_| true),
            Ok(_) | Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// As [`unshare`](Self::unshare), with a copy of that file which is there already.
    ///
    /// # Errors
    /// Those of unshare.
    pub fn unshare_by(&self, aside: &Aside, host: &CStr, shared: &FileId) -> Result<Unshared, Errno> {
        self.put(host, shared, aside, None)
    }

    fn put(&self, host: &CStr, shared: &FileId, aside: &Aside, mode: Option<u32>) -> Result<Unshared, Errno> {
        let _turn = self.turn();
        let (parent, name) = named(host)?;
        let old = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, shared) => stat,
            Ok(_) | Err(Errno::ENOENT) => return Ok(Unshared::Meanwhile),
            Err(errno) => return Err(errno),
        };
        let new = match mode {
            Some(mode) => aside.copy_of(&parent, name, &old, mode)?,
            None => fstatat(&aside.dir, aside.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?,
        };
        let before = fstat(&parent)?;
        let answer = aside.put(&parent, name, shared, &before)?;
        let times = copy::times_of(&before);
        // Only what could be opened for reading can have its times set back.
        let _ = futimens(&parent, &times.0, &times.1);
        Ok(if answer { Unshared::Copied(id_of(&new)) } else { Unshared::Meanwhile })
    }
}

/// The directory of a name, and what it is called there.
fn named(host: &CStr) -> Result<(OwnedFd, &CStr), Errno> {
    let bytes = host.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]).map_err(|_| Errno::EINVAL)?;
    Ok((open_parent(&bytes[..slash])?, name))
}

fn open_parent(path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"/" } else { path };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let here = nix::fcntl::AT_FDCWD;
    match openat(here, path, flags | OFlag::O_RDONLY, Mode::empty()) {
        Err(Errno::EACCES) => openat(here, path, flags | OFlag::O_PATH, Mode::empty()),
        answer => answer,
    }
}

/// Whether this is the file that was looked at before.
fn is(stat: &FileStat, file: &FileId) -> bool {
    id_of(stat) == *file
}

/// What tells a file apart.
pub(crate) fn id_of(stat: &FileStat) -> FileId {
    FileId {
        device: stat.st_dev,
        inode: stat.st_ino,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

/// A place for a copy: a name in `tmp`, removed at the end whatever it means then.
#[derive(Debug)]
pub struct Aside {
    dir: OwnedFd,
    name: String,
}

impl Aside {
    fn new(dir: OwnedFd) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self { dir, name: format!("{}-{count}", std::process::id()) }
    }

    fn copy_of(&self, parent: &OwnedFd, name: &CStr, old: &FileStat, mode: u32) -> Result<FileStat, Errno> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let from = openat(parent, name, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
        // A killed process of the same number may have left one of the same name.
        let _ = unlinkat(&self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags = flags | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let to = openat(&self.dir, self.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        copy::data(from.as_fd(), to.as_fd(), old.st_size)?;
        copy::xattrs(from.as_fd(), to.as_fd());
        fchmod(&to, Mode::from_bits_truncate(mode & 0o1777))?;
        copy::times(to.as_fd(), old)?;
        fstat(&to)
    }

    /// Gives the copy the name, if that still means the shared file.
    fn put(&self, parent: &OwnedFd, name: &CStr, shared: &FileId, before: &FileStat) -> Result<bool, Errno> {
        match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, shared) => {}
            Ok(_) | Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        match renameat(&self.dir, self.name.as_str(), parent, name) {
            Err(Errno::EACCES | Errno::EPERM) => {
                // The guest has locked the directory; to the guest, changing a file in it is no change of the directory.
                let mode = Mode::from_bits_truncate(before.st_mode & 0o7777);
                fchmod(parent, mode | Mode::S_IWUSR | Mode::S_IXUSR)?;
                let done = renameat(&self.dir, self.name.as_str(), parent, name);
                fchmod(parent, mode)?;
                done.map(|()| true)
            }
            answer => answer.map(|()| true),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}
