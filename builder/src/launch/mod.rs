//! From a container and what the user wants of it to a running program.
//!
//! The builder links no engine: [`order`] turns a container's settings and [`Options`] into a `coracle_api::Order`, and
//! [`stub`] executes the embedded stub with it, which resolves the rest in the container's tree. A run in the foreground
//! *becomes* the stub; one in the background has a [`monitor`] beside it, which keeps its output ([`log`]) and its record.
//! [`health`] asks it whether it works. [`processes`] finds a run's program again, to signal it.

pub mod health;
pub mod hold;
pub mod ids;
pub mod log;
pub mod monitor;
mod options;
pub mod order;
pub mod processes;
pub mod signal;
pub mod stub;
pub mod volumes;
pub mod window;

pub use options::{Limit, Options, Source, Volume};

use std::{io, path::PathBuf};

use crate::store::containers::base::OwnError;

/// A run that cannot be started or told anything. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A volume that is not there.
    #[error("volume {path}: {cause}: create it, or correct the path", path = .path.display())]
    Volume {
        /// The host's path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A container's tree.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// A limit that cannot be set.
    #[error("cannot set the limit {name} to {value}: {cause}: it may not exceed the hard limit that you have")]
    Limit {
        /// As getrlimit(2) has it.
        name: String,
        /// What was asked for.
        value: String,
        /// What the system said.
        cause: io::Error,
    },
    /// CPUs that are not there.
    #[error("cannot run on these CPUs only: {0}: name some that this process may use")]
    Cpus(io::Error),
    /// The stub cannot be executed from anywhere.
    #[error("cannot execute the launcher: {memory} from memory, {file} from {path}: allow either, or set TMPDIR to a directory whose files can be executed", path = .path.display())]
    Stub {
        /// Why not from memory.
        memory: io::Error,
        /// Why not from a file.
        file: io::Error,
        /// Where that file was.
        path: PathBuf,
    },
    /// A step of ours.
    #[error("cannot {step}: {cause}")]
    Step {
        /// Which.
        step: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl LaunchError {
    /// For `map_err`.
    pub(crate) fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |cause| Self::Step { step, cause }
    }
}
