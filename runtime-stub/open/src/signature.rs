//! Signatures of a bundle, in minisign's format (ed25519 over BLAKE2b-512): whose they are, and whether they still hold.
//!
//! They lie in the bundle between index and trailer, as text of four lines each, and sign `coracle_format::statement`. A
//! signature that holds says that stub, manifest and index are those that were signed; the frames of the payload are held to
//! the index when they are read.
//!
//! Rule: a file cannot vouch for itself. Only a program that was there before the bundle can find that a bundle is not
//! the one that somebody signed; asked of the bundle's own stub, the same check finds damage and mix-ups.

use std::{
    io,
    path::{Path, PathBuf},
};

use minisign_verify::{Error, Signature};

use crate::{Bundle, OpenError};

/// Lines of one signature.
const LINES: usize = 4;

/// A bundle that is not signed as it should be. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The key cannot be read.
    #[error("{}: cannot be read: {source}: give the public key that minisign or `coracle keygen` wrote", path.display())]
    ReadKey {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key is none.
    #[error("{}: is no public key of minisign's: give the .pub file, or the one line of it that begins with RW", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
    },
    /// The bundle cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody signed it.
    #[error("{}: is not signed: get it from where it is signed, or sign it with `coracle sign`", path.display())]
    Unsigned {
        /// The bundle.
        path: PathBuf,
    },
    /// Others signed it.
    #[error("{}: is signed, but not with the key {}: use the key of whoever signed it, if you trust them", path.display(), key.display())]
    OtherKey {
        /// The bundle.
        path: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It was changed since.
    #[error(
        "{}: is not what the owner of the key {} signed: it was damaged or changed: do not run it; copy it again",
        path.display(), key.display()
    )]
    Changed {
        /// The bundle.
        path: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// A public key that was read from a file.
#[derive(Debug)]
pub struct PublicKey {
    key: minisign_verify::PublicKey,
    path: PathBuf,
}

impl PublicKey {
    /// Reads a key: minisign's file of two lines, or the second of them alone.
    ///
    /// # Errors
    /// [`SignatureError::ReadKey`] and [`SignatureError::Key`].
    pub fn read(path: &Path) -> Result<Self, SignatureError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SignatureError::ReadKey { path: path.to_owned(), source })?;
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let key =
            minisign_verify::PublicKey::from_base64(line).map_err(|_| SignatureError::Key { path: path.to_owned() })?;
        Ok(Self { key, path: path.to_owned() })
    }
}

/// The signatures in the text that a bundle holds, one string each.
pub fn split_signatures(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = text.lines().collect();
    let one = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect();
    lines.chunks(LINES).map(one).collect::<Vec<String>>().into_iter()
}

/// Checks that the owner of `key` signed the stub, the manifest and the index that the file holds. Returns the signature's
/// comment, which is signed too.
///
/// # Errors
/// [`SignatureError`] tells a bundle that nobody signed, one that others signed and one that was changed apart.
pub fn verify_signature(bundle: &Bundle, key: &PublicKey) -> Result<String, SignatureError> {
    let path = || bundle.path().to_owned();
    let changed = || SignatureError::Changed { path: path(), key: key.path.clone() };
    let text = bundle.signatures()?;
    if text.is_empty() {
        return Err(SignatureError::Unsigned { path: path() });
    }
    let statement = bundle.statement().map_err(|source| OpenError::read(bundle.path(), source))?;
    let Some(statement) = statement else { return Err(changed()) };
    let mut error = SignatureError::OtherKey { path: path(), key: key.path.clone() };
    for one in split_signatures(&text) {
        let verified = Signature::decode(&one).and_then(|signature| {
            key.key.verify(statement.as_bytes(), &signature, false)?;
            Ok(signature.trusted_comment().to_owned())
        });
        match verified {
            Ok(comment) => {
                // The trailer's digest of the index, which the statement has, is of the decompressed one.
                bundle.index_bytes()?;
                return Ok(comment);
            }
            Err(Error::UnexpectedKeyId) => {}
            Err(_) => error = changed(),
        }
    }
    Err(error)
}
