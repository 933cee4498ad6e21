//! The user namespace: who the guest is.
//!
//! Without subordinate ids the launcher maps one id, its own, to the one asked for. With them the set-user-id helpers
//! newuidmap(1) and newgidmap(1) map ranges too; they must run outside the new namespace and act on our pid, so a child
//! made before unshare(2) runs them while this process, which keeps its pid, waits.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use coracle_api::{Identity, RunError, SubordinateIds, Unshare};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, dup2_stderr, fork, getpid, pipe2, read, write},
};

use crate::sys::{Step, write_proc};

/// Enters a new user and mount namespace, and the others asked for, as `identity`.
pub(crate) fn enter(identity: &Identity, wanted: Unshare) -> Result<(), RunError> {
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWPID, wanted.pid);
    flags.set(CloneFlags::CLONE_NEWIPC, wanted.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, wanted.uts);
    flags.set(CloneFlags::CLONE_NEWNET, wanted.net);
    match &identity.subordinate {
        Some(ranges) => {
            let mapper = Mapper::start(identity, ranges)?;
            unshare_all(flags)?;
            mapper.map()?;
            become_guest(identity)
        }
        None => {
            unshare_all(flags)?;
            map_one(identity)
        }
    }
}

fn unshare_all(flags: CloneFlags) -> Result<(), RunError> {
    unshare(flags).step(|| "enter new namespaces (unshare)")
}

/// Maps the launcher's own ids and nothing else. The kernel allows it once setgroups(2) is denied (Linux 3.19; older
/// kernels have no such file and allow it at once).
fn map_one(identity: &Identity) -> Result<(), RunError> {
    match write_proc("/proc/self/setgroups", "deny") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        answer => answer.step(|| "give up setgroups in the user namespace (/proc/self/setgroups)")?,
    }
    write_proc("/proc/self/gid_map", &format!("{} {} 1", identity.gid, identity.host_gid))
        .step(|| "map the group id (/proc/self/gid_map)")?;
    write_proc("/proc/self/uid_map", &format!("{} {} 1", identity.uid, identity.host_uid))
        .step(|| "map the user id (/proc/self/uid_map)")
}

/// With ranges mapped the ids are right already (ours is mapped to the guest's); the groups are set if any were asked for.
fn become_guest(identity: &Identity) -> Result<(), RunError> {
    if identity.groups.is_empty() || identity.uid == identity.host_uid {
        return Ok(()); // yourself: the host's groups stay, and with them access to what they may read
    }
    let groups: Vec<libc::gid_t> = identity.groups.clone();
    // SAFETY: the pointer and length describe `groups`, which outlives the call; the kernel only reads it.
    let done = unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A group outside the ranges: the guest sees what the kernel shows.
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        error => Err(RunError::step("set the guest's groups", error)),
    }
}

/// One line of a map: guest id, host id, how many.
type Extent = (u32, u32, u32);

/// The guest's `asked` id is the launcher's `own`; every other guest id comes from the range, in order.
pub(crate) fn extents(asked: u32, own: u32, (first, count): (u32, u32)) -> Vec<Extent> {
    let below = asked.min(count);
    let mut map = Vec::with_capacity(3);
    if below > 0 {
        map.push((0, first, below));
    }
    map.push((asked, own, 1));
    if count > below {
        map.push((asked + 1, first + below, count - below));
    }
    map
}

/// The child that runs the helpers, and the pipe that tells it when.
struct Mapper {
    child: Pid,
    go: OwnedFd,
    /// What the helpers say on standard error.
    said: OwnedFd,
    ranges: SubordinateIds,
}

impl Mapper {
    fn start(identity: &Identity, ranges: &SubordinateIds) -> Result<Self, RunError> {
        let uids = Command::new(&ranges.newuidmap, &extents(identity.uid, identity.host_uid, ranges.uids))?;
        let gids = Command::new(&ranges.newgidmap, &extents(identity.gid, identity.host_gid, ranges.gids))?;
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
        let (said, to_said) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
        // SAFETY: this process has one thread (the contract of `Engine::run`), so the child may do anything.
        match unsafe { fork() }.step(|| "fork the helper that maps subordinate ids")? {
            ForkResult::Parent { child } => Ok(Self { child, go, said, ranges: ranges.clone() }),
            ForkResult::Child => {
                drop(go);
                let told = read(&wait, &mut [0]) == Ok(1) && dup2_stderr(&to_said).is_ok();
                let code = match told {
                    true if !uids.succeeds() => 1,
                    true if !gids.succeeds() => 2,
                    _ => 0, // if nothing was told the parent has failed before, and says so itself
                };
                // SAFETY: _exit ends this forked child at once, running none of the launcher's exit handlers.
                unsafe { libc::_exit(code) }
            }
        }
    }

    fn map(self) -> Result<(), RunError> {
        write(&self.go, b"x").step(|| "wake the helper that maps subordinate ids")?;
        let status = loop {
            match waitpid(self.child, None) {
                Err(Errno::EINTR) => {}
                answer => break answer.step(|| "wait for the helper that maps subordinate ids")?,
            }
        };
        let failed = match status {
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Exited(_, 2) => &self.ranges.newgidmap,
            _ => &self.ranges.newuidmap,
        };
        let mut said = String::new();
        // Whatever of it can be read; both helpers have ended.
        let _ = File::from(self.said).read_to_string(&mut said);
        let said = said.lines().next().map(str::trim).filter(|line| !line.is_empty()).unwrap_or("it failed");
        Err(RunError::Step {
            what: format!("map subordinate ids with {}", failed.display()),
            source: io::Error::other(said.to_owned()),
            advice: Some(
                "check this user's ranges in /etc/subuid and /etc/subgid, and that the helper is set-user-id root"
                    .to_owned(),
            ),
        })
    }
}

/// A command line made before fork, so that the child only executes it.
struct Command {
    argv: Vec<CString>,
}

impl Command {
    fn new(program: &Path, map: &[Extent]) -> Result<Self, RunError> {
        let mut argv = vec![CString::new(program.as_os_str().as_bytes()).map_err(io::Error::from)];
        argv.push(CString::new(getpid().to_string()).map_err(io::Error::from));
        for (guest, host, count) in map {
            argv.extend([guest, host, count].map(|id| CString::new(id.to_string()).map_err(io::Error::from)));
        }
        let argv = argv.into_iter().collect::<io::Result<_>>().step(|| format!("run {}", program.display()))?;
        Ok(Self { argv })
    }

    fn succeeds(&self) -> bool {
        // SAFETY: called in the mapper's child only, which has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let argv: Vec<_> = self.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
                // SAFETY: every pointer is a NUL-terminated string owned by `self`, the array ends with null, and the
                // empty environment is an array of one null pointer; _exit ends the child if execve returned.
                unsafe {
                    libc::execve(argv[0], argv.as_ptr(), [std::ptr::null()].as_ptr());
                    libc::_exit(127)
                }
            }
            Ok(ForkResult::Parent { child }) => matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::extents;

    #[test]
    fn own_id_takes_the_asked_place() {
        assert_eq!(extents(0, 1000, (100_000, 65536)), [(0, 1000, 1), (1, 100_000, 65536)]);
        assert_eq!(extents(33, 1000, (100_000, 100)), [(0, 100_000, 33), (33, 1000, 1), (34, 100_033, 67)]);
        assert_eq!(extents(1000, 1000, (100_000, 100)), [(0, 100_000, 100), (1000, 1000, 1)]);
    }
}
