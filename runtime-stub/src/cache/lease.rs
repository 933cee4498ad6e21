//! The lease: while a job runs in a tree, nobody removes it.
//!
//! Every job holds a shared flock on the tree's `lease` file through a descriptor that survives exec and fork, so the lock
//! lasts until the last of its processes ends, however it ends. For file systems without locks, and to know when a tree was
//! used last, each start also appends one line: process id, seconds since the epoch, boot id. The file's modification time
//! is the time of the last start.

use std::{
    fs::File,
    io::{Read, Write},
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

/// Seconds after which a line of an unknown boot says nothing any more.
const MONTH: u64 = 30 * 24 * 3600;

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

/// Whether a process that wrote a line may still be alive; asked only where there are no locks.
///
/// A line of another boot may be another node's: it counts for a month.
pub(super) fn is_used(fd: &OwnedFd) -> bool {
    let boot = super::trust::boot_id();
    let mut bytes = Vec::new();
    let Ok(Ok(_)) = fd.try_clone().map(|copy| File::from(copy).read_to_end(&mut bytes)) else { return true };
    let now = seconds();
    String::from_utf8_lossy(&bytes).lines().any(|line| {
        let mut fields = line.split(' ');
        let Some(pid) = fields.next().and_then(|pid| pid.parse::<i32>().ok()) else { return false };
        let since = fields.next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(now);
        if fields.next() == Some(boot.as_str()) {
            // A process that started after the line was written is another one with the same number.
            started(pid).is_some_and(|start| start <= since + 2)
        } else {
            since + MONTH > now
        }
    })
}

/// When a process started, in seconds since the epoch (proc(5): `starttime` in ticks after `btime`).
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows it starts with field 3.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(boot + ticks / u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?)
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// One short write to a file opened for appending: lines do not mix. A full disk costs only the line.
fn record(fd: &OwnedFd, boot: &str) {
    let now = seconds();
    let line = format!("{} {now} {boot}\n", std::process::id());
    if let Ok(copy) = fd.try_clone() {
        let _ = File::from(copy).write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_started_before_now_and_after_boot() {
        let start = started(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(start <= seconds() && start + 24 * 3600 > seconds(), "{start}");
    }

    #[test]
    fn lines_tell_the_living_from_the_dead() {
        let path = std::env::temp_dir().join(format!("coracle-lease-{}", std::process::id()));
        let check = |text: String| {
            std::fs::write(&path, text).unwrap();
            is_used(&OwnedFd::from(File::open(&path).unwrap()))
        };
        let (me, boot, now) = (std::process::id(), super::super::trust::boot_id(), seconds());
        assert!(check(format!("{me} {now} {boot}\n")));
        assert!(!check(format!("{me} 1000 {boot}\n")), "the number was another process's then");
        assert!(!check(format!("4194305 {now} {boot}\n")), "no such process");
        assert!(check(format!("1 {now} another-boot\n")));
        assert!(!check(format!("1 {} another-boot\n", now - MONTH - 1)));
        std::fs::remove_file(&path).unwrap();
    }
}
