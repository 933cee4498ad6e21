//! `coracle version`.

use coracle_format::FORMAT_VERSION;

use crate::{artifacts, cli::print};

/// Prints the versions that matter to a bug report.
pub(super) fn run() -> anyhow::Result<()> {
    print::line(&format!(
        "coracle {}\nbundle format {FORMAT_VERSION}\nstub for {}, {} bytes",
        env!("CARGO_PKG_VERSION"),
        artifacts::STUB_TARGET,
        artifacts::STUB.len()
    ))
}
