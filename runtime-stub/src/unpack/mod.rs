//! The payload to a directory.

use std::{io, path::PathBuf};

use crate::open::{Bundle, FrameError};
use coracle_format::Index;

/// Which permission bits files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// As a shared, read-only tree: files lose their write and set-id bits and are readable by their owner; directories
    /// keep their bits and can be entered, read and written by their owner. The true modes are in the index.
    Shared,
    /// As in the image, less set-id bits.
    True,
}

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads; `None` means all cores that the job may use.
    pub threads: Option<usize>,
    /// Permission bits.
    pub modes: Modes,
}

/// What unpacking did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    /// Threads used.
    pub threads: usize,
    /// Files, directories and links made.
    pub inodes: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Device nodes left out.
    pub devices: u64,
    /// Set-id bits left off.
    pub set_ids: u64,
    /// Extended attributes that the file system or the kernel did not take.
    pub xattrs: u64,
}

/// The tree could not be written. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// One of the steps failed on one file.
    #[error("{}: cannot {step}: {source}{}", path.display(), advice(source))]
    Step {
        /// `create`, `write`…
        step: String,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A frame of the payload cannot be had.
    #[error("{}: frame {frame} of the payload {why}: the file is damaged: copy or build it again", path.display())]
    Frame {
        /// The bundle.
        path: PathBuf,
        /// Number of the frame.
        frame: usize,
        /// As [`FrameError`] says it.
        why: String,
    },
    /// The process that unpacks could not be made, or did not come to its end.
    #[error("unpacking: {0}: run the bundle again")]
    Worker(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => ": free some space, or name another directory in CORACLE_CACHE",
        Some(libc::EDQUOT) => ": your quota is used up: free some space, or name another directory in CORACLE_CACHE",
        _ => "",
    }
}

/// Unpacks the whole tree into `target`, an empty directory that exists.
///
/// # Errors
/// The first step that failed.
pub fn unpack(
    bundle: &Bundle,
    index: &Index,
    target: &std::path::Path,
    options: &Options,
) -> Result<Stats, UnpackError> {
    let _ = (index, target, options, FrameError::Digest);
    Err(UnpackError::Worker(format!("{}: not in this version", bundle.path().display())))
}
