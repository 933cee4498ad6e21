//! Directories that go with the run: Docker's `--tmpfs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An empty directory at a place of the guest's, gone when the run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temporary {
    /// Where the guest sees it.
    pub guest: PathBuf,
    /// Permission bits of the directory.
    pub mode: u32,
    /// At most so many bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// At most so many files.
    #[serde(default)]
    pub inodes: Option<u64>,
    /// Nothing in it can be executed.
    #[serde(default)]
    pub no_exec: bool,
    /// Nothing can be put into it.
    #[serde(default)]
    pub read_only: bool,
}

impl Temporary {
    /// One without limits.
    #[must_use]
    pub fn new(guest: PathBuf, mode: u32) -> Self {
        Self { guest, mode, size: None, inodes: None, no_exec: false, read_only: false }
    }

    /// Whether something is asked of it that only a file system of its own can give.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.size.is_some() || self.inodes.is_some() || self.no_exec
    }
}
