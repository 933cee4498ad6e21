//! Signatures put into a bundle: a copy of the file, with the signatures and a trailer that knows of them at its end.
//!
//! Nothing that a signature covers changes: not the manifest, not the index, not the stub but for the slot, which holds the
//! length of the file. So several may sign one after the other, and a signature can be taken out again.

use std::{
    fs::File,
    io::{self, Cursor, Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
};

use coracle_format::{SKIPPABLE_HEADER_LEN, Slot, sha256};
use coracle_open::{Bundle, MAX_SIGNATURES, OpenError, split_signatures};
use minisign::{SecretKey, SignatureBox};

/// A bundle that cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its stub is not what its manifest says.
    #[error("it is damaged: its stub is not what its manifest says: build it again")]
    Damaged,
    /// The library refused.
    #[error("it cannot be signed: {0}")]
    Sign(String),
    /// More signatures than a bundle may hold.
    #[error("it has too many signatures")]
    TooMany,
    /// The output cannot be written.
    #[error("the signed bundle cannot be written")]
    Write(#[source] io::Error),
}

/// Writes `bundle` to `out` with one signature more; an earlier one by the same key is replaced. `comment` is signed too.
///
/// # Errors
/// [`SignError`].
pub fn sign(bundle: &Bundle, key: &SecretKey, comment: &str, out: &File) -> Result<(), SignError> {
    let statement = bundle.statement().map_err(SignError::Write)?.ok_or(SignError::Damaged)?;
    let refused = |error: minisign::PError| SignError::Sign(error.to_string());
    let comment: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let untrusted = "signature of a coracle bundle";
    let signature =
        minisign::sign(None, key, Cursor::new(&statement), Some(&comment), Some(untrusted)).map_err(refused)?;
    let mut text: String = split_signatures(&bundle.signatures()?)
        .filter(|one| SignatureBox::from_string(one).is_ok_and(|one| one.keynum() != key.keynum()))
        .collect();
    text.push_str(&signature.to_string());
    if text.len() as u64 > MAX_SIGNATURES {
        return Err(SignError::TooMany);
    }
    write(bundle, &text, out).map_err(SignError::Write)
}

fn write(bundle: &Bundle, signatures: &str, out: &File) -> io::Result<()> {
    let mut trailer = *bundle.trailer();
    trailer.signatures_len = signatures.len() as u64;
    trailer.signatures_digest = sha256(signatures.as_bytes());
    let mut from = bundle.file();
    from.rewind()?;
    let mut to = out;
    // The standard library copies from file to file in the kernel.
    let copied = io::copy(&mut from.take(trailer.signatures().offset), &mut to)?;
    if copied != trailer.signatures().offset {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(signatures.as_bytes())?;
    to.write_all(&trailer.encode())?;
    let too_long = || io::Error::from(io::ErrorKind::FileTooLarge);
    let header = trailer.skippable_header().ok_or_else(too_long)?;
    to.write_all_at(&header, trailer.manifest.offset - SKIPPABLE_HEADER_LEN as u64)?;
    let slot = Slot { payload: trailer.payload.offset, total: trailer.total() };
    to.write_all_at(&slot.encode(), bundle.manifest().stub.slot)
}
