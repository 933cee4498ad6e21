//! The bundle as a file: this program's own, or one given by its path. The stub runs what it opens; the builder inspects
//! and verifies it, and takes it as a source.
//!
//! Opening reads the slot, the trailer and the manifest, and nothing else: that is all a warm start needs. The index is
//! read on demand. The running program's slot comes from its own memory, where a shortened file cannot hide it.
//!
//! Everything read is hostile until its digest was checked, and within its own bounds afterwards.

mod diagnose;
mod error;
mod frames;
mod signature;
mod verify;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use coracle_format::{Digest, FormatError, Index, Manifest, SLOT_LEN, Slot, StubInfo, TRAILER_LEN, Trailer, sha256};

pub use error::OpenError;
pub use frames::{FrameError, FrameReader, MAX_FRAME};
pub use signature::{PublicKey, SignatureError, split_signatures, verify_signature};
pub use verify::{Verified, VerifyError, verify, verify_open};

/// A manifest is a few kilobytes; a longer one than this is damage or malice.
const MAX_MANIFEST: u64 = 16 << 20;

/// Stubs have a few megabytes.
const MAX_STUB: u64 = 1 << 30;

/// A signature has about 350 bytes.
pub const MAX_SIGNATURES: u64 = 1 << 20;

/// An index of ten million files stays below this.
const MAX_INDEX: u64 = 2 << 30;

/// An open bundle whose trailer and manifest were checked.
#[derive(Debug)]
pub struct Bundle {
    file: File,
    path: PathBuf,
    trailer: Trailer,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the running program's own file, given the slot in its memory.
    ///
    /// # Errors
    /// [`OpenError`] tells a bare stub, a stripped, a shortened and a damaged file apart.
    pub fn open_self(slot: Result<Slot, FormatError>) -> Result<Self, OpenError> {
        // The link's text is for messages; opening the link itself reaches the right file even when it was renamed.
        let link = Path::new("/proc/self/exe");
        let path = std::fs::read_link(link).unwrap_or_else(|_| link.to_owned());
        let slot = slot.map_err(|source| OpenError::format(&path, source))?;
        if slot.payload == 0 {
            return Err(OpenError::Bare { path });
        }
        let file = File::open(link).or_else(|_| File::open(&path)).map_err(|source| OpenError::read(&path, source))?;
        Self::from_slot(file, path, slot)
    }

