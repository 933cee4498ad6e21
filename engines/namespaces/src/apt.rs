//! apt as root with one id only: it drops to the user `_apt` for downloads, checks that this happened, and gives up.
//!
//! A line of its configuration keeps it from trying. The file is generated in the run's scratch and bound into a tree that
//! has apt and that the guest may write to.

use std::{fs, os::fd::AsFd, path::Path};

use coracle_api::{Access, LaunchSpec, RunError};

use crate::{
    ids::Ids,
    mounts::bind_recursive,
    resolve,
    root::{Root, mount_point},
    sys::{Step, fd_path},
    underlay::Kind,
};

/// apt reads every file of this directory, in order of their names.
const DIRECTORY: &str = "/etc/apt/apt.conf.d";
const FILE: &str = "/etc/apt/apt.conf.d/zz-coracle";
const TEXT: &str =
    "// One id is mapped in this container: there is no other user to become.\nAPT::Sandbox::User \"root\";\n";

/// Binds the line where it is needed.
pub(crate) fn stay_root(root: &Root, spec: &LaunchSpec, ids: Ids<'_>) -> Result<(), RunError> {
    let one_id = spec.identity.uid == 0 && ids == Ids::One;
    if !one_id || spec.access == Access::ReadOnly || resolve::open(root.place.as_fd(), Path::new(DIRECTORY)).is_err() {
        return Ok(());
    }
    let what = || "configure apt for a container with one id";
    let generated = spec.scratch.join("apt.conf");
    fs::write(&generated, TEXT).step(what)?;
    let place = mount_point(root, Path::new(FILE), Kind::File)?;
    bind_recursive(&generated, &fd_path(&place)).step(what)
}
