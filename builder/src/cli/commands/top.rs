//! `coracle top`: the processes of a container's runs.

use anyhow::bail;

use super::stop::running;
use crate::{
    cli::{args::TopArgs, print, source},
    launch::processes,
    source::open_store,
};

/// Lists them: id, parent, owner, command, as the node knows them.
pub(super) fn run(args: &TopArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    let runs = running(&container)?;
    if runs.is_empty() {
        bail!("container {} is not running", args.container);
    }
    print::line(&format!("{:<9} {:<9} {:<9} CMD", "UID", "PID", "PPID"))?;
    for pid in runs.iter().flat_map(|run| processes::of_run(run.pid)) {
        // Gone meanwhile.
        let Some((uid, parent, command)) = processes::describe(pid) else { continue };
        print::line(&format!("{uid:<9} {pid:<9} {parent:<9} {}", print::visible(&command)))?;
    }
    Ok(())
}
