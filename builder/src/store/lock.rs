//! Locks on single files, for processes: flock(2), gone with the process that held it.
//!
//! Nobody waits for ever: a holder may be stopped, or on a node that has lost its network. Where a file system has no
//! locks, all go on without: renaming alone keeps the store whole, locks save work and keep what is used.
//!
//! A node remembers for up to a minute what a shared file system's names led to (`acdirmax` in nfs(5)), so a look at a
//! name says nothing about what another node did under the lock before. Opening a directory is what makes it ask
//! ([`look_anew`]).

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
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
    /// This file system has no locks, or none that other nodes hear of.
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
            let alone = coracle_api::locks_stay_here(file.as_fd());
            return Ok(if alone { Try::None } else { Try::Locked });
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

/// Has the names in these directories, outer ones first, mean what they mean on the server now.
pub(super) fn look_anew<'path>(directories: impl IntoIterator<Item = &'path Path>) {
    for directory in directories {
        // What cannot be opened has no names to be wrong about.
        let _ = File::open(directory);
    }
}

/// Whether an open file is what a path leads to now.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let directory = path.parent();
    look_anew(directory.and_then(Path::parent).into_iter().chain(directory));
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
