//! The last step of an engine that hands the tree to another runtime: our own executable, started inside the guest by
//! that runtime, becomes the program with exactly the arguments, environment and directory that the launcher decided.
//!
//! The runtime passes the executable and this order on as inherited descriptors, so nothing of them appears in the
//! guest's file system, and no shell of the runtime's evaluates what is in them.

use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The only argument, followed by the number of the descriptor that holds an [`Inside`] as JSON.
pub const INSIDE: &str = "--coracle-inside=";

/// What to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// As [`LaunchSpec::argv`](crate::LaunchSpec::argv).
    pub argv: Vec<OsString>,
    /// As [`LaunchSpec::env`](crate::LaunchSpec::env).
    pub env: Vec<(OsString, OsString)>,
    /// As [`LaunchSpec::cwd`](crate::LaunchSpec::cwd).
    pub cwd: PathBuf,
    /// Descriptors that the program must not inherit.
    pub close: Vec<i32>,
    /// A byte is written here when the runtime has done its part; closed then.
    pub tell: i32,
}
