//! `coracle monitor`: the process beside a run in the background; see [`crate::launch::monitor`].

use super::launching::coracle;
use crate::{cli::args::MonitorArgs, launch::monitor};

/// Watches until the run has ended.
pub(super) fn run(args: &MonitorArgs) -> anyhow::Result<()> {
    Ok(monitor::run(args.descriptor, &coracle()?)?)
}
