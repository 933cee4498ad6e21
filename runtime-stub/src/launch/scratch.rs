//! Directories for a run: one shared by all runs of a tree for what never changes, one of a run's own for what it writes.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use coracle_api::{Access, Identity, LaunchSpec};

use super::LaunchError;
use crate::cache;

/// A directory of one run's own, removed at its end.
#[derive(Debug)]
pub struct Own(cache::Scratch);

impl Own {
    /// Makes one.
    ///
    /// # Errors
    /// [`LaunchError::NoScratch`] with every place's reason.
    pub fn make(settings: &cache::Settings) -> Result<Self, LaunchError> {
        Ok(Self(cache::Scratch::create(settings)?))
    }

    /// Makes one on the file system of a cached tree, if there is room for one.
    fn near(root: &Path) -> Option<Self> {
        let place = cache::place_of(root)?;
        let settings = cache::Settings { scratch: Some(place.to_owned()), ..cache::Settings::default() };
        let own = Self::make(&settings).ok()?;
        if is_near(own.path(), root) {
            return Some(own);
        }
        // It has gone elsewhere. What is empty is easily removed.
        let _ = own.0.remove();
        None
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A directory in it.
    ///
    /// # Errors
    /// [`LaunchError::Scratch`].
    pub fn dir(&self, name: &str, mode: u32) -> Result<PathBuf, LaunchError> {
        let path = self.path().join(name);
        // The mode is set afterwards, for the umask is the guest's business and not ours.
        let made = fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        made.map_err(|source| LaunchError::Scratch { step: "create it", path: path.clone(), source })?;
        Ok(path)
    }

    /// Removes it with all that a guest of this identity left in it, also in directories that their owner locked (overlayfs
    /// leaves one of mode 0), and files of subordinate ids.
    ///
    /// # Errors
    /// [`LaunchError::Scratch`] names what could not be removed.
    pub fn remove(self, identity: &Identity) -> Result<(), LaunchError> {
        let path = self.path().to_owned();
        let removed = match self.0.remove() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && identity.subordinate.is_some() => {
                coracle_namespaces::remove_all(&path, identity).map_err(|error| io::Error::other(error.to_string()))
            }
            answer => answer,
        };
        removed.map_err(|source| LaunchError::Scratch { step: "remove it", path, source })
    }
}

/// For an engine that shares files by hard links: has the changes of a run that keeps none lie where links can be made.
/// The directory for them, to be removed at the run's end; none if they are well where they are.
pub(crate) fn bring_near(spec: &mut LaunchSpec, own: &Own, settings: &cache::Settings) -> Option<Own> {
    let Access::CopyOnWrite { changes } = &spec.access else { return None };
    // Whoever names a place for scratch means it, and so does who names one for the changes.
    if settings.scratch.is_some() || !changes.starts_with(own.path()) || is_near(changes, &spec.root) {
        return None;
    }
    let near = Own::near(&spec.root)?;
    let changes = near.dir("changes", 0o700).ok()?;
    spec.access = Access::CopyOnWrite { changes };
    Some(near)
}

fn is_near(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

/// The directory for generated files and mount points that all runs of a tree share. It lives and goes with the tree.
///
/// # Errors
/// [`LaunchError::Scratch`].
pub fn shared(tree_dir: &Path) -> Result<PathBuf, LaunchError> {
    let path = tree_dir.join("made");
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(LaunchError::Scratch { step: "create it", path, source })
        }
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_runs_own_directory_goes_with_what_the_guest_locked() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let settings = cache::Settings { scratch: Some(dir.path().to_owned()), ..cache::Settings::default() };
        let own = Own::make(&settings).expect("the place is fine");
        let tmp = own.dir("tmp", 0o1777).expect("it is empty");
        assert_eq!(fs::metadata(&tmp).expect("it was made").mode() & 0o7777, 0o1777);
        fs::create_dir_all(tmp.join("locked/inner")).expect("writable");
        fs::set_permissions(tmp.join("locked"), fs::Permissions::from_mode(0o0)).expect("it is ours");
        let path = own.path().to_owned();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let you = Identity { uid, gid, groups: Vec::new(), host_uid: uid, host_gid: gid, subordinate: None };
        own.remove(&you).expect("it is ours");
        assert!(!path.exists());
    }
}
