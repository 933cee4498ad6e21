//! What an engine may want to know of an image before it agrees to run it.

use serde::{Deserialize, Serialize};

/// Facts of an image, gathered once at build time and kept in the bundle's manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFacts {
    /// The image's architecture in OCI's words: `amd64`, `386`, `arm64`…
    pub architecture: String,
    /// Program interpreters found in the tree, such as `/lib/ld-musl-x86_64.so.1`, sorted.
    pub interpreters: Vec<String>,
    /// Statically linked programs found in the tree (guest paths, sorted); a preload engine cannot run these.
    pub static_programs: Vec<String>,
}
