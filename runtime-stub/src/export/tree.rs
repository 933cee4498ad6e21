//! What is exported: entries as an index has them, and where each file's bytes come from.

use std::path::PathBuf;

use coracle_format::{Content, Entry, Index, Kind};

use super::changes::{self, Layer};
use crate::{actions::ActionError, open::Bundle};

/// The files of an export.
#[derive(Debug)]
pub struct Tree {
    /// In path order; `content` of files means nothing here.
    pub(super) entries: Vec<Entry>,
    /// Of each entry.
    pub(super) bytes: Vec<Bytes>,
    /// The bundle's own index.
    pub(super) kept: Index,
    /// Whether anything differs from the bundle.
    pub(super) changed: bool,
    /// What cannot be exported, in words.
    pub notes: Vec<String>,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bytes {
    /// It has none of its own.
    None,
    /// In the bundle's payload.
    Kept(Content),
    /// In a file of the host's.
    Host(PathBuf),
}

impl Tree {
    /// The bundle's files.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn of(bundle: &Bundle) -> Result<Self, ActionError> {
        let kept = bundle.index()?;
        let entries = kept.entries.clone();
        let bytes = entries.iter().map(|entry| bytes_of(&entry.kind)).collect();
        Ok(Self { entries, bytes, kept, changed: false, notes: Vec::new() })
    }

    /// The bundle's files with a run's changes.
    ///
    /// # Errors
    /// [`ActionError::Changes`] names the file that cannot be read.
    pub fn with_changes(bundle: &Bundle, layer: &Layer) -> Result<Self, ActionError> {
        changes::lay(bundle, Self::of(bundle)?, layer)
    }

    /// Whether a tar has a member for an entry: devices are in none.
    pub(super) fn has_member(&self, number: usize) -> bool {
        !matches!(self.entries[number].kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
    }

    /// Bytes of an entry's file.
    pub(super) fn size(&self, number: usize) -> u64 {
        match self.entries[number].kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }
}

pub(super) fn bytes_of(kind: &Kind) -> Bytes {
    match kind {
        Kind::File { size: 1.., content } => Bytes::Kept(*content),
        _ => Bytes::None,
    }
}

/// Where a file's bytes are in the payload.
pub(super) fn content_of(kind: &Kind) -> Option<Content> {
    match bytes_of(kind) {
        Bytes::Kept(content) => Some(content),
        _ => None,
    }
}
