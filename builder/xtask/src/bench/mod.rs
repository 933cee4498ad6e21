//! `cargo xtask bench WHAT…`: measurements against peers.
//!
//! Machines are noisy, so nothing is compared across runs: the peers of one table take turns, round by round, and the
//! figures are medians with their quartiles and the ratio to the peer that the goal names. Run as root, everything
//! measured runs as the tests' ordinary user.

mod batch;
mod calls;
mod gromacs;
mod mpi;
mod pack;
mod pairs;
mod peers;
mod start;
mod stats;
mod store;
mod tree;
mod unpack;
mod view;

use std::env;

use clap::{Args, ValueEnum};

use crate::{cargo::release, setup};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(required = true)]
    what: Vec<What>,
    /// Rounds of what is short; what is long takes a third of them.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Warm start against bubblewrap.
    Start,
    /// Packing a tree against mksquashfs and tar.
    Pack,
    /// Unpacking a tree against tar and unsquashfs.
    Unpack,
    /// Making a view with edited programs, against unpacking, in processor time.
    View,
    /// Making containers and running programs in new ones, against udocker, podman and crun.
    Store,
    /// Messages between two ranks of an MPI program, against the same program without a bundle.
    Mpi,
    /// Single system calls, native and under every engine and peer.
    Syscalls,
    /// Tasks of an array under Slurm, and 64 starts at once, native and under bubblewrap.
    Batch,
    /// A C build in pairs with native ones, at least 20 rounds.
    Compile,
    /// Molecular dynamics in pairs with native runs, at least 20 rounds.
    Gromacs,
}

/// Builds the release binary, unless `CORACLE_BIN` names another, and runs the benchmarks asked for.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::prepare(true);
    // Whoever names a binary measures that one.
    if env::var_os("CORACLE_BIN").is_none() {
        let built = release()?;
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { env::set_var("CORACLE_BIN", built) };
    }
    for what in &options.what {
        match what {
            What::Start => start::run(options.rounds)?,
            What::Pack => pack::run(options.rounds / 3)?,
            What::Unpack => unpack::run(options.rounds / 3)?,
            What::View => view::run(options.rounds / 3)?,
            What::Store => store::run(options.rounds / 3)?,
            What::Mpi => mpi::run(options.rounds)?,
            What::Syscalls => calls::syscalls(options.rounds)?,
            What::Batch => batch::run(options.rounds / 3)?,
            What::Compile => calls::compile(options.rounds)?,
            What::Gromacs => gromacs::gromacs(options.rounds)?,
        }
    }
    Ok(())
}
