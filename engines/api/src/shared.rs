//! Files on a file system that several nodes share: whether its locks reach the other nodes.
//!
//! NFS can be mounted so that flock(2) succeeds and no other node hears of it (`nolock`, `local_lock=flock`; nfs(5)).
//! Whoever takes a lock to learn that nobody else uses a file must not believe such a one.

use std::{
    fs,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// NFS, by its number in statfs(2).
const NFS: libc::c_long = 0x6969;

/// Whether flock(2) on an open file holds on this node only, though other nodes can open the file, too.
#[must_use]
pub fn locks_stay_here(file: BorrowedFd<'_>) -> bool {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open while it is borrowed, and `found` has room for what fstatfs writes.
    if unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: fstatfs succeeded, so it has written the whole structure.
    let found = unsafe { found.assume_init() };
    // The field's type differs between C libraries and processors.
    #[expect(clippy::allow_attributes, reason = "the cast is needed with one C library only")]
    #[allow(clippy::unnecessary_cast, reason = "musl's field is unsigned")]
    if found.f_type as libc::c_long != NFS {
        return false;
    }
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: as above, for fstat.
    if unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: fstat succeeded, so it has written the whole structure.
    let device = unsafe { stat.assume_init() }.st_dev;
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| keeps_locks(&mounts, &device))
}

/// Whether the mount of a device, in the words of proc_pid_mountinfo(5), has locks of its own.
fn keeps_locks(mounts: &str, device: &str) -> bool {
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device));
    let options = mount.and_then(|line| line.split_once(" - ")).and_then(|(_, rest)| rest.split(' ').nth(2));
    options.is_some_and(|options| {
        options.split(',').any(|option| matches!(option, "nolock" | "local_lock=all" | "local_lock=flock"))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn a_mount_tells_whose_its_locks_are() {
        let mounts = "\
            22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,nolock\n\
            60 22 0:50 / /home rw - nfs server:/home rw,vers=3,local_lock=none,addr=10.0.0.1\n\
            61 22 0:51 / /old rw - nfs server:/old rw,vers=3,nolock,local_lock=all,addr=10.0.0.1\n\
            62 22 0:52 / /some rw - nfs4 server:/some rw,local_lock=flock\n\
            63 22 0:53 / /other rw - nfs4 server:/other rw,local_lock=posix\n";
        for (device, kept) in [("0:50", false), ("0:51", true), ("0:52", true), ("0:53", false), ("0:5", false)] {
            assert_eq!(keeps_locks(mounts, device), kept, "{device}");
        }
    }

    #[test]
    fn locks_of_a_local_file_system_are_everybodys() {
        assert!(!locks_stay_here(File::open("/proc/self/exe").expect("this program").as_fd()));
    }
}
