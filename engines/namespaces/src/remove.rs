//! Work among the files of a guest with subordinate ids: they belong to host ids that the launcher is not, so only a
//! process that maps them may read all of them, or remove them.

use std::{fs, io, path::Path};

use coracle_api::{Identity, RunError, Unshare};
use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use crate::{ids::Ids, sys::Step, user};

/// Removes a directory with all that a guest of this identity left in it: files of other ids, and directories that nobody
/// may enter.
///
/// Call it in a process with one thread.
///
/// # Errors
/// The step that failed: the ids could not be mapped again, or something could not be removed.
pub fn remove_all(path: &Path, identity: &Identity) -> Result<(), RunError> {
    let what = || format!("remove {}", path.display());
    let work = || match fs::remove_dir_all(path) {
        Ok(()) => 0,
        // Error numbers that files give are below 134.
        Err(error) => error.raw_os_error().and_then(|errno| u8::try_from(errno).ok()).unwrap_or(5),
    };
    match as_root_of(identity, work)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.into())).step(what),
    }
}

/// Does something as root of a user namespace with the ids of this identity, in a child, and returns what it returned.
///
/// Call it in a process with one thread.
///
/// # Errors
/// The ids could not be mapped, or the child was killed.
pub fn as_root_of(identity: &Identity, work: impl FnOnce() -> u8) -> Result<u8, RunError> {
    let what = || "work as root of a user namespace".to_owned();
    // Written by the child once it is root there.
    let (told, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).step(what)?;
    // SAFETY: this process has one thread (the contract above), so the child may do anything.
    match unsafe { fork() }.step(what)? {
        ForkResult::Child => {
            drop(told);
            let root = Identity { uid: 0, gid: 0, groups: Vec::new(), ..identity.clone() };
            let code = match user::enter(&root, Ids::of(&root), Unshare::default()) {
                Ok(()) => {
                    let _ = nix::unistd::write(&tell, b"r");
                    work()
                }
                Err(_) => 0,
            };
            // SAFETY: _exit ends this forked child at once, running none of the launcher's exit handlers.
            unsafe { libc::_exit(code.into()) }
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let entered = matches!(nix::unistd::read(&told, &mut [0]), Ok(1));
            loop {
                match waitpid(child, None) {
                    Ok(WaitStatus::Exited(_, _)) if !entered => return Err(io::Error::from(Errno::EPERM)).step(what),
                    Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
                    Ok(_) => return Err(io::Error::from(io::ErrorKind::Interrupted)).step(what),
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error).step(what),
                }
            }
        }
    }
}
