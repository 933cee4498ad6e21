//! The user namespace: who the guest is.
//!
//! One id, the launcher's own, it may map itself. More are mapped from outside the new namespace: subordinate ranges by the
//! set-user-id helpers newuidmap(1) and newgidmap(1), and all ids by root. A child made before unshare(2) does that while
//! this process, which keeps its pid, waits.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use coracle_api::{Identity, RunError, Unshare};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, dup2_stderr, fork, getpid, pipe2, read, write},
};

use crate::{
    ids::{Extent, Ids},
    sys::{Step, write_proc},
};

/// Enters a new user and mount namespace, and the others asked for, as `identity`.
pub(crate) fn enter(identity: &Identity, ids: Ids<'_>, wanted: Unshare) -> Result<(), RunError> {
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWPID, wanted.pid);
    flags.set(CloneFlags::CLONE_NEWIPC, wanted.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, wanted.uts);
    flags.set(CloneFlags::CLONE_NEWNET, wanted.net);
    let Some(maps) = ids.maps(identity).step(|| "read the ids of this user namespace")? else {
        unshare_all(flags)?;
        return map_one(identity);
    };
    let mapper = Mapper::start(ids, maps)?;
    unshare_all(flags)?;
    mapper.map()?;
    become_guest(identity)
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
pub(crate) fn become_guest(identity: &Identity) -> Result<(), RunError> {
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

/// The child that maps, and the pipe that tells it when.
struct Mapper {
    child: Pid,
    go: OwnedFd,
    /// What it, or a helper, says on standard error.
    said: OwnedFd,
    /// Who maps users and groups, for an error.
    names: [String; 2],
}

impl Mapper {
    fn start(ids: Ids<'_>, [uids, gids]: [Vec<Extent>; 2]) -> Result<Self, RunError> {
        let tasks = match ids {
            Ids::Ranges(ranges) => [Task::helper(&ranges.newuidmap, &uids)?, Task::helper(&ranges.newgidmap, &gids)?],
            Ids::One | Ids::All => [Task::file("uid_map", &uids), Task::file("gid_map", &gids)],
        };
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
        let (said, to_said) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
        // SAFETY: this process has one thread (the contract of `Engine::run`), so the child may do anything.
        match unsafe { fork() }.step(|| "fork the helper that maps ids")? {
            ForkResult::Parent { child } => Ok(Self { child, go, said, names: tasks.map(|task| task.name()) }),
            ForkResult::Child => {
                drop(go);
                let told = read(&wait, &mut [0]) == Ok(1) && dup2_stderr(&to_said).is_ok();
                // Two programs that do not wait for each other: side by side.
                let code = match told.then(|| tasks.each_ref().map(Task::start).map(Started::succeeds)) {
                    Some([false, _]) => 1,
                    Some([true, false]) => 2,
                    Some([true, true]) => 0,
                    None => 0, // nothing was told: the parent has failed before, and says so itself
                };
                // SAFETY: _exit ends this forked child at once, running none of the launcher's exit handlers.
                unsafe { libc::_exit(code) }
            }
        }
    }

    fn map(self) -> Result<(), RunError> {
        write(&self.go, b"x").step(|| "wake the helper that maps ids")?;
        let status = loop {
            match waitpid(self.child, None) {
                Err(Errno::EINTR) => {}
                answer => break answer.step(|| "wait for the helper that maps ids")?,
            }
        };
        let failed = match status {
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Exited(_, 2) => &self.names[1],
            _ => &self.names[0],
        };
        let mut said = String::new();
        // Whatever of it can be read; both helpers have ended.
        let _ = File::from(self.said).read_to_string(&mut said);
        let said = said.lines().next().map(str::trim).filter(|line| !line.is_empty()).unwrap_or("it failed");
        Err(RunError::Step {
            what: format!("map ids with {failed}"),
            source: io::Error::other(said.to_owned()),
            advice: Some(
                "check this user's ranges in /etc/subuid and /etc/subgid, and that the helper is set-user-id root"
                    .to_owned(),
            ),
        })
    }
}

/// What maps users, or groups; made before fork, so that the child only does it.
enum Task {
    /// A set-user-id helper's command line.
    Helper(Vec<CString>),
    /// A file and what to write to it.
    File(String, String),
}

impl Task {
    fn helper(program: &Path, map: &[Extent]) -> Result<Self, RunError> {
        let mut argv = vec![CString::new(program.as_os_str().as_bytes()).map_err(io::Error::from)];
        argv.push(CString::new(getpid().to_string()).map_err(io::Error::from));
        for (guest, host, count) in map {
            argv.extend([guest, host, count].map(|id| CString::new(id.to_string()).map_err(io::Error::from)));
        }
        let argv = argv.into_iter().collect::<io::Result<_>>().step(|| format!("run {}", program.display()))?;
        Ok(Self::Helper(argv))
    }

    fn file(name: &str, map: &[Extent]) -> Self {
        let rows: Vec<String> = map.iter().map(|(guest, host, count)| format!("{guest} {host} {count}\n")).collect();
        Self::File(format!("/proc/{}/{name}", getpid()), rows.concat())
    }

    fn name(&self) -> String {
        match self {
            Self::Helper(argv) => argv[0].to_string_lossy().into_owned(),
            Self::File(path, _) => path.clone(),
        }
    }

    fn start(&self) -> Started {
        let argv = match self {
            Self::Helper(argv) => argv,
            Self::File(path, rows) => {
                let written = write_proc(path, rows);
                if let Err(error) = &written {
                    let _ = write(io::stderr(), error.to_string().as_bytes());
                }
                return Started::Done(written.is_ok());
            }
        };
        // SAFETY: called in the mapper's child only, which has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let argv: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
                // SAFETY: every pointer is a NUL-terminated string owned by `self`, the array ends with null, and the
                // empty environment is an array of one null pointer; _exit ends the child if execve returned.
                unsafe {
                    libc::execve(argv[0], argv.as_ptr(), [std::ptr::null()].as_ptr());
                    libc::_exit(127)
                }
            }
            Ok(ForkResult::Parent { child }) => Started::Runs(child),
            Err(_) => Started::Done(false),
        }
    }
}

/// A task under way, or over.
enum Started {
    Runs(Pid),
    Done(bool),
}

impl Started {
    fn succeeds(self) -> bool {
        match self {
            Self::Runs(child) => matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))),
            Self::Done(well) => well,
        }
    }
}
