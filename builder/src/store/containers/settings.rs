//! What a container is, besides its tree: `container.json`.

use coracle_format::{ImageConfig, Provenance};
use serde::{Deserialize, Serialize};

/// Number of the form of `container.json` that this version reads and writes.
pub const SETTINGS_VERSION: u32 = 1;

/// A container's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// [`SETTINGS_VERSION`].
    pub version: u32,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The image as the user would name it (`alpine:3.20`), or what it was imported from.
    pub image: String,
    /// Where the tree came from: reference and digests.
    pub provenance: Provenance,
    /// How to run it: the image's config, with what `create` changed.
    pub config: ImageConfig,
    /// The engine set by `setup --execmode`, as the user named it (`P2`); none is `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// `rm` refuses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// How the tree's files came to be.
    pub sharing: Sharing,
    /// Options of `run` and `create` that `start` uses again; their form is that of the command line's plan for runs.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub options: serde_json::Value,
}

/// Whether a tree's files share their bytes with those of other containers of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Copies of its own.
    #[default]
    Copy,
    /// Clones that share blocks until either side is written: any engine may write into the tree.
    Reflink,
    /// Hard links to the image's tree: an engine must not write into a file that has other names outside the container,
    /// but replace it by a copy first.
    Hardlink,
}
