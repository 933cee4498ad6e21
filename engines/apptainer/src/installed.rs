//! Which runtime the node has, and whether it can start anything for us.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use coracle_api::Refusal;

/// The runtime's names, the newer first.
const NAMES: [&str; 2] = ["apptainer", "singularity"];

/// Where administrators put it when PATH does not say.
const PLACES: &str = "/usr/local/bin:/usr/bin:/opt/apptainer/bin:/opt/singularity/bin";

/// An installed runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Absolute path of its command.
    pub(crate) program: PathBuf,
}

impl Installed {
    /// The first one on `path`, then in the usual places.
    pub(crate) fn find(path: Option<&OsStr>) -> Result<Self, Refusal> {
        let path = path.unwrap_or_default();
        for name in NAMES {
            let dirs = std::env::split_paths(path).chain(std::env::split_paths(PLACES));
            for dir in dirs.filter(|dir| dir.is_absolute()) {
                let program = dir.join(name);
                if is_program(&program) {
                    return Ok(Self { program });
                }
            }
        }
        Err(Refusal::new("neither apptainer nor singularity is on PATH or in the usual places")
            .advise("load the site's module of it, or ask an administrator to install it"))
    }

    /// With its set-user-id starter it needs nothing of the kernel; without, user namespaces.
    pub(crate) fn may_start(&self) -> Result<(), Refusal> {
        if self.has_starter() {
            return Ok(());
        }
        user_namespace().map_err(|error| {
            let program = self.program.display();
            Refusal::new(format!(
                "{program} has no set-user-id starter, and this node refuses user namespaces: {error}"
            ))
            .advise("ask an administrator for apptainer-suid, or for user namespaces")
        })
    }

    fn has_starter(&self) -> bool {
        let Ok(program) = fs::canonicalize(&self.program) else { return false };
        let Some(prefix) = program.parent().and_then(Path::parent) else { return false };
        let dirs = ["libexec", "lib", "lib64", "usr/libexec"];
        let starters =
            dirs.iter().flat_map(|dir| NAMES.map(|name| prefix.join(dir).join(name).join("bin/starter-suid")));
        starters.into_iter().any(|starter| {
            // S_ISUID of inode(7).
            fs::metadata(starter).is_ok_and(|status| status.permissions().mode() & 0o4000 != 0)
        })
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// Makes a user namespace in a child that ends at once.
fn user_namespace() -> io::Result<()> {
    // SAFETY: the child makes system calls only and ends without returning; the launcher has one thread (the contract of
    // `Engine::probe`'s caller), so unshare(2) answers for the kernel's rules and not for threads.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: unshare takes flags; _exit ends the child.
        unsafe {
            let answer = libc::unshare(libc::CLONE_NEWUSER);
            libc::_exit(if answer == 0 { 0 } else { *libc::__errno_location() });
        }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: waits for the child made above; status is an int.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn the_first_on_path_is_taken_and_its_starter_seen() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o700).open(&path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("none/apptainer", 0o644);
        make("bin/apptainer", 0o755);
        let path = std::env::join_paths([dir.path().join("none"), dir.path().join("bin")]).unwrap();
        let found = Installed::find(Some(&path)).unwrap();
        assert_eq!(found.program, dir.path().join("bin/apptainer"));
        assert!(!found.has_starter());
        make("libexec/apptainer/bin/starter-suid", 0o755);
        assert!(!found.has_starter());
        make("libexec/apptainer/bin/starter-suid", 0o4755);
        assert!(found.has_starter());
        assert_eq!(found.may_start(), Ok(()));
    }
}
