//! Another bundle: this one's stub, settings and files, with what a run has changed.
//!
//! Frames of the payload in which nothing has changed are copied as they are; new ones lie in a nameless file of the scratch
//! directory until all lengths are known, for the stub, which comes first, has a slot with the total. Signatures are of
//! other bytes and stay behind; edits stay with the files that are still the image's.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
};

use coracle_format::{FixupSet, Index, IndexInfo, Manifest, PayloadInfo, Region, Slot, Trailer, hex, sha256};

use super::{
    frames::{self, Frames, Stored},
    tree::{Bytes, Tree},
};
use crate::{
    actions::ActionError,
    cache::{Scratch, Settings},
    open::{Bundle, FrameReader},
};

/// Writes the bundle to standard output.
pub(super) fn write(bundle: &Bundle, tree: &Tree, settings: &Settings) -> Result<(), ActionError> {
    let mut out = io::stdout().lock();
    if !tree.changed {
        let mut file = bundle.file().try_clone().map_err(unread)?;
        return io::copy(&mut Whole(&mut file, 0), &mut out).and_then(|_| out.flush()).map_err(unwritten);
    }
    let mut spool = nameless(settings)?;
    let mut tree = Tree {
        entries: tree.entries.clone(),
        bytes: tree.bytes.clone(),
        kept: tree.kept.clone(),
        changed: true,
        notes: tree.notes.clone(),
    };
    let Frames { frames, stored } = frames::cut(bundle, &mut tree, &mut spool)?;
    let fixups = fixups(&tree);
    let stored_len = frames.iter().map(|frame| u64::from(frame.stored)).sum();
    let lengths: Vec<u32> = frames.iter().map(|frame| frame.stored).collect();
    let mut manifest = manifest(bundle, &tree, stored_len);
    let index = Index { frames, entries: tree.entries, fixups }.encode();
    let index_stored = frames::compress(&mut frames::compressor()?, &index)?;
    manifest.index = IndexInfo { sha256: hex(&sha256(&index)), stored_sha256: hex(&sha256(&index_stored)) };
    let manifest = manifest.encode();

    let payload = Region { offset: bundle.payload_offset(), len: stored_len };
    let trailer = Trailer::unsigned(payload, &manifest, &index, &index_stored);
    let header = trailer.skippable_header().ok_or(ActionError::Pack("its index is too large"))?;
    out.write_all(&stub(bundle, &trailer)?).map_err(unwritten)?;
    let (mut reader, mut fresh) = (FrameReader::new(bundle.file(), bundle.payload_offset()), Vec::new());
    for (stored, len) in stored.into_iter().zip(lengths) {
        let bytes =
            match stored {
                Stored::Kept(number) => reader.stored(&tree.kept.frames[number]).map_err(|error| {
                    ActionError::Frame { path: bundle.path().to_owned(), frame: number, why: error.to_string() }
                })?,
                Stored::New(offset) => {
                    fresh.resize(len as usize, 0);
                    spool.read_exact_at(&mut fresh, offset).map_err(unread)?;
                    &fresh
                }
            };
        out.write_all(bytes).map_err(unwritten)?;
    }
    for part in [&header[..], &manifest, &index_stored, &trailer.encode()] {
        out.write_all(part).map_err(unwritten)?;
    }
    out.flush().map_err(unwritten)
}

fn unwritten(source: io::Error) -> ActionError {
    ActionError::Write { path: "standard output".into(), source }
}

fn unread(source: io::Error) -> ActionError {
    ActionError::Write { path: "the scratch directory".into(), source }
}

/// A file from its start, whoever else has moved its position.
struct Whole<'a>(&'a mut File, u64);

impl io::Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.0.read_at(buffer, self.1)?;
        self.1 += got as u64;
        Ok(got)
    }
}

/// A file that goes with its descriptor.
fn nameless(settings: &Settings) -> Result<File, ActionError> {
    let scratch = Scratch::create(settings).map_err(|error| ActionError::Scratch(error.to_string()))?;
    let file = File::options().read(true).write(true).create_new(true).open(scratch.path().join("frames"));
    // What cannot be removed now goes with the next run's sweep.
    let _ = scratch.remove();
    file.map_err(unread)
}

/// The stub with the slot of a bundle of that length.
fn stub(bundle: &Bundle, trailer: &Trailer) -> Result<Vec<u8>, ActionError> {
    let at = usize::try_from(bundle.manifest().stub.slot).unwrap_or(usize::MAX);
    let mut stub = vec![0; usize::try_from(bundle.payload_offset()).unwrap_or(0)];
    bundle.file().read_exact_at(&mut stub, 0).map_err(unread)?;
    let slot = Slot { payload: trailer.payload.offset, total: trailer.total() }.encode();
    let place = at.checked_add(slot.len()).and_then(|end| stub.get_mut(at..end));
    place.ok_or(ActionError::Pack("its manifest describes another stub"))?.copy_from_slice(&slot);
    Ok(stub)
}

/// Edits of files whose bytes are still those that the edits were made for.
fn fixups(tree: &Tree) -> Vec<FixupSet> {
    let old = &tree.kept;
    let number_of = |path: &[u8]| tree.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok();
    let mut numbers: HashMap<u32, Option<u32>> = HashMap::new();
    let mut renumbered = |entry: u32| {
        *numbers.entry(entry).or_insert_with(|| {
            let was = &old.entries[entry as usize];
            let now = number_of(&was.path)?;
            let same = match (&tree.bytes[now], &tree.entries[now].kind) {
                (Bytes::Kept(content), _) => *content == super::tree::content_of(&was.kind)?,
                (_, kind) => *kind == was.kind,
            };
            same.then(|| u32::try_from(now).ok()).flatten()
        })
    };
    let mut sets = Vec::new();
    for set in &old.fixups {
        let mut fixups = Vec::new();
        for fixup in &set.fixups {
            fixups.extend(renumbered(fixup.entry).map(|entry| coracle_format::Fixup { entry, ..fixup.clone() }));
        }
        fixups.sort_by_key(|fixup| (fixup.entry, fixup.offset));
        sets.push(FixupSet { engine: set.engine.clone(), fixups });
    }
    sets
}

fn manifest(bundle: &Bundle, tree: &Tree, stored: u64) -> Manifest {
    let mut manifest = bundle.manifest().clone();
    let unpacked = (0..tree.entries.len()).map(|number| tree.size(number)).sum();
    let is_link = |kind: &coracle_format::Kind| matches!(kind, coracle_format::Kind::HardLink { .. });
    let inodes = (0..tree.entries.len()).filter(|&n| tree.has_member(n) && !is_link(&tree.entries[n].kind)).count();
    manifest.payload = PayloadInfo { stored, unpacked, inodes: inodes as u64 };
    manifest.provenance.changed = Some(format!("sha256:{}", hex(bundle.manifest_digest())));
    manifest.notes.extend(tree.notes.iter().cloned());
    manifest
}
