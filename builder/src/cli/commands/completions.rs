//! `coracle completions`.

use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, CompletionsArgs},
    print,
};

/// Prints a shell's completions.
pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "coracle", &mut out);
    print::bytes(&out)
}
