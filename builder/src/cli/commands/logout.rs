//! `coracle logout`.

use anyhow::bail;

use crate::cli::args::LogoutArgs;

/// Forgets a registry's credentials.
pub(super) fn run(_args: LogoutArgs, _quiet: bool) -> anyhow::Result<()> {
    bail!("logout: not in this version");
}
