//! One file copied: data, extended attributes, times.
//!
//! Blocks are shared where the file system can do that (reflink), else copied inside the kernel, else by hand; holes stay
//! holes.

use coracle_intercept::Errno;
use coracle_sys::{
    self as sys, Fd,
    kernel::{
        __NR_copy_file_range, __NR_fgetxattr, __NR_flistxattr, __NR_fsetxattr, __NR_ftruncate, __NR_ioctl, __NR_lseek,
        __NR_pread64, __NR_pwrite64, __NR_utimensat, SEEK_DATA, SEEK_HOLE, stat as Stat,
    },
};

use crate::{call::raw, files};

/// `ioctl_ficlone(2)`.
const FICLONE: usize = 0x4004_9409;
/// As much is copied by one call.
const PIECE: usize = 1 << 30;

fn call(number: u32, args: [usize; 6]) -> Result<usize, Errno> {
    sys::check(raw(number, args)).map_err(files::errno)
}

fn no_such_call(errno: Errno) -> bool {
    const OTHERS: [sys::Errno; 6] = [
        sys::Errno::ENOSYS,
        sys::Errno::EXDEV,
        sys::Errno::EINVAL,
        sys::Errno::EOPNOTSUPP,
        sys::Errno::EPERM,
        sys::Errno::EBADF,
    ];
    OTHERS.iter().any(|other| other.0 == errno.0)
}

/// Copies what `from`, `size` bytes long, holds to the empty file `to`.
pub(super) fn data(from: Fd, to: Fd, size: usize, buffer: &mut [u8]) -> Result<(), Errno> {
    if size == 0 || call(__NR_ioctl, [to.arg(), FICLONE, from.arg(), 0, 0, 0]).is_ok() {
        return Ok(());
    }
    let seek = |at, how: u32| call(__NR_lseek, [from.arg(), at, how as usize, 0, 0, 0]);
    let mut at = 0;
    while at < size {
        let (start, end) = match seek(at, SEEK_DATA) {
            // Nothing but a hole up to the end.
            Err(errno) if errno.0 == sys::Errno::ENXIO.0 => break,
            Ok(start) => (start, seek(start, SEEK_HOLE).unwrap_or(size)),
            // No such question on this file system.
            Err(_) => (at, size),
        };
        piece(from, to, (start, end), buffer)?;
        at = end.max(start + 1);
    }
    call(__NR_ftruncate, [to.arg(), size, 0, 0, 0, 0]).map(drop)
}

/// Copies the bytes from `start` up to `end`, at most.
fn piece(from: Fd, to: Fd, (start, end): (usize, usize), buffer: &mut [u8]) -> Result<(), Errno> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let (reads, writes) = ((&raw mut read_at).expose_provenance(), (&raw mut write_at).expose_provenance());
        let len = (end - start).min(PIECE);
        match call(__NR_copy_file_range, [from.arg(), reads, to.arg(), writes, len, 0]) {
            Ok(0) => return by_hand(from, to, (start, end), buffer),
            Ok(_) => {}
            Err(errno) if no_such_call(errno) => return by_hand(from, to, (start, end), buffer),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn by_hand(from: Fd, to: Fd, (start, end): (usize, usize), buffer: &mut [u8]) -> Result<(), Errno> {
    let place = buffer.as_mut_ptr().expose_provenance();
    let mut at = start;
    while at < end {
        let room = (end - at).min(buffer.len());
        let len = call(__NR_pread64, [from.arg(), place, room, at, 0, 0])?;
        if len == 0 {
            // Shorter than it said: what is missing stays a hole.
            return Ok(());
        }
        let mut written = 0;
        while written < len {
            match call(__NR_pwrite64, [to.arg(), place + written, len - written, at + written, 0, 0])? {
                0 => return Err(Errno(sys::Errno::ENOSPC.0)),
                done => written += done,
            }
        }
        at += len;
    }
    Ok(())
}

/// Copies the extended attributes that a user may set. What the file system does not take stays behind: it would not have
/// taken it when the tree was unpacked.
pub(super) fn xattrs(from: Fd, to: Fd, buffer: &mut [u8]) {
    let (names, value) = buffer.split_at_mut(buffer.len() / 2);
    let list = call(__NR_flistxattr, [from.arg(), names.as_mut_ptr().expose_provenance(), names.len(), 0, 0, 0]);
    let names = list.ok().and_then(|len| names.get(..len)).unwrap_or_default();
    for name in names.split_inclusive(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && !name.starts_with(b"system.posix_acl_") {
            continue;
        }
        let name = name.as_ptr().expose_provenance();
        let place = value.as_mut_ptr().expose_provenance();
        if let Ok(len) = call(__NR_fgetxattr, [from.arg(), name, place, value.len(), 0, 0]) {
            let _ = call(__NR_fsetxattr, [to.arg(), name, place, len, 0, 0]);
        }
    }
}

/// Gives `to` the times that `stat` tells.
pub(super) fn times(to: Fd, stat: &Stat) -> Result<(), Errno> {
    let times = [stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec];
    call(__NR_utimensat, [to.arg(), 0, times.as_ptr().expose_provenance(), 0, 0, 0]).map(drop)
}
