//! The mount namespace: the guest's view of files, put together on top of `/` and then made the root.
//!
//! In order: the tree (or an overlay on it), mount points that it lacks, `/proc`, `/sys`, `/dev`, the binds,
//! pivot_root(2). The tree is mounted over `/` itself: our own root directory stays the host's until the end, so every
//! host path still means what it says, and a bind of a host directory that contains the tree does not copy our mounts.
//!
//! A mount namespace that belongs to a new user namespace receives the host's mounts as slaves, recursively (since Linux
//! 3.8): what the host mounts later (autofs, CVMFS) arrives, and nothing of ours leaves.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path},
};

use coracle_api::{Access, Bind, Devices, LaunchSpec, RunError, Temporary};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, chroot, fchdir, pivot_root},
};

use crate::{
    apt, dev,
    ids::Ids,
    mounts::{bind_recursive, read_only},
    overlay,
    resolve::{self, Place},
    shared::Turn,
    sys::{Step, fd_path, open_place},
    underlay::{self, Kind},
};

/// The guest's root directory while it is being put together.
pub(crate) struct Root {
    /// The top of what is mounted over `/`.
    pub(crate) place: OwnedFd,
    /// How many mounts lie over `/`: the tree, and a cover on it.
    levels: u32,
}

impl Root {
    /// After a mount over `/`. (`/` itself means the process's root directory, which mounts do not cover; `..` of it is
    /// itself, but with mounts followed.)
    fn top() -> io::Result<Self> {
        Ok(Self { place: open_place(Path::new("/.."))?, levels: 1 })
    }

    /// One more mount lies over all of it.
    pub(crate) fn covered(&mut self) -> io::Result<()> {
        *self = Self { levels: self.levels + 1, ..Self::top()? };
        Ok(())
    }
}

/// Builds the view and makes it the process's root; leaves the process in the guest's working directory.
pub(crate) fn enter(spec: &LaunchSpec, ids: Ids<'_>, turn: Option<Turn>) -> Result<(), RunError> {
    let mut root = tree(spec, turn)?;
    if spec.access == Access::ReadOnly {
        underlay::provide(&mut root, &wanted(spec))?;
    }
    system(&root, spec, ids)?;
    apt::stay_root(&root, spec, ids)?;
    for bind in &spec.binds {
        match one_bind(&root, bind, spec) {
            Err(_) if bind.optional => {}
            answer => answer?,
        }
    }
    pivot(&root)?;
    working_directory(spec)
}

/// The tree as a mount of its own.
fn tree(spec: &LaunchSpec, turn: Option<Turn>) -> Result<Root, RunError> {
    let name = spec.root.display();
    if let Access::CopyOnWrite { changes } = &spec.access {
        let fresh = || overlay::mount_over_root(&spec.root, changes);
        match turn {
            Some(turn) => turn.mount(fresh)?,
            None => fresh()?,
        }
        return Root::top().step(|| format!("open the copy of {name}"));
    }
    bind_recursive(&spec.root, Path::new("/")).step(|| format!("bind the tree {name}"))?;
    let root = Root::top().step(|| format!("open the tree {name}"))?;
    if spec.access == Access::ReadOnly {
        read_only(&root.place, &root.place).step(|| format!("make the tree {name} read-only"))?;
    }
    Ok(root)
}

/// Every place in the tree that must exist.
fn wanted(spec: &LaunchSpec) -> Vec<(&Path, Kind)> {
    let mut wanted: Vec<_> = ["/proc", "/sys", "/dev"].map(|name| (Path::new(name), Kind::Directory)).into();
    // A host file that is missing is reported when it is bound.
    wanted.extend(spec.binds.iter().filter_map(|bind| Some((bind.guest.as_path(), Kind::of(&bind.host).ok()?))));
    if spec.make_cwd {
        wanted.push((&spec.cwd, Kind::Directory));
    }
    wanted
}

/// `/proc`, `/sys` and `/dev`.
fn system(root: &Root, spec: &LaunchSpec, ids: Ids<'_>) -> Result<(), RunError> {
    let place = mount_point(root, Path::new("/proc"), Kind::Directory)?;
    if !(spec.unshare.pid && fresh_proc(&place)?) {
        bind_recursive(Path::new("/proc"), &fd_path(&place)).step(|| "bind the host's /proc")?;
    }
    let place = mount_point(root, Path::new("/sys"), Kind::Directory)?;
    bind_recursive(Path::new("/sys"), &fd_path(&place)).step(|| "bind the host's /sys")?;
    let place = mount_point(root, Path::new("/dev"), Kind::Directory)?;
    match &spec.devices {
        Devices::Host => bind_recursive(Path::new("/dev"), &fd_path(&place)).step(|| "bind the host's /dev"),
        Devices::Minimal { extra } => dev::minimal(root, &place, extra, spec, ids),
    }
}

