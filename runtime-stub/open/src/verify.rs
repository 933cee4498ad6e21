//! Every byte of a bundle against what vouches for it.
//!
//! The trailer vouches for itself, the manifest and the index; the manifest for the stub; the index for every frame; and
//! the tar headers in the frames are compared with the index, since other tools believe the headers. What [`Bundle`]
//! checks while opening (trailer, manifest, slot) is not repeated here.

use std::{
    io,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use coracle_format::{Frame, Index, Kind, SKIPPABLE_HEADER_LEN, hex, sha256, tar};

use crate::{Bundle, FrameReader, MAX_INDEX, OpenError, to_len};

/// A bundle is not what it was when it was built.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot even be opened: the error says which part is to blame.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stub cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The bundle.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Parts are damaged.
    #[error("{}: {}: the file is damaged or was changed: copy or build it again", path.display(), list(damage))]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// What is wrong, in file order.
        damage: Vec<String>,
    },
}

/// What was found whole.
#[derive(Debug, Clone, Copy)]
pub struct Verified {
    /// Length of the file.
    pub total: u64,
    /// Frames of the payload.
    pub frames: usize,
    /// Files of the index.
    pub entries: usize,
}

/// Checks the bundle at `path`.
///
/// # Errors
/// [`VerifyError`] names every damaged region.
pub fn verify(path: &Path, jobs: NonZeroUsize) -> Result<Verified, VerifyError> {
    verify_open(&Bundle::open(path)?, jobs)
}

/// Checks an open bundle.
///
/// # Errors
/// As [`verify`].
pub fn verify_open(bundle: &Bundle, jobs: NonZeroUsize) -> Result<Verified, VerifyError> {
    let path = bundle.path();
    let mut damage = Vec::new();
    let read = |error| VerifyError::Read { path: path.to_owned(), error };
    damage.extend(check_stub(bundle).map_err(read)?);
    damage.extend(check_skippable(bundle).map_err(read)?);
    damage.extend(check_stored_index(bundle).map_err(read)?);
    if bundle.signatures().is_err() {
        damage.push("the signatures do not match their SHA-256".to_owned());
    }
    let index = match bundle.index() {
        Ok(index) => index,
        // Without the index nothing can be said of the frames.
        Err(error) if damage.is_empty() => return Err(error.into()),
        Err(_) => {
            damage.push("the index does not match its SHA-256".to_owned());
            return Err(VerifyError::Damaged { path: path.to_owned(), damage });
        }
    };
    damage.extend(check_manifest(bundle, &index));
    match expect(&index) {
        Ok(expected) => damage.extend(check_frames(bundle, &index, &expected, jobs)),
        Err(why) => damage.push(why),
    }
    if damage.is_empty() {
        Ok(Verified { total: bundle.trailer().total(), frames: index.frames.len(), entries: index.entries.len() })
    } else {
        Err(VerifyError::Damaged { path: path.to_owned(), damage })
    }
}

fn list(damage: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = damage.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if damage.len() > SHOWN {
        text.push_str(&format!("; and {} more damaged parts", damage.len() - SHOWN));
    }
    text
}

/// The stub, with its slot made bare again, against the manifest.
fn check_stub(bundle: &Bundle) -> io::Result<Option<String>> {
    let manifest = &bundle.manifest().stub;
    let Some(found) = bundle.stub_digest()? else {
        return Ok(Some("the manifest describes another stub".to_owned()));
    };
    Ok((hex(&found) != manifest.sha256)
        .then(|| format!("the stub (bytes 0 to {} of the file) does not match its SHA-256", manifest.len)))
}

/// The frame header that makes zstd pass over manifest, index and trailer.
fn check_skippable(bundle: &Bundle) -> io::Result<Option<String>> {
    let trailer = bundle.trailer();
    let mut found = [0; SKIPPABLE_HEADER_LEN];
    bundle.file().read_exact_at(&mut found, trailer.manifest.offset - SKIPPABLE_HEADER_LEN as u64)?;
    Ok((trailer.skippable_header() != Some(found))
        .then(|| "the header of the skippable frame after the payload is corrupt".to_owned()))
}

/// The index's bytes as they lie in the file: a zstd frame has bits that change nothing of what it holds.
fn check_stored_index(bundle: &Bundle) -> io::Result<Option<String>> {
    let region = bundle.trailer().index;
    let mut stored = vec![0; to_len(region.len.min(MAX_INDEX))];
    bundle.file().read_exact_at(&mut stored, region.offset)?;
    let found = hex(&sha256(&stored));
    Ok((found != bundle.manifest().index.stored_sha256)
        .then(|| "the index as stored does not match its SHA-256".to_owned()))
}

/// What the manifest repeats must be so.
fn check_manifest(bundle: &Bundle, index: &Index) -> Vec<String> {
    let (manifest, trailer) = (bundle.manifest(), bundle.trailer());
    let mut damage = Vec::new();
    if manifest.index.sha256 != hex(&trailer.index_digest) {
        damage.push("the manifest names another index".to_owned());
    }
    let size = |kind: &Kind| match kind {
        Kind::File { size, .. } => *size,
        _ => 0,
    };
    let unpacked = index.entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(size(&entry.kind)));
    if (manifest.payload.stored, manifest.payload.unpacked) != (trailer.payload.len, unpacked) {
        damage.push("the manifest gives other sizes than the index".to_owned());
    }
    damage
}

