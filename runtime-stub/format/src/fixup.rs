//! Fix-ups: the small edits that an engine needs in files of the tree, computed at build time, applied to a view.

use crate::{
    FormatError,
    wire::{Reader, put_count, put_string},
};

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

impl FixupSet {
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

    pub(crate) fn decode(reader: &mut Reader<'_>, entries: usize) -> Result<Self, FormatError> {
        let engine = String::from_utf8(reader.string()?.to_vec())
            .map_err(|_| FormatError::corrupt("index", "an engine's name is not text"))?;
        let count = reader.count(17)?;
        let mut fixups = Vec::with_capacity(count);
        for _ in 0..count {
            let (entry, offset) = (reader.u32()?, reader.u64()?);
            if entry as usize >= entries {
                return Err(FormatError::corrupt("index", "a fix-up names a file that is not there"));
            }
            let edit = match reader.u8()? {
                0 => Edit::Bytes(reader.string()?.to_vec()),
                1 => Edit::Path { slot: reader.u32()?, suffix: reader.string()?.to_vec() },
                other => return Err(FormatError::corrupt("index", format!("unknown edit {other}"))),
            };
            fixups.push(Fixup { entry, offset, edit });
        }
        Ok(Self { engine, fixups })
    }
}
