//! What health checks found out about a run, as its record keeps it.

use serde::{Deserialize, Serialize};

/// What is known of a program's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing: u64,
    /// The last checks, oldest first.
    pub log: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Its exit status; -1 if it took too long.
    pub status: i32,
    /// The beginning of what it wrote.
    pub output: String,
}
