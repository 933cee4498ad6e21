//! An image as every source gives it: a config, and what is still to be flattened.

use std::{fs::File, path::PathBuf, sync::Arc};

use coracle_format::{Defaults, ImageConfig, Provenance};

use crate::flatten::Tree;

/// An image, fetched and verified, not yet flattened.
#[derive(Debug)]
pub struct Image {
    /// How to run it.
    pub config: ImageConfig,
    /// What it is made of.
    pub content: Content,
    /// Where it came from.
    pub provenance: Provenance,
    /// Runtime options fixed by whoever built it, if it is a bundle.
    pub defaults: Defaults,
    /// Files without a name that `content` points into by way of `/proc/self/fd`: keep them until the image is flattened.
    /// (They are gone with the process, whatever ends it.)
    pub spools: Vec<Arc<File>>,
}

/// What an image is made of.
#[derive(Debug)]
pub enum Content {
    /// Layers, lowest first: most sources.
    Layers(Vec<Layer>),
    /// A tree that needs no flattening: a directory (`rootfs:DIR`) or a bundle.
    Tree(Tree),
}

/// One layer: a tar, possibly compressed, on local disk.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the blob as stored, `sha256:…`; for messages and provenance.
    pub digest: String,
    /// Digest of the uncompressed tar (the config's `diff_ids`), checked while flattening where known.
    pub diff_id: Option<String>,
    /// How the blob is compressed; recognised by its first bytes, whatever its media type says.
    pub compression: Compression,
    /// Where the bytes are.
    pub blob: Blob,
}

/// A run of bytes in a local file.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The file.
    pub file: PathBuf,
    /// Where the bytes start.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

/// Compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}
