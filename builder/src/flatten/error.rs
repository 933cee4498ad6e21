//! What can be wrong with layers and trees. Messages say what, why, and what to do.

use std::{io, path::PathBuf};

/// Flattening failed.
#[derive(Debug, thiserror::Error)]
pub enum FlattenError {
    /// A layer could not be used.
    #[error("layer {layer}: {why}")]
    Layer {
        /// Its number and digest.
        layer: String,
        /// What is wrong.
        why: LayerError,
    },
    /// A file of the host could not be used.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The temporary file that holds the decompressed files could not be written.
    #[error("temporary file in {}: {why}: make room there, or set TMPDIR to a directory with more", dir.display())]
    Spool {
        /// The directory it lies in.
        dir: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// What is wrong with one layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob is not there or cannot be read.
    #[error("{}: {why}", path.display())]
    Blob {
        /// The file that holds it.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The decompressor or the file system refuses.
    #[error("cannot be decompressed: {0}: the blob is damaged, fetch it again")]
    Read(io::Error),
    /// The stream ends in the middle of something.
    #[error("ends in the middle of {0}: it is cut short, fetch it again")]
    Short(String),
    /// The uncompressed bytes are not those that the image's config names.
    #[error("its content has the digest {found}, the image's config says {expected}: the image is damaged")]
    DiffId {
        /// Digest of the bytes.
        found: String,
        /// Digest in the config.
        expected: String,
    },
    /// No tar, or a damaged one.
    #[error("no valid tar: {what} at byte {at}: the image is damaged")]
    Tar {
        /// What is wrong.
        what: String,
        /// Offset in the decompressed layer.
        at: u64,
    },
    /// An entry that no honest image has, or that no tree can hold.
    #[error("entry {name:?}: {why}: the image is refused")]
    Refused {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// More than the limits allow.
    #[error("more than {limit} {what}: if the image is to be trusted, raise {flag}")]
    Limit {
        /// The limit.
        limit: u64,
        /// Of what.
        what: &'static str,
        /// The flag that raises it.
        flag: &'static str,
    },
    /// The temporary file could not be written; becomes [`FlattenError::Spool`].
    #[error("temporary file: {0}")]
    Spool(io::Error),
}

impl LayerError {
    pub(crate) fn tar(at: u64, what: impl Into<String>) -> Self {
        Self::Tar { what: what.into(), at }
    }

    pub(crate) fn refused(name: &[u8], why: impl Into<String>) -> Self {
        Self::Refused { name: shown(name), why: why.into() }
    }
}

/// A name of a tree in a message: as text where it is text, and never longer than a line.
pub(crate) fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(name);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
