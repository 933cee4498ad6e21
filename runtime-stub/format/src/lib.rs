//! The bytes of a bundle: the builder writes them, the stub and `coracle verify` read them, nobody else knows them.
//!
//! ```text
//! offset 0   stub        static ELF; the fixed slot in it (`slot`) tells P and the total length
//! P          payload     concatenated zstd frames; decompressed and joined they are one ordinary tar (`frame`)
//! I          one zstd skippable frame: manifest (JSON), index (zstd of `index`), signatures, trailer last (`trailer`)
//! ```
//!
//! A leaf crate without input or output: it turns structures into bytes and back. Decoding takes hostile bytes: every
//! length and reference is checked, nothing is allocated on a promise that the input does not keep.
//!
//! All integers are little-endian. Digests are SHA-256.

mod capture;
mod error;
mod fixup;
mod index;
mod manifest;
mod slot;
mod statement;
pub mod tar;
mod trailer;
mod wire;

pub use capture::{Capture, Reference};
pub use error::FormatError;
pub use fixup::{Edit, Fixup, FixupSet, MOST_GROWTH, MOST_SLOT};
pub use index::{Content, Entry, Frame, Index, Kind, Time, Xattr};
pub use manifest::{
    Defaults, Health, ImageConfig, IndexInfo, Manifest, PayloadInfo, Provenance, StubInfo, hex, parse_hex,
};
pub use slot::{SLOT_LEN, Slot};
pub use statement::statement;
pub use trailer::{Region, SKIPPABLE_HEADER_LEN, TRAILER_LEN, Trailer};

/// Version of the whole layout; a reader refuses any other. 2: signatures behind the index, and their digest in the trailer.
pub const FORMAT_VERSION: u32 = 2;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
