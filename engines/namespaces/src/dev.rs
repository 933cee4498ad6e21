//! A small `/dev` of the guest's own, as Docker's.

use std::{
    fs::{File, create_dir},
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use coracle_api::{LaunchSpec, RunError};
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, umask},
    unistd::ttyname,
};

use crate::{
    ids::Ids,
    mounts::bind_recursive,
    root::{Root, mount_point},
    sys::{Step, fd_path},
    underlay::Kind,
};

/// Devices that every program may count on.
const ALWAYS: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links that every program may count on.
const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The group `tty` owns terminals on nearly every distribution.
const TTY_GROUP: u32 = 5;

/// Mounts and fills a tmpfs at `place`, the root's `/dev`; nodes are the host's, bound one by one.
pub(crate) fn minimal(
    root: &Root,
    place: &OwnedFd,
    extra: &[PathBuf],
    spec: &LaunchSpec,
    ids: Ids<'_>,
) -> Result<(), RunError> {
    let old = umask(Mode::empty());
    let answer = fill(root, place, extra, spec, ids);
    umask(old);
    answer
}

fn fill(root: &Root, place: &OwnedFd, extra: &[PathBuf], spec: &LaunchSpec, ids: Ids<'_>) -> Result<(), RunError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &fd_path(place), Some("tmpfs"), flags, Some("mode=755,size=64m"))
        .step(|| "mount a tmpfs at /dev")?;
    let dev = mount_point(root, Path::new("/dev"), Kind::Directory)?;
    let dev = fd_path(&dev);
    for name in ALWAYS {
        node(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    for host in extra {
        let Ok(name) = host.strip_prefix("/dev") else { continue };
        let target = dev.join(name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).step(|| format!("make {}'s directory", host.display()))?;
        }
        node(host, &target)?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).step(|| format!("link /dev/{name}"))?;
    }
    console(&dev.join("console"))?;
    terminals(&dev.join("pts"), ids)?;
    if spec.unshare.ipc {
        let queues = dev.join("mqueue");
        create_dir(&queues).step(|| "make /dev/mqueue")?;
        // Not in every kernel, and of use to few.
        let _ = mount(Some("mqueue"), &queues, Some("mqueue"), MsFlags::MS_NOSUID, None::<&str>);
    }
    let shm = dev.join("shm");
    create_dir(&shm).step(|| "make /dev/shm")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &shm, Some("tmpfs"), flags, Some("mode=1777")).step(|| "mount a tmpfs at /dev/shm")
}

fn node(host: &Path, target: &Path) -> Result<(), RunError> {
    let what = || format!("bind the device {}", host.display());
    if host.is_dir() {
        create_dir(target).step(what)?;
    } else {
        File::create(target).map(drop).step(what)?;
    }
    bind_recursive(host, target).step(what)
}

/// The terminal that the guest was started on keeps a name inside, where its own does not exist.
fn console(target: &Path) -> Result<(), RunError> {
    match ttyname(std::io::stdin()) {
        Ok(terminal) => node(&terminal, target),
        Err(_) => Ok(()), // standard input is no terminal
    }
}

/// A pseudo-terminal file system of the guest's own. Terminals belong to the group `tty` where that group is mapped.
fn terminals(pts: &Path, ids: Ids<'_>) -> Result<(), RunError> {
    create_dir(pts).step(|| "make /dev/pts")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=620";
    let with_group = format!("{options},gid={TTY_GROUP}");
    let group_is_mapped = ids.has_group(TTY_GROUP);
    let options = if group_is_mapped { with_group.as_str() } else { options };
    mount(Some("devpts"), pts, Some("devpts"), flags, Some(options)).step(|| "mount devpts at /dev/pts")
}
