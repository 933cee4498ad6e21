//! What can go wrong while packing.

use std::{io, path::PathBuf};

use coracle_format::FormatError;

/// One variant per failing step.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The stub in this binary cannot be used.
    #[error("the stub in this coracle is unusable: build coracle again")]
    Stub(#[source] FormatError),
    /// A file of the tree could not be read.
    #[error("cannot read /{path} of the image from {from}")]
    Read {
        /// Path in the tree.
        path: String,
        /// Where its bytes were to come from.
        from: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file of the tree has no longer the size it had when it was listed.
    #[error("/{path} changed while it was packed: try again when nothing writes to {from}")]
    Changed {
        /// Path in the tree.
        path: String,
        /// Where its bytes come from.
        from: String,
    },
    /// The tree breaks its own rules; a bug of whoever made it.
    #[error("the tree is inconsistent at /{path}: {why}")]
    Tree {
        /// Path in the tree.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// The compressor refused.
    #[error("zstd failed: {0}")]
    Compress(&'static str),
    /// Image facts that no JSON can hold.
    #[error("cannot write the image's facts")]
    Facts(#[source] serde_json::Error),
    /// Beyond 4 GiB.
    #[error("the list of files is too large for a bundle")]
    IndexTooLarge,
    /// The output could not be written.
    #[error("cannot write the bundle")]
    Write(#[source] io::Error),
    /// No temporary file could be made beside the output.
    #[error("cannot make a file in {}", folder.display())]
    Create {
        /// The output's folder.
        folder: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The output is a directory.
    #[error("{} is a directory: name a file", .0.display())]
    Directory(PathBuf),
    /// The whole file could not take its place.
    #[error("cannot put the bundle in place as {}", path.display())]
    Place {
        /// The output.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}
