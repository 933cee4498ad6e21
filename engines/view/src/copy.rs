//! One file copied: data, extended attributes, times.
//!
//! Blocks are shared where the file system can do that (reflink), else copied inside the kernel, else by hand; holes stay
//! holes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::{
    errno::Errno,
    sys::{
        stat::{FileStat, futimens},
        time::TimeSpec,
        uio::{pread, pwrite},
    },
    unistd::{Whence, ftruncate, lseek},
};

/// Has the empty file `to` share the blocks of `from`, where the file system can do that (ioctl_ficlone(2)).
#[must_use]
pub fn clone(from: impl AsFd, to: impl AsFd) -> bool {
    // SAFETY: FICLONE takes a descriptor by value; both are open, and no memory is touched.
    unsafe { libc::ioctl(to.as_fd().as_raw_fd(), libc::FICLONE as _, from.as_fd().as_raw_fd()) == 0 }
}

/// Copies what `from`, `size` bytes long, holds to the empty file `to`.
pub(crate) fn data(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: libc::off_t) -> Result<(), Errno> {
    if size == 0 || clone(from, to) {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let (start, end) = match lseek(from, at, Whence::SeekData) {
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => break,
            Ok(start) => (start, lseek(from, start, Whence::SeekHole).unwrap_or(size)),
            // No such question on this file system.
            Err(_) => (at, size),
        };
        piece(from, to, start, end)?;
        at = end.max(start + 1);
    }
    ftruncate(to, size)
}

/// Copies the bytes from `start` up to `end`, at most.
fn piece(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: libc::off_t, end: libc::off_t) -> Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let len = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        // SAFETY: both offsets are live integers that the call updates; the descriptors are open.
        let done = unsafe {
            libc::syscall(
                libc::SYS_copy_file_range,
                from.as_raw_fd(),
                &raw mut read_at,
                to.as_raw_fd(),
                &raw mut write_at,
                len,
                0,
            )
        };
        match Errno::result(done) {
            Ok(0) => return by_hand(from, to, read_at, end),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ENOSYS | Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EBADF) => {
                return by_hand(from, to, read_at, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: libc::off_t, end: libc::off_t) -> Result<(), Errno> {
    let mut buffer = vec![0; 1 << 18];
    let mut at = start;
    while at < end {
        let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let len = match pread(from, &mut buffer[..room], at) {
            // Shorter than it said: what is missing stays a hole.
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            match pwrite(to, rest, at) {
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(done) => {
                    rest = &rest[done..];
                    at += libc::off_t::try_from(done).unwrap_or(0);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Copies the extended attributes that a user may set. What the file system does not take stays behind: it would not have
/// taken it when the tree was unpacked.
pub(crate) fn xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut names = [0_u8; 4096];
    // SAFETY: the buffer is writable for the length given.
    let len = unsafe { libc::flistxattr(from.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let mut list = usize::try_from(len).unwrap_or(0);
    let mut large = Vec::new();
    if len < 0 && Errno::last() == Errno::ERANGE {
        large.resize(64 << 10, 0);
        // SAFETY: as above.
        let len = unsafe { libc::flistxattr(from.as_raw_fd(), large.as_mut_ptr().cast(), large.len()) };
        list = usize::try_from(len).unwrap_or(0);
    }
    let names = if large.is_empty() { &names[..list] } else { &large[..list] };
    let mut value = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && !name.starts_with(b"system.posix_acl_") {
            continue;
        }
        value.resize(64 << 10, 0);
        // SAFETY: the name ends with its NUL (`split_inclusive` of a list that the kernel wrote), the buffer is writable
        // for the length given, and what is set was just read into it.
        unsafe {
            let name = name.as_ptr().cast();
            let len = libc::fgetxattr(from.as_raw_fd(), name, value.as_mut_ptr().cast(), value.len());
            if let Ok(len) = usize::try_from(len) {
                libc::fsetxattr(to.as_raw_fd(), name, value.as_ptr().cast(), len, 0);
            }
        }
    }
}

/// Gives `to` the times that `stat` tells.
pub(crate) fn times(to: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    let (access, change) = times_of(stat);
    futimens(to, &access, &change)
}

/// Times of last access and modification.
pub(crate) fn times_of(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}