/// Mounts a `/proc` of the new pid namespace; false where a container has masked parts of the host's, for then the kernel
/// lets nobody inside mount one that shows them ([`crate::Namespaces::notes`] says so).
fn fresh_proc(place: &OwnedFd) -> Result<bool, RunError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), &fd_path(place), Some("proc"), flags, None::<&str>) {
        Err(Errno::EPERM) => Ok(false),
        answer => answer.map(|()| true).step(|| "mount /proc in the container"),
    }
}

fn one_bind(root: &Root, bind: &Bind, spec: &LaunchSpec) -> Result<(), RunError> {
    let what = || format!("bind {} to {}", bind.host.display(), bind.guest.display());
    let kind = Kind::of(&bind.host).step(what)?;
    let place = mount_point(root, &bind.guest, kind)?;
    match spec.temporary.iter().find(|(host, _)| *host == bind.host) {
        Some((_, asked)) => memory(asked, &fd_path(&place))?,
        None => bind_recursive(&bind.host, &fd_path(&place)).map_err(|error| explain_bind(what(), error))?,
    }
    let mounted = || resolve::open(root.place.as_fd(), &bind.guest).step(what);
    if is_host_root(&bind.host) {
        // The host's root came with what we have mounted over it.
        for _ in 0..root.levels {
            umount2(&fd_path(&mounted()?), MntFlags::MNT_DETACH).step(what)?;
        }
    }
    if bind.read_only {
        read_only(&root.place, &mounted()?).step(|| format!("{} read-only", what()))?;
    }
    Ok(())
}

/// A file system of memory, which goes with the namespace.
fn memory(asked: &Temporary, place: &Path) -> Result<(), RunError> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, asked.no_exec);
    let mut options = format!("mode={:o}", asked.mode);
    for (name, value) in [("size", asked.size), ("nr_inodes", asked.inodes)] {
        options += &value.map(|value| format!(",{name}={value}")).unwrap_or_default();
    }
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options.as_str()))
        .step(|| format!("mount a tmpfs ({options}) at {}", asked.guest.display()))
}

/// Whether the path is another way of writing `/`, or leads there.
fn is_host_root(path: &Path) -> bool {
    let file = |path: &Path| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    file(path) == file(Path::new("/"))
}

fn explain_bind(what: String, error: Errno) -> RunError {
    let advice = match error {
        Errno::ENOTDIR => Some("a directory can only be bound to a directory, and a file to a file"),
        Errno::EINVAL => Some("the kernel forbids to bind what another mount covers in part"),
        _ => None,
    };
    RunError::Step { what, source: error.into(), advice: advice.map(str::to_owned) }
}

/// The place where something is to be mounted. One that is missing is made: in the guest's own copy of the tree, or in a
/// host directory that was bound before (as Docker does); the shared tree has been provided for already.
pub(crate) fn mount_point(root: &Root, guest: &Path, kind: Kind) -> Result<OwnedFd, RunError> {
    let what = || format!("find the mount point {} in the container", guest.display());
    if !guest.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err(RunError::step(what(), io::Error::other("nothing can be bound over / itself")));
    }
    match resolve::resolve(root.place.as_fd(), guest).step(what)? {
        Place::Found(place) => Ok(place),
        Place::Missing(missing) => {
            underlay::make(&fd_path(&missing.ancestor), &missing.rest, kind)
                .step(|| format!("make the mount point {} in the container", guest.display()))?;
            resolve::open(root.place.as_fd(), guest).step(what)
        }
    }
}

/// Makes `root` the root directory and lets go of the host's.
fn pivot(root: &Root) -> Result<(), RunError> {
    fchdir(&root.place).step(|| "change to the container's root")?;
    // The old root lands on top of the new one, so the new one needs no directory for it.
    match pivot_root(".", ".") {
        Ok(()) => {
            // What was below us, and lies on top of us now: the host's root, and on it all but our own level.
            for _ in 0..root.levels {
                umount2(".", MntFlags::MNT_DETACH).step(|| "let go of the host's root")?;
            }
        }
        // The root of an initramfs cannot be exchanged; but the tree covers it already.
        Err(Errno::EINVAL) => chroot(".").step(|| "make the tree the root directory (chroot)")?,
        Err(error) => return Err(RunError::step("make the tree the root directory (pivot_root)", error.into())),
    }
    chdir("/").step(|| "change to the container's root")
}

/// Changes to the guest's working directory, which is made if it is to be.
pub(crate) fn working_directory(spec: &LaunchSpec) -> Result<(), RunError> {
    let what = || format!("start in {}", spec.cwd.display());
    match chdir(&spec.cwd) {
        Err(Errno::ENOENT) if spec.make_cwd => {
            std::fs::create_dir_all(&spec.cwd).step(|| format!("make the working directory {}", spec.cwd.display()))?;
            chdir(&spec.cwd).step(what)
        }
        answer => answer.step(what),
    }
}
