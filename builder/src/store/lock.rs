//! Locks on single files, for processes: flock(2), gone with the process that held it.
//!
//! Nobody waits for ever: a holder may be stopped, or on a node that has lost its network. Where a file system has no
//! locks, all go on without: renaming alone keeps the store whole, locks save work and keep what is used.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The longest that a command waits for another that changes the same thing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

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
    attempt(file, libc::LOCK_EX)
}

/// Tries for a shared lock without waiting.
pub(super) fn try_shared(file: &File) -> io::Result<Try> {
    attempt(file, libc::LOCK_SH)
}

fn attempt(file: &File, how: libc::c_int) -> io::Result<Try> {
    loop {
        // SAFETY: flock takes a descriptor, which `file` keeps open during the call, and touches no memory.
        if unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } == 0 {
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

/// Waits for a lock by asking again and again, at most `patience`; the last answer.
pub(super) fn wait(patience: Duration, mut ask: impl FnMut() -> io::Result<Try>) -> io::Result<Try> {
    let since = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match ask()? {
            Try::Busy if since.elapsed() < patience => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            answer => return Ok(answer),
        }
    }
}

/// Waits for an exclusive lock; where the file system has none, goes on without. `TimedOut` if a minute is not enough.
pub(super) fn exclusive(file: &File) -> io::Result<()> {
    match wait(PATIENCE, || try_exclusive(file))? {
        Try::Busy => Err(io::Error::new(io::ErrorKind::TimedOut, "another command has held it for a minute")),
        Try::Locked | Try::None => Ok(()),
    }
}

/// Opens a lock file, and makes it if there is none.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Whether an open file is what a path leads to now.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
