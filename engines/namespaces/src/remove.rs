//! Removing what a guest with subordinate ids left behind.
//!
//! Its files belong to host ids that the launcher is not, so only a process that maps them may remove them.

use std::{fs, io, path::Path};

use coracle_api::{Identity, RunError, Unshare};
use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use crate::{ids::Ids, sys::Step, user};

/// Removes a directory with all that a guest of this identity left in it: files of other ids, and directories that nobody
/// may enter. The work is done by a child that is root in a user namespace with the same ids.
///
/// Call it in a process with one thread.
///
/// # Errors
/// The step that failed: the ids could not be mapped again, or something could not be removed.
pub fn remove_all(path: &Path, identity: &Identity) -> Result<(), RunError> {
    let what = || format!("remove {}", path.display());
    // SAFETY: this process has one thread (the contract above), so the child may do anything.
    match unsafe { fork() }.step(what)? {
        ForkResult::Child => {
            let root = Identity { uid: 0, gid: 0, groups: Vec::new(), ..identity.clone() };
            let code = match user::enter(&root, Ids::of(&root), Unshare::default()).map(|()| fs::remove_dir_all(path)) {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => error.raw_os_error().unwrap_or(libc::EIO),
                Err(_) => libc::EPERM,
            };
            // SAFETY: _exit ends this forked child at once, running none of the launcher's exit handlers.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, code)) => return Err(io::Error::from_raw_os_error(code)).step(what),
                Ok(_) => return Err(io::Error::from(io::ErrorKind::Interrupted)).step(what),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).step(what),
            }
        },
    }
}
