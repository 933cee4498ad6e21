//! Fix-ups: the small edits that an engine needs in files of the tree, computed at build time, applied to a view.
//!
//! They are offsets and bytes: whoever applies them knows nothing of what the files are. A symbolic link is edited as a
//! whole: one edit at offset 0, the bytes of its new target.
//!
//! Rules, checked by [`FixupSet::decode`]: sorted by entry and offset, without overlap; files grow by at most
//! [`MOST_GROWTH`] bytes; a path's slot is at most [`MOST_SLOT`] bytes.

use crate::{
    Entry, FormatError, Kind,
    wire::{Reader, put_count, put_string},
};

/// Bytes that fix-ups may add to a file.
pub const MOST_GROWTH: u64 = 1 << 20;

/// Bytes of the longest slot: what the kernel takes for a path (`PATH_MAX`).
pub const MOST_SLOT: u32 = 4096;

/// The edits of one engine. Engines are named by their contract name, so a stub skips sets it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FixupSet {
    /// Engine name, such as `preload`.
    pub engine: String,
    /// Sorted by entry, then offset.
    pub fixups: Vec<Fixup>,
}

/// One edit of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixup {
    /// Number of the file's entry in the index.
    pub entry: u32,
    /// Offset in the file; past its end the file grows, zero-filled.
    pub offset: u64,
    /// What is written there.
    pub edit: Edit,
}

/// What a fix-up writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The absolute path of the view's directory followed by `suffix`, NUL-padded to `slot` bytes.
    Path {
        /// Bytes reserved; a longer path makes the engine refuse.
        slot: u32,
        /// Guest path appended to the directory.
        suffix: Vec<u8>,
    },
}

impl Edit {
    /// Bytes that it writes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an edit of no bytes is none")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Path { slot, .. } => u64::from(*slot),
        }
    }

    /// What it writes into a view at `view`, an absolute path; `None` for a path that is longer than its slot.
    #[must_use]
    pub fn bytes(&self, view: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Some(bytes.into()),
            Self::Path { slot, suffix } => {
                let mut path = [view, suffix].concat();
                let len = *slot as usize;
                // At least one NUL ends it.
                (path.len() < len).then(|| {
                    path.resize(len, 0);
                    path.into()
                })
            }
        }
    }
}

impl FixupSet {
    /// The longest path of a view that every slot has room for; `None` if there is no slot.
    #[must_use]
    pub fn longest_view(&self) -> Option<usize> {
        let rooms = self.fixups.iter().filter_map(|fixup| match &fixup.edit {
            Edit::Path { slot, suffix } => Some((*slot as usize).saturating_sub(suffix.len() + 1)),
            Edit::Bytes(_) => None,
        });
        rooms.min()
    }

    /// The fix-ups of each file, by the number of its entry.
    pub fn files(&self) -> impl Iterator<Item = (u32, &[Fixup])> {
        self.fixups.chunk_by(|one, other| one.entry == other.entry).map(|fixups| (fixups[0].entry, fixups))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.engine.as_bytes());
        put_count(out, self.fixups.len());
        for fixup in &self.fixups {
            out.extend_from_slice(&fixup.entry.to_le_bytes());
            out.extend_from_slice(&fixup.offset.to_le_bytes());
            match &fixup.edit {
                Edit::Bytes(bytes) => {
                    out.push(0);
                    put_string(out, bytes);
                }
                Edit::Path { slot, suffix } => {
                    out.push(1);
                    out.extend_from_slice(&slot.to_le_bytes());
                    put_string(out, suffix);
                }
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, entries: &[Entry]) -> Result<Self, FormatError> {
        let wrong = |why: &str| Err(FormatError::corrupt("index", why));
        let engine = String::from_utf8(reader.string()?.to_vec())
            .map_err(|_| FormatError::corrupt("index", "an engine's name is not text"))?;
        let count = reader.count(17)?;
        let mut fixups = Vec::with_capacity(count);
        let mut before = (0, 0);
        for _ in 0..count {
            let (entry, offset) = (reader.u32()?, reader.u64()?);
            let Some(file) = entries.get(entry as usize) else {
                return wrong("a fix-up names a file that is not there");
            };
            let edit = match reader.u8()? {
                0 => Edit::Bytes(reader.string()?.to_vec()),
                1 => Edit::Path { slot: reader.u32()?, suffix: reader.string()?.to_vec() },
                other => return Err(FormatError::corrupt("index", format!("unknown edit {other}"))),
            };
            let end = offset.saturating_add(edit.len());
            let fits = match &file.kind {
                Kind::File { size, .. } => end <= size.saturating_add(MOST_GROWTH),
                Kind::Symlink { .. } => {
                    matches!(&edit, Edit::Bytes(target) if offset == 0 && !target.is_empty() && !target.contains(&0))
                }
                _ => false,
            };
            if !fits || matches!(edit, Edit::Path { slot, .. } if slot > MOST_SLOT) {
                return wrong("a fix-up changes what it may not");
            }
            if before > (entry, offset) {
                return wrong("fix-ups overlap or are not sorted");
            }
            // A link has one.
            before = (entry, if matches!(file.kind, Kind::Symlink { .. }) { u64::MAX } else { end });
            fixups.push(Fixup { entry, offset, edit });
        }
        Ok(Self { engine, fixups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fills_its_slot_or_is_refused() {
        let edit = Edit::Path { slot: 12, suffix: b"/lib/x".to_vec() };
        assert_eq!(edit.bytes(b"/v").unwrap().as_ref(), b"/v/lib/x\0\0\0\0");
        assert_eq!(edit.bytes(b"/view").unwrap().as_ref(), b"/view/lib/x\0");
        assert_eq!(edit.bytes(b"/views"), None);
        let set = FixupSet { engine: "e".into(), fixups: vec![Fixup { entry: 1, offset: 0, edit }] };
        assert_eq!(set.longest_view(), Some(5));
    }
}
