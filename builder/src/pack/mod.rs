//! Tree and stub to a temporary file beside the output, renamed when it is whole.
//!
//! [`layout`] cuts the tree into frames, by the tree alone; [`compress`] fills, compresses and digests the frames on all
//! cores; [`write_bundle`] puts them behind the stub in order, then the manifest, the index and the trailer, and at last
//! fills in the stub's slot. So the same tree and options give the same bytes, whatever the machine and `-j`.

mod compress;
mod error;
mod keys;
mod layout;
mod output;
mod sign;

use std::{
    fs::File,
    io::{BufWriter, Write},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
};

use coracle_api::ImageFacts;
use coracle_format::{
    Defaults, Entry, FORMAT_VERSION, Fixup, FixupSet, ImageConfig, Index, IndexInfo, Manifest, PayloadInfo, Provenance,
    Region, Slot, StubInfo, Trailer, hex, sha256,
};

pub use coracle_open::{PublicKey, Verified, VerifyError, verify_open, verify_signature};
pub use error::PackError;
pub use keys::{KeyError, read_secret_key, write_key_pair};
pub use output::Output;
pub use sign::{SignError, sign};

use crate::{artifacts, flatten::Tree, patch::EngineEdits};

/// Compression unless the user says otherwise: see the measurement in ARCHITECTURE.md.
pub const DEFAULT_LEVEL: i32 = 9;

/// Everything that goes into a bundle.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Its files.
    pub tree: &'a Tree,
    /// How to start it.
    pub config: ImageConfig,
    /// Runtime options fixed now.
    pub defaults: Defaults,
    /// Where it came from.
    pub provenance: Provenance,
    /// What engines ask for.
    pub facts: ImageFacts,
    /// What engines change in it.
    pub edits: Vec<EngineEdits>,
}

/// How to pack; nothing here but the level changes a byte.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd's level, 1–22.
    pub level: i32,
    /// Threads that compress.
    pub jobs: NonZeroUsize,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Length of the bundle in bytes.
    pub total: u64,
    /// Bytes that the unpacked files take.
    pub unpacked: u64,
    /// Files, directories and links that unpacking makes.
    pub inodes: u64,
}

/// Writes a bundle to `file`, from its start. `progress` is told of each tree byte done, and how many there are.
///
/// # Errors
/// [`PackError`] names the file that could not be read or written.
pub fn write_bundle(
    file: &File,
    contents: Contents<'_>,
    options: Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Summary, PackError> {
    let stub = artifacts::STUB;
    let slot = Slot::find(stub).map_err(PackError::Stub)?;
    let layout = layout::plan(contents.tree)?;
    let (unpacked, inodes) = (layout.unpacked, layout.inodes);

    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(stub).map_err(PackError::Write)?;
    let frames = compress::frames(contents.tree, &layout, options, progress, |stored| {
        out.write_all(stored).map_err(PackError::Write)
    })?;
    let payload = Region { offset: stub.len() as u64, len: frames.iter().map(|frame| u64::from(frame.stored)).sum() };

    let fixups = contents.edits.iter().map(|edits| fixups(&layout.entries, edits)).collect::<Result<_, _>>()?;
    let index = Index { frames, entries: layout.entries, fixups }.encode();
    let index_stored = compress::block(&index, options.level)?;
    let mut notes = contents.tree.notes.clone();
    notes.extend(layout.notes);
    let manifest = Manifest {
        format: FORMAT_VERSION,
        coracle: env!("CARGO_PKG_VERSION").to_owned(),
        config: contents.config,
        facts: serde_json::to_value(contents.facts).map_err(PackError::Facts)?,
        defaults: contents.defaults,
        provenance: contents.provenance,
        stub: StubInfo {
            target: artifacts::STUB_TARGET.to_owned(),
            len: stub.len() as u64,
            slot: slot as u64,
            sha256: hex(&sha256(stub)),
        },
        payload: PayloadInfo { stored: payload.len, unpacked, inodes },
        index: IndexInfo { sha256: hex(&sha256(&index)), stored_sha256: hex(&sha256(&index_stored)) },
        notes,
    }
    .encode();

    let trailer = Trailer::unsigned(payload, &manifest, &index, &index_stored);
    let header = trailer.skippable_header().ok_or(PackError::IndexTooLarge)?;
    for part in [&header[..], &manifest, &index_stored, &trailer.encode()] {
        out.write_all(part).map_err(PackError::Write)?;
    }
    out.flush().map_err(PackError::Write)?;
    let total = trailer.total();
    file.write_all_at(&Slot { payload: payload.offset, total }.encode(), slot as u64).map_err(PackError::Write)?;
    Ok(Summary { total, unpacked, inodes })
}

/// Edits by path as edits by the number of the path's entry.
fn fixups(entries: &[Entry], edits: &EngineEdits) -> Result<FixupSet, PackError> {
    let mut fixups = Vec::new();
    for file in &edits.files {
        let number = entries.binary_search_by(|entry| entry.path.cmp(&file.path)).map_err(|_| PackError::Tree {
            path: String::from_utf8_lossy(&file.path).into_owned(),
            why: "it is edited and does not exist",
        })?;
        let entry = u32::try_from(number).map_err(|_| PackError::IndexTooLarge)?;
        fixups.extend(file.edits.iter().map(|(offset, edit)| Fixup { entry, offset: *offset, edit: edit.clone() }));
    }
    fixups.sort_by_key(|fixup| (fixup.entry, fixup.offset));
    Ok(FixupSet { engine: edits.engine.clone(), fixups })
}

/// Writes the tree as a plain tar; gives notes on what a tar does not hold.
///
/// # Errors
/// [`PackError`] names the file that could not be read.
pub fn write_tar(tree: &Tree, out: &mut dyn Write) -> Result<Vec<String>, PackError> {
    let layout = layout::plan(tree)?;
    let mut raw = Vec::new();
    for plan in &layout.frames {
        compress::fill(tree, &layout, plan, &mut raw)?;
        out.write_all(&raw).map_err(PackError::Write)?;
    }
    out.flush().map_err(PackError::Write)?;
    Ok(layout.notes)
}

/// Threads to use when the user does not say: the CPUs that this process may use, by affinity and by the quota of its
/// control group (both versions), which the standard library knows.
#[must_use]
pub fn default_jobs() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
