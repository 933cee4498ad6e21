//! The commands, one file each.

mod build;
mod completions;
mod image;
mod inspect;
mod login;
mod logout;
mod man;
mod pull;
mod verify;
mod version;

use super::{
    args::{Cli, Command},
    plan::BuildPlan,
};

/// Carries out a command; gives the exit status.
pub(super) fn run(cli: Cli) -> anyhow::Result<u8> {
    let quiet = cli.quiet;
    match cli.command {
        Command::Build(args) => build::run(BuildPlan::resolve(*args), quiet),
        Command::Pull(args) => pull::run(args, quiet),
        Command::Inspect(args) => inspect::run(&args, quiet),
        Command::Verify(args) => verify::run(&args, quiet),
        Command::Login(args) => login::run(args, quiet),
        Command::Logout(args) => logout::run(args, quiet),
        Command::Version => version::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
    .map(|()| 0)
}
