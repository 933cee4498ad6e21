//! The project's own chores, as `cargo xtask CHORE`.

mod bench;
mod cargo;
mod demo;
mod dist;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build Coracle, bundle `examples/hello`, and run the file under every engine that this node allows.
    Demo,
    /// Run the tests, after installing what they need (on Debian as root) or naming what is missing.
    Test(test::Options),
    /// Measure against peers, in interleaved rounds, and print ratios.
    Bench(bench::Options),
    /// Check formatting, lints and house rules.
    Tidy,
    /// Build the static release binary into `target/dist`, with its checksum.
    Dist,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Demo => demo::run(),
        Chore::Test(options) => test::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Tidy => tidy::run(),
        Chore::Dist => dist::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
