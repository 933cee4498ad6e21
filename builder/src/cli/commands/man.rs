//! `coracle man`.

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, ManArgs},
    print,
};

/// Prints the manual page, or writes all pages to a directory.
pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    if let Some(directory) = &args.directory {
        return std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
            .with_context(|| format!("cannot write manual pages to {}", directory.display()));
    }
    let mut out = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut out)?;
    print::bytes(&out)
}
