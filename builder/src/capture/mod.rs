//! A run on this host becomes a bundle that repeats it elsewhere.
//!
//! [`run`] has the embedded stub run the command, under the one engine that keeps a record of every file that is used.
//! [`record`] reads that; [`tree`] makes a tree of it, as [`choice`] and [`secrets`] allow, and from there on a captured run
//! takes the line of every other bundle. What is in the tree:
//! - every file that the run opened, executed or asked for, whole, as it was before the run changed it, with its mode, owner
//!   and time; every symbolic link that was crossed or asked for; every directory that was met, and the parents of all;
//! - of a directory that was listed only what was used of it, unless more is asked for;
//! - nothing that the run made, nothing of `/proc`, `/sys` and `/dev`, no sockets and devices: these are the node's.

pub mod choice;
pub mod record;
pub mod run;
pub mod secrets;
pub mod tree;
pub mod variables;

pub use choice::Choice;
pub use record::Record;
pub use tree::{Captured, capture};

use std::{io, path::PathBuf};

use crate::launch::LaunchError;

/// A run that cannot be captured. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The command cannot be run.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The record is not whole.
    #[error("the record of the run is not whole: {why}: nothing was made: see that there is room in {}", directory.display())]
    Record {
        /// Where it was.
        directory: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern.
    #[error("{pattern}: {why}: correct the pattern")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that was asked for.
    #[error("--include {}: {why}: correct the path", path.display())]
    Include {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// A file that is referred to.
    #[error("{}: {why}: it cannot be referred to: leave --reference-larger out, or exclude it", path.display())]
    Reference {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}
