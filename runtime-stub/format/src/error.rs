//! What can be wrong with a bundle's bytes.

/// Bytes that are no valid part of a bundle. The reader adds the file's name and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The part ends before its own lengths say.
    #[error("the {part} is cut short")]
    Short {
        /// Which part: slot, trailer, manifest, index.
        part: &'static str,
    },
    /// The part does not begin with its mark.
    #[error("there is no {part} here")]
    Missing {
        /// Which part.
        part: &'static str,
    },
    /// The digest kept for the part is not the digest of its bytes.
    #[error("the {part} does not match its SHA-256")]
    Digest {
        /// Which part.
        part: &'static str,
    },
    /// A layout that this version cannot read.
    #[error("bundle format {found} is not format {expected} of this version")]
    Version {
        /// Version found.
        found: u32,
        /// Version understood: [`crate::FORMAT_VERSION`].
        expected: u32,
    },
    /// A field holds what the layout forbids.
    #[error("the {part} is corrupt: {why}")]
    Corrupt {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl FormatError {
    pub(crate) fn corrupt(part: &'static str, why: impl Into<String>) -> Self {
        Self::Corrupt { part, why: why.into() }
    }
}
