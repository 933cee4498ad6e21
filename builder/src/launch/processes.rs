//! A run's processes: the program behind the launcher, and whoever else holds the container's lease.
//!
//! A record names the launcher (the stub), which stays beside the program. Below it there may be processes of an engine
//! (a tracer, a pid namespace's init), all of the stub's executable; the first that is not is the program.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::store::containers::{Container, RunRecord, started};

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id on this node.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// When it started, in ticks since boot.
    pub start: u64,
}

/// Every process there is.
fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows it starts with field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then_some(())?;
    Some(Process { pid, parent: fields.get(1)?.parse().ok()?, start: fields.get(22 - 3)?.parse().ok()? })
}

/// The file that a process executes; none if we may not know.
fn executable(pid: i32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/exe")).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The program of a run, if it has started: below the launcher, the oldest that is none of its own processes.
#[must_use]
pub fn program(launcher: i32) -> Option<i32> {
    let all = all();
    let own = executable(launcher);
    let mut parents = vec![launcher];
    let mut others: Vec<&Process> = Vec::new();
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|process| process.parent == parent) {
            if own.is_some() && executable(child.pid) == own { parents.push(child.pid) } else { others.push(child) }
        }
    }
    others.iter().min_by_key(|process| (process.start, process.pid)).map(|process| process.pid)
}

/// A run's processes, the launcher's own left out, parents before children.
#[must_use]
pub fn of_run(launcher: i32) -> Vec<i32> {
    let all = all();
    let own = executable(launcher);
    let (mut found, mut next) = (Vec::new(), vec![launcher]);
    while let Some(parent) = next.pop() {
        let mut children: Vec<i32> = all.iter().filter(|it| it.parent == parent).map(|it| it.pid).collect();
        children.sort_unstable();
        next.extend(children.iter().rev());
        found.extend(children.into_iter().filter(|pid| own.is_none() || executable(*pid) != own));
    }
    found
}

/// Sends a signal to a run's program, or to the launcher while there is none: it passes on what it may.
///
/// # Errors
/// What kill(2) said.
pub fn signal(run: &RunRecord, signal: i32) -> io::Result<()> {
    // Between the look and the signal the number may become another's only if the kernel has gone once through all.
    send(program(run.pid).unwrap_or(run.pid), signal)
}

fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until a run has ended; false if it has not by then.
#[must_use]
pub fn wait(run: &RunRecord, patience: Option<Duration>) -> bool {
    let since = Instant::now();
    let mut pause = Duration::from_millis(2);
    while started(run.pid) == Some(run.start) {
        if patience.is_some_and(|patience| since.elapsed() >= patience) {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    true
}

/// Ends a run at once: the program, so that the launcher tidies up and puts it on record; then the launcher.
///
/// # Errors
/// What kill(2) said.
pub fn kill(run: &RunRecord) -> io::Result<()> {
    let gone = |answer: io::Result<()>| match answer {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        answer => answer,
    };
    gone(signal(run, libc::SIGKILL))?;
    if !wait(run, Some(Duration::from_secs(5))) {
        gone(send(run.pid, libc::SIGKILL))?;
        let _ = wait(run, Some(Duration::from_secs(5)));
    }
    Ok(())
}

/// Ends whoever holds a container's lease without a launcher that is on record; how many they were.
pub fn kill_holders(container: &Container) -> usize {
    let lease = container.directory().join("lease");
    let Ok(lease) = fs::metadata(&lease) else { return 0 };
    let lease = (lease.dev(), lease.ino());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let holders = all().into_iter().filter(|process| process.pid != own && holds(process.pid, lease));
    holders.filter(|process| send(process.pid, libc::SIGKILL).is_ok()).count()
}

fn holds(pid: i32, file: (u64, u64)) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.map(|entry| entry.path()).any(|path| identity(&path) == Some(file))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Owner, parent and command line of a process, if it is there.
#[must_use]
pub fn describe(pid: i32) -> Option<(u32, i32, String)> {
    let process = read(pid)?;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Some((uid, process.parent, words.join(" ").trim_end().to_owned()))
}
