//! `coracle inspect`.

use anyhow::bail;

use crate::cli::args::InspectArgs;

/// Shows what a bundle or an image is.
pub(super) fn run(_args: &InspectArgs, _quiet: bool) -> anyhow::Result<()> {
    bail!("inspect: not in this version");
}
