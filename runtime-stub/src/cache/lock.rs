//! Who unpacks: one process holds a lock, the others wait and say for whom.
//!
//! The lock only saves work. What is unpacked twice is renamed into place once; the second finds the name taken. So where
//! there are no locks (Lustre without `-o flock`) everybody unpacks, and where the holder makes no progress (it was stopped,
//! or its disk hangs) the waiters go on to a second lock, and one of them unpacks there.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::base::Base;
use crate::unpack;

/// Locks after which a process unpacks without any.
const LOCKS: usize = 4;

/// Nobody is told of a wait shorter than this.
const SHORT: Duration = Duration::from_secs(1);

/// How the wait ended.
pub(super) enum Turn<T> {
    /// This process unpacks; it holds the lock, if there is such a thing here.
    Ours(Option<Held>),
    /// Somebody else got it done.
    Ready(T),
}

/// What the waiting process may say.
pub(super) enum Wait {
    /// It waits for this process.
    For(Option<u32>),
    /// It stops waiting for this process.
    GaveUp(Option<u32>),
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    started: Instant,
    last: AtomicU64,
}

/// Waits for a turn at unpacking `name`, or until `ready` finds it unpacked. `EINTR`: a signal ends the job.
pub(super) fn turn<T>(
    base: &Base,
    name: &str,
    patience: Duration,
    mut ready: impl FnMut() -> Option<T>,
    mut say: impl FnMut(Wait),
) -> Result<Turn<T>, Errno> {
    for number in 0..LOCKS {
        let name = if number == 0 { format!("{name}.lock") } else { format!("{name}.lock.{number}") };
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(base.fd(), name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let (began, mut moved, mut seen, mut said) = (Instant::now(), Instant::now(), Vec::new(), false);
        let mut pause = Duration::from_millis(2);
        loop {
            match lock(&file) {
                Ok(()) => {
                    let held = Held { file, started: Instant::now(), last: AtomicU64::new(u64::MAX) };
                    held.progress(0, 0);
                    return Ok(Turn::Ours(Some(held)));
                }
                Err(Errno::EWOULDBLOCK | Errno::EINTR) => {}
                Err(_) => return Ok(Turn::Ours(None)),
            }
            if let Some(found) = ready() {
                return Ok(Turn::Ready(found));
            }
            let now = content(&file);
            if now != seen {
                (moved, seen) = (Instant::now(), now);
            }
            if !said && began.elapsed() >= SHORT {
                said = true;
                say(Wait::For(pid(&seen)));
            }
            if moved.elapsed() >= patience {
                say(Wait::GaveUp(pid(&seen)));
                break;
            }
            // Whoever holds signals back does not mean to sit here for it.
            if unpack::waiting().is_some() {
                return Err(Errno::EINTR);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
    Ok(Turn::Ours(None))
}

impl Held {
    /// Writes down how far this process is, at most ten times a second.
    pub(super) fn progress(&self, done: usize, all: usize) {
        let tick = u64::try_from(self.started.elapsed().as_millis() / 100).unwrap_or(u64::MAX - 1);
        if self.last.swap(tick, Ordering::Relaxed) != tick {
            // Fixed width, so that a reader never sees the rest of a longer line. Failing to write costs only the message.
            let line = format!("{:<10} {done:>10} {all:>10}\n", std::process::id());
            let _ = self.file.write_at(line.as_bytes(), 0);
        }
    }
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = [0; 64];
    let len = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes[..len].to_vec()
}

fn pid(content: &[u8]) -> Option<u32> {
    std::str::from_utf8(content).ok()?.split_whitespace().next()?.parse().ok()
}

fn lock(file: &File) -> Result<(), Errno> {
    flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)
}

/// Whether nobody holds the lock of this name.
pub(super) fn is_free(base: &Base, name: &str) -> bool {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(base.fd(), name, flags, Mode::empty()).is_ok_and(|fd| lock(&File::from(fd)).is_ok())
}

/// flock(2) on a descriptor that the caller keeps.
pub(super) fn flock(fd: i32, operation: i32) -> Result<(), Errno> {
    // SAFETY: flock touches no memory of this process.
    Errno::result(unsafe { libc::flock(fd, operation) }).map(drop)
}

/// Takes a shared lock without waiting. `Ok(false)`: this file system has no locks.
pub(super) fn share(fd: &OwnedFd) -> Result<bool, Errno> {
    match flock(fd.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Err(Errno::EWOULDBLOCK),
        Err(_) => Ok(false),
    }
}
