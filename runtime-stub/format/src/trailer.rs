//! The trailer: the last bytes of a bundle, from which everything else is found; and the skippable frame around it.
//!
//! A skippable frame (zstd format, RFC 8878 section 3.1.2) is passed over by every zstd decoder, so the file from P to
//! its end is one valid zstd stream.

use crate::{Digest, FORMAT_VERSION, FormatError, sha256, wire::Reader};

/// Length of the trailer in bytes.
pub const TRAILER_LEN: usize = 224;

/// Length of a skippable frame's header: magic number and content length.
pub const SKIPPABLE_HEADER_LEN: usize = 8;

const MAGIC: [u8; 8] = *b"CORACLE\n";
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5C;

/// Header of a skippable frame with `len` bytes of content.
fn skippable_header(len: u32) -> [u8; SKIPPABLE_HEADER_LEN] {
    let mut out = [0; SKIPPABLE_HEADER_LEN];
    out[..4].copy_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    out[4..].copy_from_slice(&len.to_le_bytes());
    out
}

/// Part of the file, as offset from its start and length, both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Offset from the start of the bundle.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Where the parts are, and the digests that everything else hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The concatenated zstd frames, from P.
    pub payload: Region,
    /// The manifest's JSON.
    pub manifest: Region,
    /// SHA-256 of the manifest's JSON.
    pub manifest_digest: Digest,
    /// The index as stored: one zstd frame.
    pub index: Region,
    /// Length of the index once decompressed.
    pub index_len: u64,
    /// SHA-256 of the decompressed index: it names the cache directory.
    pub index_digest: Digest,
    /// Length of the signatures, which lie between index and trailer; 0 in a bundle that nobody signed.
    pub signatures_len: u64,
    /// SHA-256 of the signatures' text: it tells damage from a signature that never held.
    pub signatures_digest: Digest,
}

impl Trailer {
    /// The trailer of a bundle that nobody has signed: behind its payload come these bytes of the manifest and of the index,
    /// which is stored as `stored`.
    #[must_use]
    pub fn unsigned(payload: Region, manifest: &[u8], index: &[u8], stored: &[u8]) -> Self {
        let offset = payload.offset + payload.len + SKIPPABLE_HEADER_LEN as u64;
        let manifest_region = Region { offset, len: manifest.len() as u64 };
        Self {
            payload,
            manifest: manifest_region,
            manifest_digest: sha256(manifest),
            index: Region { offset: offset + manifest_region.len, len: stored.len() as u64 },
            index_len: index.len() as u64,
            index_digest: sha256(index),
            signatures_len: 0,
            signatures_digest: sha256(b""),
        }
    }

    /// Where the signatures are.
    #[must_use]
    pub fn signatures(&self) -> Region {
        Region { offset: self.index.offset + self.index.len, len: self.signatures_len }
    }

    /// Length of the whole bundle in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.index.offset + self.index.len + self.signatures_len + TRAILER_LEN as u64
    }

    /// Header of the skippable frame around manifest, index, signatures and trailer; `None` if they are longer than such a
    /// frame can be.
    #[must_use]
    pub fn skippable_header(&self) -> Option<[u8; SKIPPABLE_HEADER_LEN]> {
        let len = self.total().checked_sub(self.manifest.offset)?;
        u32::try_from(len).ok().map(skippable_header)
    }

    /// The trailer's bytes; the last 32 are the digest of those before.
    #[must_use]
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = Vec::with_capacity(TRAILER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for region in [self.payload, self.manifest, self.index] {
            out.extend_from_slice(&region.offset.to_le_bytes());
            out.extend_from_slice(&region.len.to_le_bytes());
        }
        out.extend_from_slice(&self.index_len.to_le_bytes());
        out.extend_from_slice(&self.manifest_digest);
        out.extend_from_slice(&self.index_digest);
        out.extend_from_slice(&self.signatures_len.to_le_bytes());
        out.extend_from_slice(&self.signatures_digest);
        out.resize(TRAILER_LEN - 32, 0);
        let digest = sha256(&out);
        out.extend_from_slice(&digest);
        out.try_into().expect("the fields above fill the trailer exactly")
    }

    /// Reads the trailer of a bundle of `total` bytes, and checks that every region lies inside it, in order.
    ///
    /// # Errors
    /// No mark, another version, a wrong digest, or regions that cannot be.
    pub fn decode(bytes: &[u8; TRAILER_LEN], total: u64) -> Result<Self, FormatError> {
        const PART: &str = "trailer";
        let mut reader = Reader::new(bytes, PART);
        if reader.array::<8>()? != MAGIC {
            return Err(FormatError::Missing { part: PART });
        }
        let found = reader.u32()?;
        if found != FORMAT_VERSION {
            return Err(FormatError::Version { found, expected: FORMAT_VERSION });
        }
        if sha256(&bytes[..TRAILER_LEN - 32])[..] != bytes[TRAILER_LEN - 32..] {
            return Err(FormatError::Digest { part: PART });
        }
        reader.u32()?;
        let mut region = || Ok::<_, FormatError>(Region { offset: reader.u64()?, len: reader.u64()? });
        let (payload, manifest, index) = (region()?, region()?, region()?);
        let trailer = Self {
            payload,
            manifest,
            index,
            index_len: reader.u64()?,
            manifest_digest: reader.array()?,
            index_digest: reader.array()?,
            signatures_len: reader.u64()?,
            signatures_digest: reader.array()?,
        };
        let end = |region: Region| region.offset.checked_add(region.len);
        let ordered = end(payload).and_then(|end| end.checked_add(SKIPPABLE_HEADER_LEN as u64))
            == Some(manifest.offset)
            && end(manifest) == Some(index.offset)
            && end(index)
                .and_then(|end| end.checked_add(trailer.signatures_len))
                .and_then(|end| end.checked_add(TRAILER_LEN as u64))
                == Some(total);
        if ordered { Ok(trailer) } else { Err(FormatError::corrupt(PART, "its regions do not fill the file")) }
    }
}
