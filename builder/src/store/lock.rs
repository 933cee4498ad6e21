//! Locks on single files, for processes: flock(2), gone with the process that held it.

use std::{fs::File, io, os::fd::AsRawFd as _};

/// Outcome of trying for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    /// It is ours until the file is closed.
    Locked,
    /// Another process has it.
    Busy,
    /// This file system has no locks.
    None,
}

/// Tries for an exclusive lock without waiting.
pub(super) fn try_exclusive(file: &File) -> io::Result<Try> {
    loop {
        // SAFETY: flock takes a descriptor, which `file` keeps open during the call, and touches no memory.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Try::Locked);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EWOULDBLOCK) => return Ok(Try::Busy),
            Some(libc::ENOLCK | libc::ENOTSUP | libc::ENOSYS) => return Ok(Try::None),
            _ => return Err(error),
        }
    }
}

/// Waits for an exclusive lock; where the file system has none, goes on without.
pub(super) fn exclusive(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: as above.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENOLCK | libc::ENOTSUP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
    }
}
