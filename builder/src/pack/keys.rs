//! Secret keys in minisign's format: made, kept in files, read.
//!
//! A key without a password is what batch jobs and CI use; one with a password is encrypted by scrypt, which takes 1 GiB of
//! memory and some seconds, by minisign's choice.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use minisign::{KeyPair, SecretKey, SecretKeyBox};

/// A key that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key's file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A key's file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The file holds no secret key, or the password is wrong.
    #[error("{}: is no usable secret key: {why}: give the .key file of minisign or `coracle keygen`, and its password", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// As the library says it.
        why: String,
    },
    /// No random numbers, or no memory for scrypt.
    #[error("a key cannot be made: {0}")]
    Make(String),
}

/// Makes a key pair: `public` for everybody, `secret` (mode 0600) for whoever signs. Neither file may be there.
///
/// # Errors
/// [`KeyError`]; then neither file is there.
pub fn write_key_pair(secret: &Path, public: &Path, password: Option<String>) -> Result<(), KeyError> {
    let make = |error: minisign::PError| KeyError::Make(error.to_string());
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(make)?;
    let secret_text = pair.sk.to_box(Some("coracle secret key")).map_err(make)?.into_string();
    let public_text = pair.pk.to_box().map_err(make)?.into_string();
    create(secret, 0o600, &secret_text)?;
    create(public, 0o644, &public_text).inspect_err(|_| drop(fs::remove_file(secret)))
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let write = |error| KeyError::Write { path: path.to_owned(), error };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(write)?;
    file.write_all(text.as_bytes()).map_err(|error| {
        // What matters is why it could not be written.
        let _ = fs::remove_file(path);
        write(error)
    })
}

/// Reads a secret key; `password` is asked only for one that is encrypted.
///
/// # Errors
/// [`KeyError::Read`] and [`KeyError::Unusable`], or what `password` says.
pub fn read_secret_key<E: From<KeyError>>(
    path: &Path,
    password: impl FnOnce() -> Result<String, E>,
) -> Result<SecretKey, E> {
    let text = fs::read_to_string(path).map_err(|error| KeyError::Read { path: path.to_owned(), error })?;
    let unusable = |error: minisign::PError| KeyError::Unusable { path: path.to_owned(), why: error.to_string() };
    let boxed = || SecretKeyBox::from_string(&text).map_err(unusable);
    if let Ok(key) = boxed()?.into_unencrypted_secret_key() {
        return Ok(key);
    }
    if let Some(key) = without_checksum(&text) {
        return Ok(key);
    }
    let password = password()?;
    Ok(boxed()?.into_secret_key(Some(password)).map_err(unusable)?)
}

/// A key that is not encrypted, as minisign's own `-W` writes it: without the checksum that the library wants to see.
/// Layout: algorithm, key derivation and checksum algorithm (2 bytes each), salt, limits (48), key number and keys
/// (72), checksum (32).
fn without_checksum(text: &str) -> Option<SecretKey> {
    const CHECKSUM: usize = 6 + 48 + 72;
    let bytes = BASE64.decode(text.lines().nth(1)?.trim()).ok()?;
    let plain = bytes.get(2..4)? == [0, 0] && bytes.get(CHECKSUM..)? == [0; 32];
    if plain { SecretKey::from_bytes(&bytes).ok() } else { None }
}
