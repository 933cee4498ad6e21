//! A run's own directory: mount points, generated files, copy-on-write layers.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::{Mode, mkdirat},
};

use super::{
    Place, Settings, Skipped,
    base::{Base, NoBase},
    fill::temporary,
    lease, trust, unused,
};

/// A directory that this run made for itself, empty but for a lease that tells others that the run is alive.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lease: OwnedFd,
}

/// No scratch directory could be made.
#[derive(Debug, thiserror::Error)]
#[error("no scratch directory: {}: name a directory of your own in CORACLE_SCRATCH", super::list(.0))]
pub struct ScratchError(pub Vec<Skipped>);

impl Scratch {
    /// Makes one in the first of the scratch places that will have it.
    ///
    /// # Errors
    /// Every place, and why it would not do.
    pub fn create(settings: &Settings) -> Result<Self, ScratchError> {
        let boot = trust::boot_id();
        let mut skipped = Vec::new();
        for place in settings.scratch_places() {
            match Self::create_at(&place, &boot) {
                Ok(scratch) => return Ok(scratch),
                Err(reason) => skipped.push(Skipped { place, reason }),
            }
        }
        Err(ScratchError(skipped))
    }

    fn create_at(place: &Place, boot: &str) -> Result<Self, String> {
        loop {
            let base = Base::open(place, true).map_err(|no| match no {
                NoBase::Missing => "does not exist".to_owned(),
                NoBase::Refused(reason) => reason,
            })?;
            base.check_scratch(place.chosen)?;
            // Whoever makes something looks for what others could not remove.
            unused::sweep(&base);
            match Self::create_in(&base, boot) {
                // A clean-up found it empty meanwhile.
                Err(_) if base.is_gone() => {}
                answer => return answer.map_err(|error| error.to_string()),
            }
        }
    }

    fn create_in(base: &Base, boot: &str) -> io::Result<Self> {
        let name = temporary("run");
        mkdirat(base.fd(), name.as_str(), Mode::S_IRWXU)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(base.fd(), name.as_str(), flags, Mode::empty())?;
        let lease = lease::create(dir.as_fd(), boot)?;
        Ok(Self { path: base.path()?.join(name), lease: lease::make_inherited(lease) })
    }

    /// The directory: absolute, without symbolic links. What it holds beside the file `lease` is the caller's.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory and everything in it. Without this it stays until a later run finds its lease free.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(self) -> io::Result<()> {
        drop(self.lease);
        remove_locked(&self.path)
    }
}

/// Removes a directory with everything in it, also directories that their owner locked: overlayfs leaves one of mode 0.
pub(super) fn remove_locked(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(dir);
            fs::remove_dir_all(dir)
        }
        answer => answer,
    }
}

fn unlock(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}
