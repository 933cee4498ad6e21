//! What a signature signs: the three digests on which every byte of a bundle hangs.
//!
//! Text, so that people can read it and other tools can make it: the stub (with a bare slot, since signing changes the
//! length that the slot holds), the manifest, and the index, which has the digest of every frame. What this leaves out, the
//! slot and the trailer, is checked against the file whenever a bundle is opened.

use crate::{Digest, hex};

/// The bytes to sign.
#[must_use]
pub fn statement(stub: &Digest, manifest: &Digest, index: &Digest) -> String {
    let lines = [("stub", stub), ("manifest", manifest), ("index", index)];
    lines.iter().fold("coracle bundle, version 1\n".to_owned(), |mut text, (part, digest)| {
        text.push_str(&format!("{part} sha256:{}\n", hex(digest)));
        text
    })
}
