//! Breaking a link: a name that means a shared file gets a copy of its own in place.
//!
//! The copy is made under a lock in the view's `tmp`, complete with attributes, and exchanged with the name in one step.
//! What comes out by that is looked at: if it is not the shared file, somebody gave the name to another file meanwhile, and
//! the exchange is undone. So a file that a guest puts there is never lost, and a name that it removes stays removed.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens},
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::{FileId, View, copy};

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

impl View {
    /// Gives the name `host` (absolute, no symbolic link at its end) a copy of the shared file that it means, with
    /// permission bits `mode`. Times of its directory stay.
    ///
    /// # Errors
    /// What the kernel says: `ENOSPC`, `EDQUOT`, `EACCES`… The name is as it was then.
    pub fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Unshared, Errno> {
        let bytes = host.to_bytes_with_nul();
        let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
        let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]).map_err(|_| Errno::EINVAL)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _locked = Locked::wait(self.lock.as_fd());
        let parent = open_parent(&bytes[..slash])?;
        let old = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if is(&stat, shared) => stat,
            Ok(_) | Err(Errno::ENOENT) => return Ok(Unshared::Meanwhile),
            Err(errno) => return Err(errno),
        };
        let temporary = Temporary::new(self.tmp.as_fd());
        let new = temporary.copy_of(&parent, name, &old, mode)?;
        let before = fstat(&parent)?;
        let answer = temporary.put(&parent, name, shared, &before)?;
        let times = copy::times_of(&before);
        // Only what could be opened for reading can have its times set back.
        let _ = futimens(&parent, &times.0, &times.1);
        Ok(if answer { Unshared::Copied(id_of(&new)) } else { Unshared::Meanwhile })
    }
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

/// A name in `tmp`, removed at the end whatever it means then.
struct Temporary<'a> {
    dir: BorrowedFd<'a>,
    name: String,
}

impl<'a> Temporary<'a> {
    fn new(dir: BorrowedFd<'a>) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self { dir, name: format!("{}-{count}", std::process::id()) }
    }

    fn copy_of(&self, parent: &OwnedFd, name: &CStr, old: &FileStat, mode: u32) -> Result<FileStat, Errno> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let from = openat(parent, name, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
        // A killed process of the same number may have left one of the same name.
        let _ = unlinkat(self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags = flags | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let to = openat(self.dir, self.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        copy::data(from.as_fd(), to.as_fd(), old.st_size)?;
        copy::xattrs(from.as_fd(), to.as_fd());
        fchmod(&to, Mode::from_bits_truncate(mode & 0o1777))?;
        copy::times(to.as_fd(), old)?;
        fstat(&to)
    }

    /// Exchanges the copy with the name; `false` if the name does not mean the shared file.
    fn put(&self, parent: &OwnedFd, name: &CStr, shared: &FileId, before: &FileStat) -> Result<bool, Errno> {
        match self.exchange(parent, name) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            // No such call before Linux 3.15, and not on every file system.
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP) => {
                nix::fcntl::renameat(self.dir, self.name.as_str(), parent, name)?;
                return Ok(true);
            }
            Err(Errno::EACCES | Errno::EPERM) => {
                // The guest has locked the directory; to the guest, changing a file in it is no change of the directory.
                let mode = Mode::from_bits_truncate(before.st_mode & 0o7777);
                fchmod(parent, mode | Mode::S_IWUSR | Mode::S_IXUSR)?;
                let done = self.exchange(parent, name);
                fchmod(parent, mode)?;
                done?;
            }
            Err(errno) => return Err(errno),
        }
        let out = fstatat(self.dir, self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if is(&out, shared) {
            return Ok(true);
        }
        self.exchange(parent, name)?;
        Ok(false)
    }

    fn exchange(&self, parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let own = std::ffi::CString::new(self.name.as_str()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: both names are NUL-terminated and outlive the call, which writes to no memory of this process.
        let done = unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                self.dir.as_raw_fd(),
                own.as_ptr(),
                parent.as_raw_fd(),
                name.as_ptr(),
                libc::RENAME_EXCHANGE,
            )
        };
        Errno::result(done).map(drop)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}
