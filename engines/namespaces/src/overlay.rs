//! Copy-on-write: an overlay of the run's own changes over the shared tree.
//!
//! Linux 5.11 lets a user namespace mount one; `userxattr` keeps the overlay's marks in attributes that an ordinary user
//! may set. Renaming a directory that comes from the tree answers `EXDEV` there (the kernel offers `redirect_dir` to real
//! root only); mv(1) and its like then copy.

use std::{
    ffi::{OsStr, OsString},
    fs::create_dir,
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use coracle_api::RunError;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use crate::sys::{Step, fd_path, open_place};

/// Mounts a writable view of `tree` over `/`; what the guest changes goes to `changes`.
///
/// The directories inside are the kernel's: `upper` holds the changed files, `work` its temporary ones (with an inner
/// directory of mode 000 that its owner may remove like any other, after a chmod).
pub(crate) fn mount_over_root(tree: &Path, changes: &Path) -> Result<(), RunError> {
    if changes.join("view").exists() {
        return Err(RunError::Step {
            what: format!("use {}", changes.display()),
            source: io::Error::other("it holds the changes of a run under the ptrace engine, kept as hard links"),
            advice: Some("name another directory, or ask for --coracle-engine=ptrace".to_owned()),
        });
    }
    let lower = open_place(tree).step(|| format!("open the tree {}", tree.display()))?;
    let mut options = OsString::from(format!("userxattr,lowerdir={}", fd_path(&lower).display()));
    let mut held = Vec::new();
    for (option, name) in [("upperdir", "upper"), ("workdir", "work")] {
        let directory = changes.join(name);
        match create_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            answer => answer.step(|| format!("make {}", directory.display()))?,
        }
        let place = open_place(&directory).step(|| format!("open {}", directory.display()))?;
        options.push(format!(",{option}={}", fd_path(&place).display()));
        held.push(place);
    }
    upper_like(tree, &changes.join("upper"))?;
    mount(Some("overlay"), "/", Some("overlay"), MsFlags::empty(), Some(OsStr::from_bytes(options.as_bytes())))
        .map_err(|error| explain(changes, error))
}

/// The root directory's mode is the upper directory's.
fn upper_like(tree: &Path, upper: &Path) -> Result<(), RunError> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("set the mode of {}", upper.display());
    let mode = std::fs::metadata(tree).step(what)?.permissions().mode() & 0o7777;
    std::fs::set_permissions(upper, std::fs::Permissions::from_mode(mode | 0o200)).step(what)
}

fn explain(changes: &Path, error: Errno) -> RunError {
    let advice = match error {
        Errno::ENODEV => {
            "this kernel has no overlayfs: an administrator can load it (modprobe overlay); or use another engine"
        }
        Errno::EPERM => {
            "this kernel lets no ordinary user mount an overlay (Linux 5.11 and newer do): use another engine, or a copy of the tree"
        }
        Errno::EINVAL => {
            "the file system of that directory cannot hold an overlay's changes (NFS, Lustre and overlays cannot): choose a local one as scratch"
        }
        _ => "choose another directory as scratch",
    };
    RunError::Step {
        what: format!("mount an overlay with its changes in {}", changes.display()),
        source: io::Error::from(error),
        advice: Some(advice.to_owned()),
    }
}
