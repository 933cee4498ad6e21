//! What runs in a container: a lease that lasts as long as any of its processes, and a record of each run.
//!
//! Whoever starts a program takes the container's lease: a shared flock through a descriptor that survives exec and fork,
//! so it ends with the last process that inherited it, whatever ended them. `rm` needs the lease for itself. The records
//! (`runs/NAME.json`: process, its start time, the boot) tell `ps`, `stop` and `kill` whom to ask, and what became of it;
//! where a file system has no locks they are also the lease.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Container, Verdict, error::ContainerError};
use crate::store::{lock, make_directory, read, replace_fleeting};

/// Descriptors from here on are out of the way of shells and of programs that count theirs.
const HIGH: i32 = 700;

/// So many records are worth a look at whether they are still of use.
const MANY: usize = 40;
/// So many are kept then.
const FEW: usize = 10;

/// One program started in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The process that ends when the run does: the program's own, or the one that stays beside it.
    pub pid: i32,
    /// When that process started, in the kernel's ticks since boot (proc(5), field 22): the same number later is another.
    pub start: u64,
    /// The boot that `pid` and `start` belong to.
    pub boot: String,
    /// The node, for people.
    pub host: String,
    /// When the run began, in seconds since 1970.
    pub began: u64,
    /// What runs.
    pub command: Vec<String>,
    /// Started by `exec` in a container that runs something else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exec: bool,
    /// Nobody waits for it at a terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// It has a terminal of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Its engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What is known of its health, if it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Verdict>,
    /// Its exit status once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// When it ended, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}

impl RunRecord {
    /// A record of a process of this node that runs now.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: i32, command: Vec<String>) -> io::Result<Self> {
        let start = started(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self { pid, start, boot: boot_id(), host: node(), began: crate::store::now(), command, ..Self::default() })
    }

    /// Whether its process is there now, on this node.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status.is_none() && self.boot == boot_id() && started(self.pid) == Some(self.start)
    }
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It never ran.
    Created,
    /// It runs; the records of what is known to run on this node (none if another node of a shared store runs it).
    Running(Vec<RunRecord>),
    /// What stayed beside its last run was killed, and some of its processes are left on this node.
    Dead(RunRecord),
    /// It ran; the last run that was no `exec`.
    Exited(RunRecord),
}

