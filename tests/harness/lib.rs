//! The harness: what every case needs to drive the built binaries as an ordinary user would.
//!
//! - [`Sandbox`]: a directory of its own for one test, with home, cache, scratch and store in it, and a clean environment.
//! - [`user`]: as root, every command is run as an ordinary account; otherwise as yourself.
//! - [`images`]: published root file systems, where the folder with them is there.
//! - [`engine`], [`enter`]: an engine alone, for its own crate's tests and for looking at it.
//! - [`bundles`]: bundles made once per process and shared by the cases.
//! - [`mpi`]: images with an MPI library, from the host's files.
//! - [`oci`], [`hello`]: images made by hand; [`ways`]: files for a probe to change.
//! - [`Registry`]: a real registry on loopback; [`Fake`]: a server that misbehaves on purpose.
//! - [`Guest`]: a guest kernel in qemu, for file systems that this one lacks.
//! - [`Slurm`]: a controller and two nodes; [`Condor`]: a pool of HTCondor.
//! - [`usage`]: what a command costs in processor time.
//! - [`skip`]: a test that lacks something says so by name; `cargo xtask test` lists all of them at its end.
//!
//! Rules: servers and background processes are owned by guards that end them by pid, also when a test fails. Nothing
//! leaves loopback. Panics are assertions here.

pub mod bundles;
mod condor;
pub mod engine;
mod enter;
mod fake;
mod guest;
pub mod hello;
pub mod images;
pub mod mpi;
pub mod oci;
mod output;
mod registry;
mod sandbox;
pub mod skip;
mod slurm;
pub mod usage;
pub mod user;
mod wait;
pub mod ways;

pub use condor::Condor;
pub use enter::enter;
pub use fake::{Fake, Reply, Request};
pub use guest::Guest;
pub use output::Output;
pub use registry::Registry;
pub use sandbox::{Sandbox, coracle};
pub use slurm::Slurm;
pub use wait::{eventually, free_port};
