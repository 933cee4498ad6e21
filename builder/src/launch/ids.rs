//! This program again, as the root of a user namespace with the caller's subordinate ids.
//!
//! Under `namespaces`, where the caller has subordinate ids (subuid(5)), a container's root gives files to other users for
//! real: on disk they belong to ids which the caller owns and is not. He can neither read what they closed nor remove what
//! is in their directories, but he may become root of a namespace that maps them: there he can, and sees the owners that
//! the guest sees. The stub marks containers that have run so ([`marked`]).

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _, Write as _},
    num::NonZero,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use coracle_api::SUBORDINATE;

use nix::sched::{CloneFlags, unshare};

use super::LaunchError;
use crate::store::containers::Container;

/// The ids to map: the caller's own is root, the others follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subordinate {
    uids: (u32, u32),
    gids: (u32, u32),
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

/// Whether files of a container may belong to subordinate ids of an ordinary caller's.
#[must_use]
pub fn marked(container: &Path) -> bool {
    !nix::unistd::geteuid().is_root() && container.join(SUBORDINATE).exists()
}

/// Whether this process is root of a namespace, and not of the node.
#[must_use]
pub fn inside() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_whitespace();
    nix::unistd::geteuid().is_root() && numbers.nth(1).is_some_and(|own| own != "0")
}

impl Subordinate {
    /// The caller's, if he has any and the programs that map them are installed.
    #[must_use]
    pub fn of_caller() -> Option<Self> {
        let uid = nix::unistd::getuid().as_raw();
        if uid == 0 {
            return None;
        }
        let helper = |name: &str| {
            ["/usr/bin", "/bin", "/usr/local/bin"]
                .iter()
                .map(|dir| Path::new(dir).join(name))
                .find(|path| path.exists())
        };
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0])
        });
        let range = |path: &str| largest(&fs::read_to_string(path).ok()?, name, uid);
        Some(Self {
            uids: range("/etc/subuid")?,
            gids: range("/etc/subgid")?,
            newuidmap: helper("newuidmap")?,
            newgidmap: helper("newgidmap")?,
        })
    }

    /// Maps them for the process, which waits in its new namespace.
    fn map(&self, pid: i32) -> io::Result<()> {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        for (program, own, (first, count)) in [(&self.newgidmap, gid, self.gids), (&self.newuidmap, uid, self.uids)] {
            let numbers = [0, own, 1, 1, first, count].map(|number| number.to_string());
            let output = Command::new(program).arg(pid.to_string()).args(numbers).stdin(Stdio::null()).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{}: {said}", program.display())));
            }
        }
        Ok(())
    }

    /// Runs a program there, to its end, with one more variable.
    ///
    /// # Errors
    /// The namespace cannot be made, or the program not executed.
    pub fn run(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = OsString>,
        variable: Option<(&OsStr, &OsStr)>,
    ) -> io::Result<ExitStatus> {
        let mut command = Command::new(program);
        command.args(args).envs(variable);
        self.start(command)?.wait()
    }

    /// Starts a command there.
    fn start(&self, mut command: Command) -> io::Result<Child> {
        let ((mut ready, tell_ready), (mapped, mut tell_mapped)) = (io::pipe()?, io::pipe()?);
        let (ours, theirs) = (tell_ready.as_raw_fd(), mapped.as_raw_fd());
        let other_ends = [ready.as_raw_fd(), tell_mapped.as_raw_fd()];
        // SAFETY: between fork and exec these are plain system calls on integers and on bytes of this closure's own.
        unsafe {
            command.pre_exec(move || {
                // With them open, it would wait for ever for the word of a parent that was killed.
                other_ends.iter().for_each(|end| {
                    libc::close(*end);
                });
                unshare(CloneFlags::CLONE_NEWUSER)?;
                let id = libc::getpid().to_ne_bytes();
                let mut answer = [0_u8; 1];
                if libc::write(ours, id.as_ptr().cast(), id.len()) != 4
                    || libc::read(theirs, answer.as_mut_ptr().cast(), 1) != 1
                    || answer != [1]
                {
                    return Err(io::Error::from_raw_os_error(libc::EPERM));
                }
                // The groups of before are none of the namespace's; where they must be kept they do no harm.
                libc::setgroups(0, std::ptr::null());
                if libc::setresgid(0, 0, 0) != 0 || libc::setresuid(0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // Last: a change of ids takes it back. Whoever is killed with this command takes it along.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                Ok(())
            });
        }
        let ids = self.clone();
        // `spawn` returns only when the child has executed the program, for which it waits until its ids are mapped.
        let mapper = thread::spawn(move || -> io::Result<()> {
            let mut id = [0; 4];
            ready.read_exact(&mut id)?;
            let mapped = ids.map(i32::from_ne_bytes(id));
            // The child has the other end of its own, so it would wait for a word that never comes.
            tell_mapped.write_all(&[u8::from(mapped.is_ok())])?;
            mapped
        });
        let spawned = command.spawn();
        // Now only the mapper could still hold an end, and it sees that nobody will write.
        drop((tell_ready, mapped));
        let done = mapper.join().unwrap_or_else(|_| Err(io::Error::other("it broke off")));
        match (spawned, done) {
            (Ok(child), _) => Ok(child),
            (Err(_), Err(why)) if why.kind() != io::ErrorKind::UnexpectedEof => Err(why),
            (Err(error), _) => Err(error),
        }
    }
}

/// Gives a container a tree of its own; as the root of subordinate ids, if files of it are theirs. With `keep` they
/// stay theirs, where not they become the caller's, and what they were is on the list of owners.
///
/// # Errors
/// [`LaunchError::Own`], or what that other process said.
pub fn own(container: &Container, lease: Option<BorrowedFd<'_>>, keep: bool) -> Result<(), LaunchError> {
    let Some(ids) = marked(container.directory()).then(Subordinate::of_caller).flatten() else {
        let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        container.own(lease, keep, threads)?;
        return Ok(());
    };
    let step = || LaunchError::step("make a tree of the container's own, as the root of your subordinate ids");
    let program = std::env::current_exe().map_err(step())?;
    let mut args: Vec<OsString> = vec!["own".into(), container.id().into()];
    args.extend(lease.map(|lease| lease.as_raw_fd().to_string().into()));
    args.extend(keep.then(|| "--keep".into()));
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = ids.start(command).and_then(Child::wait_with_output).map_err(step())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it was killed");
    Err(step()(io::Error::other(last.strip_prefix("coracle: ").unwrap_or(last).to_owned())))
}

/// The largest range of a subuid(5) file that is this user's, by name or by number.
fn largest(file: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let number = uid.to_string();
    let ranges = file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == name || owner == number).then_some(range)
    });
    ranges.max_by_key(|(_, count): &(u32, u32)| *count)
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn the_largest_range_is_taken() {
        let file = "a:100000:65536\nb:1:5\n1000:200000:70000\n";
        assert_eq!(largest(file, Some("a"), 1), Some((100_000, 65536)));
        assert_eq!(largest(file, Some("a"), 1000), Some((200_000, 70000)));
        assert_eq!(largest(file, None, 1), None);
    }
}
