//! Why a bundle could not be opened, and what to do about it.

use std::{io, path::PathBuf};

use coracle_format::FormatError;

/// A bundle that cannot be used. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}: check the file and its permissions", path.display())]
    Read {
        /// The bundle.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The running stub is no bundle: nobody filled in its slot.
    #[error("{}: holds no image: it is the bare stub: make a bundle with `coracle build`", path.display())]
    Bare {
        /// The stub.
        path: PathBuf,
    },
    /// The file is no bundle of any kind.
    #[error("{}: is no Coracle bundle: give a file made by `coracle build`", path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
    },
    /// A whole program, and nothing behind it: what strip(1) and other tools that rewrite programs leave.
    #[error(
        "{}: its image is gone, {missing} bytes of it: a tool that rewrites programs, such as strip, removed it: \
         copy or build the bundle again, and do not strip it",
        path.display()
    )]
    Stripped {
        /// The bundle.
        path: PathBuf,
        /// Bytes that are not there.
        missing: u64,
    },
    /// Cut short.
    #[error(
        "{}: is cut short: {found} bytes of {expected}: the copy or download did not finish: copy it again",
        path.display()
    )]
    Truncated {
        /// The bundle.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length its slot gives.
        expected: u64,
    },
    /// Longer than it should be.
    #[error(
        "{}: has {extra} bytes behind its end: something was appended to it: copy or build the bundle again",
        path.display()
    )]
    Appended {
        /// The bundle.
        path: PathBuf,
        /// Bytes too many.
        extra: u64,
    },
    /// The slot in the stub does not say where the parts are, although the trailer knows.
    #[error("{}: the slot in its stub is corrupt: the file is damaged: copy or build it again", path.display())]
    Slot {
        /// The bundle.
        path: PathBuf,
    },
    /// Bytes that are not what they should be.
    #[error("{}: {source}: the file is damaged: copy or build it again", path.display())]
    Corrupt {
        /// The bundle.
        path: PathBuf,
        /// Which part, and what is wrong with it.
        source: FormatError,
    },
    /// Made for another layout.
    #[error("{}: {source}: use the Coracle that made it, or build the bundle again", path.display())]
    Version {
        /// The bundle.
        path: PathBuf,
        /// The versions.
        source: FormatError,
    },
}

impl OpenError {
    /// The error for a part that cannot be decoded.
    pub(super) fn format(path: &std::path::Path, source: FormatError) -> Self {
        let path = path.to_owned();
        match source {
            FormatError::Version { .. } => Self::Version { path, source },
            _ => Self::Corrupt { path, source },
        }
    }

    pub(super) fn read(path: &std::path::Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
