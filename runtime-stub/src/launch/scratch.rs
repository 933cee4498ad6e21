//! Directories for a run: one shared by all runs of a tree for what never changes, one of a run's own for what it writes.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::LaunchError;
use crate::cache::Settings;

/// A directory of one run's own, below the first scratch place that takes it.
#[derive(Debug)]
pub struct Scratch {
    /// The directory: `…/coracle-<uid>/run-<pid>-<start>`.
    pub path: PathBuf,
}

impl Scratch {
    /// Makes one, after removing those whose runs were killed.
    ///
    /// # Errors
    /// [`LaunchError::Scratch`] with the last place's reason, if none will do.
    pub fn make(settings: &Settings, uid: u32) -> Result<Self, LaunchError> {
        let mut failed = None;
        for place in settings.scratch_places() {
            let own = place.path.join(format!("coracle-{uid}"));
            match private_dir(&own, uid).and_then(|()| new_run(&own)) {
                Ok(path) => return Ok(Self { path }),
                Err(source) => failed = Some(LaunchError::Scratch { step: "use it for scratch", path: own, source }),
            }
        }
        Err(failed.unwrap_or_else(|| LaunchError::Scratch {
            step: "find a place for scratch",
            path: "/".into(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    /// A directory in it.
    ///
    /// # Errors
    /// [`LaunchError::Scratch`].
    pub fn dir(&self, name: &str, mode: u32) -> Result<PathBuf, LaunchError> {
        let path = self.path.join(name);
        // The mode is set afterwards, for the umask is the guest's business and not ours.
        let made = fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        made.map_err(|source| LaunchError::Scratch { step: "create it", path: path.clone(), source })?;
        Ok(path)
    }

    /// Removes it with all that the guest left in it.
    ///
    /// # Errors
    /// [`LaunchError::Scratch`] names what could not be removed.
    pub fn remove(self) -> Result<(), LaunchError> {
        remove_tree(&self.path).map_err(|source| LaunchError::Scratch {
            step: "remove it",
            path: self.path.clone(),
            source,
        })
    }
}

/// The directory for generated files and mount points that all runs of a tree share.
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

/// A directory that only we can enter; one that somebody else put there is refused.
fn private_dir(path: &Path, uid: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() || meta.uid() != uid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else made it"));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// `run-<pid>-<start>` names the process that removes it, so that a later run can tell whether it still can.
fn new_run(own: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(own)?.flatten() {
        let name = entry.file_name();
        let dead = name.to_str().and_then(|name| name.strip_prefix("run-")).and_then(|rest| {
            let (pid, start) = rest.split_once('-')?;
            Some(start_time(pid.parse().ok()?).is_none_or(|now| now != start))
        });
        if dead == Some(true) {
            // Best effort: another run may be at it, or its files may belong to subordinate ids.
            let _ = remove_tree(&entry.path());
        }
    }
    let pid = std::process::id();
    let path = own.join(format!("run-{pid}-{}", start_time(pid).unwrap_or_default()));
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// When a process started, in the kernel's ticks: with its id it names the process for ever (proc_pid_stat(5)).
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 22 is the twentieth after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Removes a directory and what is below it, also directories that their owner locked (overlayfs leaves one of mode 0).
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path);
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_directory_of_its_own_and_the_dead_ones_go() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let settings = Settings { scratch: Some(dir.path().to_owned()), ..Settings::default() };
        // SAFETY: geteuid takes no argument and cannot fail (getuid(2)).
        let uid = unsafe { libc::geteuid() };
        let own = dir.path().join(format!("coracle-{uid}"));
        let dead = own.join("run-1-0");
        let locked = dead.join("work");
        fs::create_dir_all(&locked).expect("writable");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0)).expect("it is ours");
        let scratch = Scratch::make(&settings, uid).expect("the place is fine");
        assert!(!dead.exists(), "process 1 did not start at tick 0");
        assert_eq!(fs::metadata(&own).expect("it was made").mode() & 0o777, 0o700);
        let tmp = scratch.dir("tmp", 0o1777).expect("it is empty");
        assert_eq!(fs::metadata(tmp).expect("it was made").mode() & 0o7777, 0o1777);
        let path = scratch.path.clone();
        scratch.remove().expect("it is ours");
        assert!(!path.exists() && own.exists());
    }
}
