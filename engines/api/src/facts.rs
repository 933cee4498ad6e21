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
    /// The loaders among [`interpreters`](Self::interpreters) that are in the tree and for its architecture, the one that
    /// most programs name first.
    pub loaders: Vec<Loader>,
    /// Engines for which the bundle has edits of the tree's files; a tree unpacked without them is of no use to these.
    pub edited_for: Vec<String>,
}

/// A dynamic loader of the tree, and where it looks for libraries.
///
/// All paths are guest paths without symbolic links, so that behind the directory of a tree they lead to the same file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loader {
    /// The file itself: `/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2`.
    pub path: String,
    /// Of which library it is the loader.
    pub libc: Libc,
    /// Directories of libraries, in the order in which this loader would look into them: those of its configuration and
    /// cache, those that absolute paths in libraries name, and those that are built into it.
    pub directories: Vec<String>,
    /// Other directories that absolute run paths of the tree's files name: an engine that runs these files as they are
    /// shows them behind the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// glibc's directory of character set converters (`gconv-modules` lies there).
    pub gconv: Option<String>,
    /// glibc's directory of locales.
    pub locales: Option<String>,
    /// There is a `locale-archive` in [`locales`](Self::locales), which `LOCPATH` would hide.
    pub locale_archive: bool,
}

/// Which C library.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Libc {
    /// The GNU C library.
    #[default]
    Glibc,
    /// musl, whose loader is the library itself.
    Musl,
}