/// A lease on a container: it is not removed while this, or a copy in another process, is open.
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Puts the descriptor out of the way of the guest's own, open across exec, so that the lease lasts until the last
    /// process that inherits it has ended. The number is the descriptor's.
    #[must_use]
    pub fn inherit(self) -> Self {
        for least in [HIGH, 100, 3] {
            // SAFETY: the descriptor is open; F_DUPFD touches no memory and gives a new descriptor or -1 (fcntl(2)).
            let new = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_DUPFD, least) };
            if new >= 0 {
                // SAFETY: just made, and owned by nobody else.
                return Self(unsafe { OwnedFd::from_raw_fd(new) });
            }
        }
        self
    }

    /// The descriptor's number.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Container {
    fn lease_path(&self) -> PathBuf {
        self.directory.join("lease")
    }

    /// Takes the lease, to run something.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`] if it is being removed.
    pub fn lease(&self) -> Result<Lease, ContainerError> {
        let path = self.lease_path();
        let failed = || ContainerError::file("lock", &path);
        if !self.directory.is_dir() {
            return Err(ContainerError::NoSuch { given: self.short_id().to_owned() });
        }
        let file = lock::open(&path).map_err(failed())?;
        // Another command may look whether it is held, which takes it for a moment.
        match lock::wait(Duration::from_secs(10), || lock::try_shared(&file)).map_err(failed())? {
            lock::Try::Busy => Err(ContainerError::Busy { container: self.short_id().to_owned() }),
            _ if !lock::is_at(&file, &path) => Err(ContainerError::NoSuch { given: self.short_id().to_owned() }),
            _ => Ok(Lease(file.into())),
        }
    }

    /// Takes the lease for itself alone; `None` while something runs.
    pub(super) fn lease_alone(&self) -> Result<Option<File>, ContainerError> {
        let path = self.lease_path();
        let failed = || ContainerError::file("lock", &path);
        let file = lock::open(&path).map_err(failed())?;
        match lock::try_exclusive(&file).map_err(failed())? {
            lock::Try::Busy => Ok(None),
            lock::Try::Locked => Ok(Some(file)),
            lock::Try::None => Ok((!self.runs()?.iter().any(RunRecord::is_alive)).then_some(file)),
        }
    }

    /// Whether something runs in it, on this node or (where locks reach that far) another.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn is_running(&self) -> Result<bool, ContainerError> {
        if !self.lease_path().exists() {
            return Ok(false);
        }
        match self.lease_alone() {
            Ok(lease) => Ok(lease.is_none()),
            // A store that cannot be written to.
            Err(_) => Ok(self.runs()?.iter().any(RunRecord::is_alive)),
        }
    }

    /// What it does.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn state(&self) -> Result<State, ContainerError> {
        let runs = self.runs()?;
        if self.is_running()? {
            let (alive, gone): (Vec<_>, Vec<_>) = runs.into_iter().partition(RunRecord::is_alive);
            let here = (boot_id(), node());
            let orphaned = |run: &RunRecord| run.status.is_none() && (&run.boot, &run.host) == (&here.0, &here.1);
            let elsewhere = gone.iter().any(|run| run.status.is_none() && !orphaned(run));
            return Ok(match gone.into_iter().rfind(orphaned) {
                Some(run) if alive.is_empty() && !elsewhere => State::Dead(run),
                _ => State::Running(alive),
            });
        }
        Ok(runs.into_iter().rfind(|run| !run.exec).map_or(State::Created, State::Exited))
    }

    pub(super) fn runs_directory(&self) -> PathBuf {
        self.directory.join("runs")
    }

    /// All runs that are on record, oldest first.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn runs(&self) -> Result<Vec<RunRecord>, ContainerError> {
        Ok(self.run_files()?.into_iter().map(|(_, run)| run).collect())
    }

    /// As [`runs`](Self::runs), each with its file.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn run_files(&self) -> Result<Vec<(PathBuf, RunRecord)>, ContainerError> {
        let directory = self.runs_directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ContainerError::file("read", directory)(error)),
        };
        let mut runs: Vec<(PathBuf, RunRecord)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let json = path.extension().is_some_and(|extension| extension == "json");
                let run = serde_json::from_slice(&read(&path).ok().filter(|_| json)?).ok()?;
                Some((path, run))
            })
            .collect();
        runs.sort_by(|(a_path, a), (b_path, b)| (a.began, a.start, a_path).cmp(&(b.began, b.start, b_path)));
        Ok(runs)
    }

    /// Forgets ended runs but for the last few, once there are many: a container may run ten thousand times.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn forget_old_runs(&self) -> Result<(), ContainerError> {
        if fs::read_dir(self.runs_directory()).map_or(0, Iterator::count) < MANY {
            return Ok(());
        }
        let files = self.run_files()?;
        let old = files.len().saturating_sub(FEW);
        for (path, _) in files.iter().take(old).filter(|(_, run)| !run.is_alive()) {
            // Another command may have been faster.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Puts a run on record, or changes its record.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn record_run(&self, run: &RunRecord) -> Result<PathBuf, ContainerError> {
        let directory = self.runs_directory();
        let path = directory.join(format!("{}-{}-{}.json", run.began, run.pid, run.start));
        let json = serde_json::to_vec_pretty(run).unwrap_or_default();
        make_directory(&directory)
            .and_then(|()| replace_fleeting(&path, &json, 0o600))
            .map_err(ContainerError::file("write", &path))?;
        Ok(path)
    }
}

/// When a process started, in ticks since boot; `None` if there is none, or nothing but its exit status is left of it.
#[must_use]
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows it starts with field 3, the state.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(22 - 4)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// This node's name.
fn node() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// The kernel's name for the time since it was booted.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_tell_the_living_from_the_dead() {
        let me = i32::try_from(std::process::id()).expect("a process id");
        let run = RunRecord::of(me, vec!["x".into()]).expect("this process runs");
        assert!(run.is_alive());
        assert!(!RunRecord { start: run.start - 1, ..run.clone() }.is_alive(), "the number was another's");
        assert!(!RunRecord { boot: "another".into(), ..run.clone() }.is_alive());
        assert!(!RunRecord { status: Some(0), ..run }.is_alive());
        assert!(RunRecord::of(4_194_305, Vec::new()).is_err());
    }
}