/// What a frame must hold beside the bytes of files, for which its digest vouches.
#[derive(Default)]
struct Expected {
    /// Offset in the frame, and the entry whose header is there.
    headers: Vec<(usize, usize)>,
    /// Offset and length of padding.
    zeros: Vec<(usize, usize)>,
    /// The first entry with anything in the frame.
    first: Option<usize>,
}

/// Walks the tar that the index describes through the frames.
fn expect(index: &Index) -> Result<Vec<Expected>, String> {
    let mut walk = Walk { frames: &index.frames, expected: Vec::new(), frame: 0, start: 0, position: 0 };
    walk.expected.resize_with(index.frames.len(), Expected::default);
    for (number, entry) in index.entries.iter().enumerate() {
        let path = || String::from_utf8_lossy(&entry.path).into_owned();
        let outside = || format!("the frames end before /{}", path());
        if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            continue;
        }
        let len = header_of(index, number).len();
        let at = walk.here(len).ok_or_else(outside)?;
        walk.expected[walk.frame].headers.push((at, number));
        walk.note(number);
        walk.position += len as u64;
        if let Kind::File { size, content } = entry.kind
            && size > 0
        {
            walk.here(1).ok_or_else(outside)?;
            if (walk.frame, walk.position - walk.start) != (content.frame as usize, u64::from(content.offset)) {
                return Err(format!("the index gives another place for /{} than the tar", path()));
            }
            walk.note(number);
            let end = walk.position.checked_add(size).ok_or_else(outside)?;
            while walk.advance(end) {
                walk.note(number);
            }
            let padding = end.next_multiple_of(512) - end;
            walk.zeros(padding).ok_or_else(outside)?;
        }
    }
    let total: u64 = index.frames.iter().map(|frame| u64::from(frame.len)).sum();
    match total.checked_sub(walk.position) {
        Some(rest @ 1024..) => walk.zeros(rest).ok_or("the tar's end is not in one frame")?,
        _ => return Err("the tar has no end".to_owned()),
    }
    Ok(walk.expected)
}

struct Walk<'a> {
    frames: &'a [Frame],
    expected: Vec<Expected>,
    /// The frame that holds `position`, and where it starts in the decompressed payload.
    frame: usize,
    start: u64,
    position: u64,
}

impl Walk<'_> {
    fn end(&self) -> u64 {
        self.start + self.frames.get(self.frame).map_or(0, |frame| u64::from(frame.len))
    }

    /// Goes to `position`, or as far as the next frame; whether there is more to go.
    fn advance(&mut self, position: u64) -> bool {
        if position <= self.end() || self.frame >= self.frames.len() {
            self.position = position;
            return false;
        }
        self.start = self.end();
        self.frame += 1;
        true
    }

    /// Offset in the frame of the next `len` bytes, which must lie in one frame.
    fn here(&mut self, len: usize) -> Option<usize> {
        while self.frame < self.frames.len() && self.position >= self.end() {
            self.start = self.end();
            self.frame += 1;
        }
        let fits = self.frame < self.frames.len() && self.position + len as u64 <= self.end();
        fits.then(|| usize::try_from(self.position - self.start).ok()).flatten()
    }

    fn zeros(&mut self, len: u64) -> Option<()> {
        let len_here = usize::try_from(len).ok()?;
        if len_here > 0 {
            let at = self.here(len_here)?;
            self.expected[self.frame].zeros.push((at, len_here));
            self.position += len;
        }
        Some(())
    }

    fn note(&mut self, entry: usize) {
        if let Some(expected) = self.expected.get_mut(self.frame) {
            expected.first.get_or_insert(entry);
        }
    }
}

fn header_of(index: &Index, entry: usize) -> Vec<u8> {
    tar::header(&index.entries[entry], |first| index.entries.get(first).map(|entry| &entry.path[..]))
}

/// Reads, digests and decompresses every frame, on several threads.
fn check_frames(bundle: &Bundle, index: &Index, expected: &[Expected], jobs: NonZeroUsize) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let damage = Mutex::new(Vec::new());
    let work = || {
        let mut reader = FrameReader::new(bundle.file(), bundle.payload_offset());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(frame), Some(expected)) = (index.frames.get(number), expected.get(number)) else { return };
            let why = match reader.plain(frame) {
                Ok(plain) => check_headers(index, expected, plain),
                Err(error) => Some(error.to_string()),
            };
            let Some(why) = why else { continue };
            let start = bundle.payload_offset() + frame.offset;
            let end = start + u64::from(frame.stored);
            let path = expected.first.map_or_else(
                || "the tar's end".to_owned(),
                |first| format!("/{}", String::from_utf8_lossy(&index.entries[first].path)),
            );
            let text =
                format!("frame {number} of the payload (bytes {start} to {end} of the file, from {path} on) {why}");
            damage.lock().unwrap_or_else(PoisonError::into_inner).push((number, text));
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.get().min(index.frames.len()) {
            scope.spawn(work);
        }
    });
    let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
    damage.sort();
    damage.into_iter().map(|(_, text)| text).collect()
}

fn check_headers(index: &Index, expected: &Expected, plain: &[u8]) -> Option<String> {
    for &(at, entry) in &expected.headers {
        if !plain[at..].starts_with(&header_of(index, entry)) {
            let path = String::from_utf8_lossy(&index.entries[entry].path);
            return Some(format!("has a tar header for /{path} that is not what the index says"));
        }
    }
    let clean = expected.zeros.iter().all(|&(at, len)| plain[at..at + len].iter().all(|byte| *byte == 0));
    (!clean).then(|| "has padding that is not zero".to_owned())
}
