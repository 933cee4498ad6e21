//! What goes wrong inside the worker, in a form that crosses the pipe to the process that waits for it.

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt, path::Path};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::UnpackError;
use crate::open::{Bundle, FrameError};

/// The first failure of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// A system call failed on a file of the tree.
    Step { step: String, path: Vec<u8>, errno: i32 },
    /// A frame cannot be had.
    Frame { frame: usize, why: String },
    /// The index describes what cannot be.
    Index { why: String },
}

impl Failure {
    /// For `map_err`: `step` failed on `path`, which is relative to the tree's root.
    pub(super) fn step<'a>(step: &'a str, path: &'a [u8]) -> impl FnOnce(Errno) -> Self + 'a {
        move |errno| Self::Step { step: step.to_owned(), path: path.to_vec(), errno: errno as i32 }
    }

    pub(super) fn frame(frame: usize, error: &FrameError) -> Self {
        Self::Frame { frame, why: error.to_string() }
    }

    /// The failure as the caller knows it.
    pub(super) fn into_error(self, bundle: &Bundle, target: &Path) -> UnpackError {
        match self {
            Self::Step { step, path, errno } => UnpackError::Step {
                step,
                path: target.join(OsString::from_vec(path)),
                source: io::Error::from_raw_os_error(errno),
            },
            Self::Frame { frame, why } => UnpackError::Frame { path: bundle.path().to_owned(), frame, why },
            Self::Index { why } => UnpackError::Index { path: bundle.path().to_owned(), why },
        }
    }
}
