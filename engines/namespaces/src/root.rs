//! The mount namespace: the guest's view of files, put together below the tree's own directory and then made `/`.
//!
//! In order: the tree bound onto itself (or an overlay over it), `/proc`, `/sys`, `/dev`, the binds, pivot_root(2). A
//! mount namespace that belongs to a new user namespace receives the host's mounts as slaves, recursively: what the host
//! mounts later (autofs, CVMFS) arrives, and nothing of ours leaves.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use coracle_api::{Access, Bind, Devices, LaunchSpec, RunError};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, fchdir, pivot_root},
};

use crate::{
    dev,
    resolve::{self, Place},
    sys::{Step, fd_path, mount_setattr_recursive, open_place},
};

/// Builds the view and makes it the process's root; leaves the process in the guest's working directory.
pub(crate) fn enter(spec: &LaunchSpec) -> Result<(), RunError> {
    let root = tree(spec)?;
    system(&root, spec)?;
    for bind in &spec.binds {
        match one_bind(&root, bind) {
            Err(_) if bind.optional => {}
            answer => answer?,
        }
    }
    pivot(&root)?;
    chdir(&spec.cwd).step(|| format!("start in {}", spec.cwd.display()))
}

/// The tree as a mount of its own.
fn tree(spec: &LaunchSpec) -> Result<OwnedFd, RunError> {
    let name = spec.root.display();
    if let Access::CopyOnWrite { changes } = &spec.access {
        return Err(RunError::step(format!("copy-on-write into {}", changes.display()), Errno::ENOSYS.into()));
    }
    bind_recursive(&spec.root, &spec.root).step(|| format!("bind the tree {name}"))?;
    let root = open_place(&spec.root).step(|| format!("open the tree {name}"))?;
    if spec.access == Access::ReadOnly {
        read_only(&root).step(|| format!("make the tree {name} read-only"))?;
    }
    Ok(root)
}

/// `/proc`, `/sys` and `/dev`.
fn system(root: &OwnedFd, spec: &LaunchSpec) -> Result<(), RunError> {
    for name in ["/proc", "/sys"] {
        let place = mount_point(root, Path::new(name))?;
        bind_recursive(Path::new(name), &fd_path(&place)).step(|| format!("bind the host's {name}"))?;
    }
    let place = mount_point(root, Path::new("/dev"))?;
    match &spec.devices {
        Devices::Host => bind_recursive(Path::new("/dev"), &fd_path(&place)).step(|| "bind the host's /dev"),
        Devices::Minimal { extra } => dev::minimal(root, &place, extra, &spec.identity),
    }
}

fn one_bind(root: &OwnedFd, bind: &Bind) -> Result<(), RunError> {
    let what = || format!("bind {} to {}", bind.host.display(), bind.guest.display());
    let place = mount_point(root, &bind.guest)?;
    bind_recursive(&bind.host, &fd_path(&place)).step(what)?;
    if bind.read_only {
        let mounted = resolve::open(root.as_fd(), &bind.guest).step(what)?;
        read_only(&mounted).step(|| format!("{} read-only", what()))?;
    }
    Ok(())
}

/// The place where something is to be mounted.
pub(crate) fn mount_point(root: &OwnedFd, guest: &Path) -> Result<OwnedFd, RunError> {
    let what = || format!("find the mount point {} in the container", guest.display());
    match resolve::resolve(root.as_fd(), guest).step(what)? {
        Place::Found(place) => Ok(place),
        Place::Missing(_) => Err(RunError::step(what(), io::Error::from(io::ErrorKind::NotFound))),
    }
}

/// Binds with all that is mounted below: in a user namespace the kernel refuses to show what a mount covered.
pub(crate) fn bind_recursive(host: &Path, place: &Path) -> nix::Result<()> {
    mount(Some(host), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

fn read_only(mounted: &OwnedFd) -> io::Result<()> {
    mount_setattr_recursive(mounted.as_fd(), libc::MOUNT_ATTR_RDONLY)
}

/// Makes `root` the root directory and lets go of the host's.
fn pivot(root: &OwnedFd) -> Result<(), RunError> {
    fchdir(root).step(|| "change to the container's root")?;
    // The old root lands on top of the new one, so the new one needs no directory for it.
    pivot_root(".", ".").step(|| "make the tree the root directory (pivot_root)")?;
    umount2(".", MntFlags::MNT_DETACH).step(|| "let go of the host's root")?;
    chdir(&PathBuf::from("/")).step(|| "change to the container's root")
}
