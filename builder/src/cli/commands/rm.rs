//! `coracle rm`: containers go, with their trees.

use std::time::{Duration, Instant};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{each::each, foreign};
use crate::{
    cli::{args::RmArgs, source},
    launch::processes,
    source::open_store,
    store::{
        Store,
        containers::{Container, ContainerError, RunRecord, State},
    },
};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes containers, and prints what was removed.
pub(super) fn run(args: &RmArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    each(&args.containers, |given| Ok(remove(&store, &store.containers().resolve(given)?, args.force)?))
}

/// Removes a container; with `force`, kills what runs in it first.
pub(super) fn remove(store: &Store, container: &Container, force: bool) -> Result<(), ContainerError> {
    let since = Instant::now();
    let base = container.settings().ok().and_then(|settings| settings.base);
    loop {
        match store.containers().remove(container, force) {
            Err(ContainerError::Running { .. }) if force && since.elapsed() < PATIENCE => {
                let runs = container.runs()?;
                let alive: Vec<_> = runs.iter().filter(|run| run.is_alive()).collect();
                alive.iter().for_each(|run| kill_run(run));
                // What a killed launcher left behind has no record that is alive.
                if alive.is_empty() && matches!(container.state()?, State::Dead(_)) {
                    processes::kill_holders(container);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            done => {
                done.or_else(foreign::sweep)?;
                break;
            }
        }
    }
    // The last one that stood on the tree of an image that is gone.
    match base {
        Some(base) => store.collect_tree(&base).map(drop),
        None => Ok(()),
    }
}

/// Kills the process of a run and, where it leads a group of its own, that group.
fn kill_run(run: &RunRecord) {
    let pid = Pid::from_raw(run.pid);
    if nix::unistd::getpgid(Some(pid)) == Ok(pid) {
        let _: Result<(), Errno> = nix::sys::signal::killpg(pid, Signal::SIGKILL);
    }
    let _: Result<(), Errno> = kill(pid, Signal::SIGKILL);
}
