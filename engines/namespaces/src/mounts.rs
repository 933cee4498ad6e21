//! Binding, and making what is bound read-only.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};

use crate::sys::{fd_path, mount_setattr_recursive};

/// Binds with all that is mounted below: in a user namespace the kernel refuses to show what a mount covers.
pub(crate) fn bind_recursive(host: &Path, place: &Path) -> nix::Result<()> {
    mount(Some(host), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

/// Makes the mount at `mounted` and all below it read-only; `root` is the guest's root directory.
pub(crate) fn read_only(root: &OwnedFd, mounted: &OwnedFd) -> io::Result<()> {
    match mount_setattr_recursive(mounted.as_fd(), libc::MOUNT_ATTR_RDONLY) {
        // Before Linux 5.12, or a container's filter that does not know the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            read_only_one_by_one(root, mounted)
        }
        answer => answer,
    }
}

/// The older way: remounts every mount below `mounted`, found in mountinfo.
fn read_only_one_by_one(root: &OwnedFd, mounted: &OwnedFd) -> io::Result<()> {
    remount_read_only(&fd_path(mounted))?;
    let id = mount_id(mounted)?;
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    for place in mounts_below(&mountinfo, id) {
        let relative = place.strip_prefix("/").unwrap_or(&place);
        match remount_read_only(&fd_path(root).join(relative)) {
            // A mount that cannot be reached (an automount point, somebody's FUSE) or that another one covers.
            Err(Errno::EACCES | Errno::EINVAL | Errno::ENOENT | Errno::ENOTCONN | Errno::ESTALE) => {}
            answer => answer?,
        }
    }
    Ok(())
}

/// A remount names all flags anew, and those that came with the mount from outside may not be dropped. `relatime` is what
/// the kernel takes by itself where no other of its kind is named (and musl's statvfs does not tell it).
pub(crate) fn remount_read_only(place: &Path) -> nix::Result<()> {
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let now = statvfs(place)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, keep) in kept {
        flags.set(keep, now.contains(has));
    }
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
}

fn mount_id(fd: &OwnedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell mount ids"))
}

/// Mount points of every mount below the one with this id, parents first.
fn mounts_below(mountinfo: &[u8], id: u64) -> Vec<PathBuf> {
    let mut children: HashMap<u64, Vec<(u64, PathBuf)>> = HashMap::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        if let (Some(id), Some(parent), Some(place)) = (number(), number(), fields.nth(2)) {
            children.entry(parent).or_default().push((id, unescape(place)));
        }
    }
    let mut seen = HashSet::from([id]);
    let mut todo = vec![id];
    let mut below = Vec::new();
    while let Some(parent) = todo.pop() {
        for (id, place) in children.remove(&parent).unwrap_or_default() {
            if seen.insert(id) {
                todo.push(id);
                below.push(place);
            }
        }
    }
    below
}

/// mountinfo writes blanks, tabs, newlines and backslashes as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                bytes.push(value);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The mount points of this process's view, as mountinfo lists them; empty if it cannot be read.
pub(crate) fn mount_points() -> Vec<PathBuf> {
    let mountinfo = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let place = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(place)
        .filter(|path| !path.as_os_str().as_bytes().is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{mounts_below, unescape};
    use std::path::{Path, PathBuf};

    #[test]
    fn mountinfo_names_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/plain"), Path::new("/plain"));
    }

    #[test]
    fn only_what_is_below() {
        let info = b"20 1 8:1 / / rw - ext4 x rw\n30 20 0:5 / /data rw - tmpfs t rw\n31 30 0:6 / /data/in\\040ner rw - tmpfs t rw\n40 20 0:7 / /other rw - tmpfs t rw\n";
        assert_eq!(mounts_below(info, 30), [PathBuf::from("/data/in ner")]);
        assert_eq!(mounts_below(info, 20).len(), 3);
    }
}
