//! `coracle pull`.

use anyhow::bail;

use crate::cli::args::PullArgs;

/// Fetches an image into the store.
pub(super) fn run(_args: PullArgs, _quiet: bool) -> anyhow::Result<()> {
    bail!("pull: not in this version");
}
