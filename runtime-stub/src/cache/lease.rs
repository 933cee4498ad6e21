//! The lease: while a job runs in a tree, nobody removes it.
//!
//! Every job holds a shared flock on the tree's `lease` file through a descriptor that survives exec and fork, so the lock
//! lasts until the last of its processes ends, however it ends. For file systems without locks, and to know when a tree was
//! used last, each start also appends one line: process id, seconds since the epoch, boot id. The file's modification time
//! is the time of the last start.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, fstat},
};

use super::lock::share;

/// The file's name.
pub(super) const LEASE: &str = "lease";

/// Descriptors from here on are out of the way of shells and of programs that count theirs.
const HIGH: i32 = 700;

/// Lines of jobs that are long gone pile up to this length, where locks make them redundant.
const LONGEST: i64 = 64 << 10;

/// Makes the lease of a new tree, and takes it.
pub(super) fn create(dir: BorrowedFd<'_>, boot: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dir, LEASE, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    share(&fd)?;
    record(&fd, boot);
    Ok(fd)
}

/// Takes the lease of a tree that is there. `ENOENT`: the tree is being removed, or a cleaner removed the file.
pub(super) fn take(dir: BorrowedFd<'_>, boot: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dir, LEASE, flags, Mode::empty())?;
    let locked = share(&fd)?;
    // Whoever removes a tree holds the lock exclusively and unlinks this file last.
    let stat = fstat(&fd)?;
    if stat.st_nlink == 0 {
        return Err(Errno::ENOENT);
    }
    if locked && stat.st_size > LONGEST {
        // Another start may do the same at once: no harm. Failing leaves the file long.
        let _ = nix::unistd::ftruncate(&fd, 0);
    }
    record(&fd, boot);
    Ok(fd)
}

/// Lets the descriptor out of the way of the guest's own, and past exec. The lock stays with the open file.
pub(super) fn make_inherited(fd: OwnedFd) -> OwnedFd {
    for least in [HIGH, 100, 3] {
        // SAFETY: the descriptor is open; F_DUPFD touches no memory and gives a new descriptor or -1 (fcntl(2)).
        let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, least) };
        if new >= 0 {
            // SAFETY: just made, and owned by nobody else.
            return unsafe { OwnedFd::from_raw_fd(new) };
        }
    }
    fd
}

/// One short write to a file opened for appending: lines do not mix. A full disk costs only the line.
fn record(fd: &OwnedFd, boot: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let line = format!("{} {now} {boot}\n", std::process::id());
    if let Ok(copy) = fd.try_clone() {
        let _ = File::from(copy).write_all(line.as_bytes());
    }
}
