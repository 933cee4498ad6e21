//! `coracle stop`, `coracle kill`, `coracle wait`: what becomes of a container's runs.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::{each::each, launching, ps::KILLED};
use crate::{
    cli::{
        args::{KillArgs, StopArgs, WaitArgs},
        print, source,
    },
    launch::{processes, signal},
    source::open_store,
    store::{
        Store,
        containers::{Container, RunRecord, Settings, State},
    },
};

/// How long `stop` waits unless told otherwise (Docker's).
const PATIENCE: u64 = 10;

/// Asks programs to end, and kills those that do not.
pub(super) fn stop(args: &StopArgs, quiet: bool) -> anyhow::Result<u8> {
    let asked = asked(args)?;
    let store = open_store(&source::bare(quiet)?)?;
    each(&args.containers, |name| one(&store, name, asked, args.time))
}

/// The signal that was asked for.
pub(super) fn asked(args: &StopArgs) -> anyhow::Result<Option<i32>> {
    args.signal.as_deref().map(signal::parse).transpose().map_err(|why| anyhow!("--signal {why}"))
}

/// Asks the programs of one container to end, and kills those that do not in so many seconds.
pub(super) fn one(store: &Store, name: &str, asked: Option<i32>, time: Option<i64>) -> anyhow::Result<()> {
    let container = store.containers().resolve(name)?;
    let settings = container.settings()?;
    let options = launching::kept(&settings)?;
    let signal = asked.or(options.stop_signal).or_else(|| image_signal(&settings)).unwrap_or(libc::SIGTERM);
    let patience = match time {
        Some(seconds) => u64::try_from(seconds).ok(),
        None => Some(options.stop_timeout.unwrap_or(PATIENCE)),
    };
    for run in running(&container)? {
        // What has ended meanwhile needs no signal.
        let _ = processes::signal(&run, signal);
        if !processes::wait(&run, patience.map(Duration::from_secs)) {
            processes::kill(&run).with_context(|| format!("cannot kill container {name}"))?;
        }
    }
    nothing_left(&container, name)
}

/// Sends a signal to programs.
pub(super) fn kill(args: &KillArgs, quiet: bool) -> anyhow::Result<u8> {
    let signal = signal::parse(&args.signal).map_err(|why| anyhow!("--signal {why}"))?;
    let store = open_store(&source::bare(quiet)?)?;
    each(&args.containers, |name| {
        let container = store.containers().resolve(name)?;
        let runs = running(&container)?;
        if runs.is_empty() && !container.is_running()? {
            bail!("container {name} is not running");
        }
        for run in &runs {
            if signal == libc::SIGKILL {
                processes::kill(run).with_context(|| format!("cannot kill container {name}"))?;
            } else {
                processes::signal(run, signal).with_context(|| format!("cannot signal container {name}"))?;
            }
        }
        if signal == libc::SIGKILL { nothing_left(&container, name) } else { Ok(()) }
    })
}

/// Waits until containers have ended, and prints their exit statuses.
pub(super) fn wait(args: &WaitArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    let mut failed = 0;
    for name in &args.containers {
        let container = store.containers().resolve(name)?;
        let ended = loop {
            let runs = running(&container)?;
            if runs.is_empty() {
                settle(&container);
                match container.state()? {
                    // Another run has begun meanwhile.
                    State::Running(runs) if !runs.is_empty() => continue,
                    state => break state,
                }
            }
            for run in &runs {
                let _ = processes::wait(run, None);
            }
            settle(&container);
        };
        match ended {
            State::Exited(run) | State::Dead(run) => print::line(&run.status.unwrap_or(KILLED).to_string())?,
            State::Created => print::line("0")?,
            State::Running(_) => {
                eprintln!("coracle: container {name} runs on another node: wait for it there");
                failed = 1;
            }
        }
    }
    Ok(failed)
}

/// The runs that no `exec` started, first; then those.
pub(super) fn running(container: &Container) -> anyhow::Result<Vec<RunRecord>> {
    let State::Running(mut runs) = container.state()? else { return Ok(Vec::new()) };
    runs.sort_by_key(|run| run.exec);
    Ok(runs)
}

fn image_signal(settings: &Settings) -> Option<i32> {
    settings.config.stop_signal.as_deref().and_then(|name| signal::parse(name).ok())
}

/// A launcher in the background ends a moment before its monitor, which writes the record and lets go of the lease.
fn settle(container: &Container) {
    for _ in 0..200 {
        if !container.is_running().unwrap_or(false) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sees that all has ended: what a killed launcher left behind is ended too.
fn nothing_left(container: &Container, name: &str) -> anyhow::Result<()> {
    settle(container);
    if container.is_running()? && running(container)?.is_empty() {
        processes::kill_holders(container);
        settle(container);
    }
    if container.is_running()? {
        bail!("container {name} still runs: another run was started meanwhile, or it runs on another node");
    }
    Ok(())
}
