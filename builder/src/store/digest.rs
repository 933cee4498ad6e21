//! Digests as the image specification writes them (`sha256:…`), and their computation while bytes stream by.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::Path,
};

pub use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Computes one digest.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256: nearly all there are.
    Sha256(Sha256),
    /// SHA-384: registered with the specification's Go library.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher of the digest's own algorithm; `None` for one that nobody registered.
    #[must_use]
    pub fn like(digest: &Digest) -> Option<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Some(Self::Sha256(Sha256::new())),
            DigestAlgorithm::Sha384 => Some(Self::Sha384(Sha384::new())),
            DigestAlgorithm::Sha512 => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken in, with its algorithm.
    #[must_use]
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => written("sha256", &hasher.finalize()),
            Self::Sha384(hasher) => written("sha384", &hasher.finalize()),
            Self::Sha512(hasher) => written("sha512", &hasher.finalize()),
        }
    }
}

/// SHA-256 of some bytes, as `sha256:…`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    written("sha256", &Sha256::digest(bytes))
}

/// The digest that a file's bytes have by the algorithm of `like`, or `None` for an unknown algorithm.
///
/// # Errors
/// Those of opening and reading the file.
pub fn of_file(path: &Path, offset: u64, len: u64, like: &Digest) -> io::Result<Option<String>> {
    use std::os::unix::fs::FileExt as _;
    let Some(mut hasher) = Hasher::like(like) else { return Ok(None) };
    let file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    let (mut at, end) = (offset, offset.saturating_add(len));
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match file.read_at(&mut buffer[..want], at)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it should be")),
            read => {
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
    Ok(Some(hasher.finish()))
}

/// Feeds the first `len` bytes of `from` to the hasher.
///
/// # Errors
/// Those of reading, and a file that is shorter.
pub fn feed(hasher: &mut Hasher, mut from: impl Read, len: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..want])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                hasher.update(&buffer[..read]);
                left -= read as u64;
            }
        }
    }
    Ok(())
}

/// Whether a text is a digest that this program can check: a known algorithm, and as many lower-case hexadecimal digits as
/// it has.
#[must_use]
pub fn parse(text: &str) -> Option<Digest> {
    let digest: Digest = text.parse().ok()?;
    Hasher::like(&digest).map(|_| digest)
}

fn written(algorithm: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(format!("{algorithm}:"), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_digests_that_can_be_checked_parse() {
        assert!(parse(EMPTY).is_some());
        assert!(parse(&format!("sha512:{}", "a".repeat(128))).is_some());
        for bad in
            ["", "sha256", "sha256:", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", &EMPTY.to_uppercase()]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("sha256:{}", "A".repeat(64))).is_none(), "upper case");
        assert!(parse(&format!("sha256:../{}", "a".repeat(61))).is_none(), "not hexadecimal");
    }

    #[test]
    fn hashes_by_the_algorithm_asked_for() {
        assert_eq!(sha256(b""), EMPTY);
        let like = parse(&format!("sha512:{}", "0".repeat(128))).expect("a digest");
        let mut hasher = Hasher::like(&like).expect("known");
        hasher.update(b"abc");
        assert!(hasher.finish().starts_with("sha512:ddaf35a193617aba"));
    }
}