    /// Opens the bundle at `path`, which need not be this program.
    ///
    /// # Errors
    /// As [`Bundle::open_self`], and [`OpenError::NotABundle`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(|source| OpenError::read(path, source))?;
        Self::of_file(file, path)
    }

    /// An open file as a bundle, which messages call by this path, or by what people call it.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn of_file(file: File, path: &Path) -> Result<Self, OpenError> {
        let len = file.metadata().map_err(|source| OpenError::read(path, source))?.len();
        // A whole bundle leads from its trailer to its manifest to its slot. Only a damaged one needs a search.
        let slot = match Self::slot_by_manifest(&file, path, len) {
            Ok(slot) => slot,
            Err(error @ (OpenError::Slot { .. } | OpenError::Version { .. })) => return Err(error),
            Err(_) => diagnose::find_slot(&file, path)?,
        };
        if slot.payload == 0 {
            return Err(OpenError::Bare { path: path.to_owned() });
        }
        Self::from_slot(file, path.to_owned(), slot)
    }

    fn slot_by_manifest(file: &File, path: &Path, len: u64) -> Result<Slot, OpenError> {
        let trailer = read_trailer(file, path, len)?;
        let manifest = read_manifest(file, path, &trailer)?;
        let slot = Slot { payload: trailer.payload.offset, total: len };
        let mut bytes = [0; SLOT_LEN];
        file.read_exact_at(&mut bytes, manifest.stub.slot).map_err(|source| OpenError::read(path, source))?;
        if bytes == slot.encode() { Ok(slot) } else { Err(OpenError::Slot { path: path.to_owned() }) }
    }

    fn from_slot(file: File, path: PathBuf, slot: Slot) -> Result<Self, OpenError> {
        let len = file.metadata().map_err(|source| OpenError::read(&path, source))?.len();
        if len != slot.total {
            return Err(diagnose::wrong_length(&file, path, len, slot));
        }
        let trailer = read_trailer(&file, &path, len)?;
        if trailer.payload.offset != slot.payload {
            let why = "it does not say what the slot says".to_owned();
            return Err(OpenError::format(&path, FormatError::Corrupt { part: "trailer", why }));
        }
        let manifest = read_manifest(&file, &path, &trailer)?;
        Ok(Self { file, path, trailer, manifest })
    }

    /// The file's name, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the parts are.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// How to start it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names the bundle as a whole, settings included.
    #[must_use]
    pub fn manifest_digest(&self) -> &Digest {
        &self.trailer.manifest_digest
    }

    /// Names the tree.
    #[must_use]
    pub fn index_digest(&self) -> &Digest {
        &self.trailer.index_digest
    }

    /// P: `tail -c +$((P+1)) FILE | zstd -d` is the tree's tar.
    #[must_use]
    pub fn payload_offset(&self) -> u64 {
        self.trailer.payload.offset
    }

    /// SHA-256 of the stub as it lies in the file, but with a bare slot; `None` if the manifest describes another stub than
    /// can be there.
    ///
    /// # Errors
    /// As reading the file.
    pub fn stub_digest(&self) -> std::io::Result<Option<Digest>> {
        let StubInfo { len, slot, .. } = self.manifest.stub;
        let fits = slot.checked_add(SLOT_LEN as u64).is_some_and(|end| end <= len);
        if len != self.payload_offset() || !fits || len > MAX_STUB {
            return Ok(None);
        }
        let mut stub = vec![0; to_len(len)];
        self.file.read_exact_at(&mut stub, 0)?;
        if let Some(slot) = stub[to_len(slot)..].first_chunk_mut() {
            Slot::clear(slot);
        }
        Ok(Some(sha256(&stub)))
    }

    /// What a signature of this bundle signs; `None` as [`stub_digest`](Self::stub_digest).
    ///
    /// # Errors
    /// As reading the file.
    pub fn statement(&self) -> std::io::Result<Option<String>> {
        let stub = self.stub_digest()?;
        Ok(stub.map(|stub| coracle_format::statement(&stub, self.manifest_digest(), self.index_digest())))
    }

    /// The text of its signatures; empty if there are none.
    ///
    /// # Errors
    /// [`OpenError::Read`], or [`OpenError::Corrupt`] for what cannot be signatures.
    pub fn signatures(&self) -> Result<String, OpenError> {
        const PART: &str = "signatures";
        let region = self.trailer.signatures();
        let corrupt =
            |why: &str| OpenError::format(&self.path, FormatError::Corrupt { part: PART, why: why.to_owned() });
        if region.len > MAX_SIGNATURES {
            return Err(corrupt("they are longer than any signatures"));
        }
        let mut bytes = vec![0; to_len(region.len)];
        self.file.read_exact_at(&mut bytes, region.offset).map_err(|source| OpenError::read(&self.path, source))?;
        if sha256(&bytes) != self.trailer.signatures_digest {
            return Err(OpenError::format(&self.path, FormatError::Digest { part: PART }));
        }
        String::from_utf8(bytes).map_err(|_| corrupt("they are no text"))
    }

    /// Reads the index's bytes and checks their digest.
    ///
    /// # Errors
    /// [`OpenError::Read`] or [`OpenError::Corrupt`].
    pub fn index_bytes(&self) -> Result<Vec<u8>, OpenError> {
        const PART: &str = "index";
        let Trailer { index: region, index_len, .. } = self.trailer;
        let corrupt =
            |why: &str| OpenError::format(&self.path, FormatError::Corrupt { part: PART, why: why.to_owned() });
        if index_len > MAX_INDEX || region.len > MAX_INDEX {
            return Err(corrupt("it is longer than any index"));
        }
        let (stored_len, len) = (to_len(region.len), to_len(index_len));
        let mut stored = vec![0; stored_len];
        self.file.read_exact_at(&mut stored, region.offset).map_err(|source| OpenError::read(&self.path, source))?;
        // The decompressor stops at the end of the buffer, so a bomb gets no further than the length it announced.
        let mut bytes = vec![0; len];
        match zstd_safe::decompress(&mut bytes[..], &stored) {
            Ok(got) if got == len => {}
            Ok(_) => return Err(corrupt("its length is not what the trailer says")),
            Err(code) => return Err(corrupt(zstd_safe::get_error_name(code))),
        }
        if sha256(&bytes) != self.trailer.index_digest {
            return Err(OpenError::format(&self.path, FormatError::Digest { part: PART }));
        }
        Ok(bytes)
    }

    /// Reads, checks and decodes the index.
    ///
    /// # Errors
    /// As [`Bundle::index_bytes`], and for an index that breaks its rules.
    pub fn index(&self) -> Result<Index, OpenError> {
        self.decode_index(&self.index_bytes()?)
    }

    /// Decodes bytes that [`Bundle::index_bytes`] returned.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] for an index that breaks its rules or whose frames do not fill the payload.
    pub fn decode_index(&self, bytes: &[u8]) -> Result<Index, OpenError> {
        let index = Index::decode(bytes).map_err(|source| OpenError::format(&self.path, source))?;
        let end = index.frames.last().map_or(0, |frame| frame.offset + u64::from(frame.stored));
        if end != self.trailer.payload.len {
            let why = "its frames do not fill the payload".to_owned();
            return Err(OpenError::format(&self.path, FormatError::Corrupt { part: "index", why }));
        }
        Ok(index)
    }
}

fn read_trailer(file: &File, path: &Path, len: u64) -> Result<Trailer, OpenError> {
    let mut bytes = [0; TRAILER_LEN];
    let Some(start) = len.checked_sub(TRAILER_LEN as u64) else {
        return Err(OpenError::format(path, FormatError::Missing { part: "trailer" }));
    };
    file.read_exact_at(&mut bytes, start).map_err(|source| OpenError::read(path, source))?;
    Trailer::decode(&bytes, len).map_err(|source| OpenError::format(path, source))
}

fn read_manifest(file: &File, path: &Path, trailer: &Trailer) -> Result<Manifest, OpenError> {
    const PART: &str = "manifest";
    if trailer.manifest.len > MAX_MANIFEST {
        let why = "it is longer than any manifest".to_owned();
        return Err(OpenError::format(path, FormatError::Corrupt { part: PART, why }));
    }
    let mut bytes = vec![0; to_len(trailer.manifest.len)];
    file.read_exact_at(&mut bytes, trailer.manifest.offset).map_err(|source| OpenError::read(path, source))?;
    if sha256(&bytes) != trailer.manifest_digest {
        return Err(OpenError::format(path, FormatError::Digest { part: PART }));
    }
    Manifest::decode(&bytes).map_err(|source| OpenError::format(path, source))
}

/// A length as memory counts. What exceeds the address space fails where it is allocated or read.
fn to_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
