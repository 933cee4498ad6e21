//! ELF analysis: what engines ask of an image, and the edits that some need in its files. All of it happens here, once;
//! the node applies a list.
//!
//! # What an engine may rely on that runs from an edited tree (`preload`)
//!
//! VIEW is the edited tree's directory; all paths in [`ImageFacts::loaders`] are below it, without symbolic links.
//!
//! - Programs that name a loader of the image name VIEW's: executed by their host path they are loaded by the tree's own
//!   loader, at the length that an unedited one takes. They are those of mode `x` that are not in [`Report::left`]. All
//!   others (what appears later, too) can be run by `VIEW/loader PROGRAM`.
//! - VIEW's loaders have forgotten the host: they read no `/etc/ld.so.cache`, `/etc/ld.so.preload` or `/etc/ld-musl-*.path`,
//!   and have no directory of their own. So the engine **must** set `LD_LIBRARY_PATH` to VIEW + each of
//!   [`Loader::directories`], in that order, for every program (behind what the guest's own `LD_LIBRARY_PATH` names,
//!   as host paths).
//! - Absolute places in libraries and programs (`DT_RPATH`, `DT_RUNPATH`, `DT_NEEDED`) have become relative to them, and
//!   symbolic links to libraries relative; where a library's run path must win over `LD_LIBRARY_PATH`, it does.
//! - glibc's own files are opened by libc itself: `GCONV_PATH` = VIEW + [`Loader::gconv`] shows the tree's converters, and
//!   `LOCPATH` = VIEW + [`Loader::locales`] its locales; not with [`Loader::locale_archive`], which it hides.
//! - A file that was edited is longer than the pristine one by up to some kB, and other bytes are as they were but those
//!   that [`Report::edited`] tells of; mode, owner and times are the same.
//!
//! Static programs, scripts and programs of other machines are as they were.

mod bytes;
mod edits;
mod facts;
mod interpreter;
mod libraries;
mod links;
mod loader;
mod object;
mod paths;
mod report;
mod runpath;

use coracle_format::{Edit, ImageConfig};

pub use facts::FactsError;
pub(crate) use paths::resolve;
pub use report::{Line, Report};

use crate::flatten::Tree;
use coracle_api::ImageFacts;

/// The engine that edits are made for, by its contract name.
pub const PRELOAD: &str = "preload";

/// What a tree's programs are, and what becomes of them.
#[derive(Debug, Default)]
pub struct Analysis {
    /// For engines to decide by.
    pub facts: ImageFacts,
    /// For engines to apply.
    pub edits: Vec<EngineEdits>,
    /// For people.
    pub report: Report,
}

/// The edits of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEdits {
    /// Its contract name.
    pub engine: String,
    /// By path.
    pub files: Vec<FileEdits>,
}

/// The edits of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEdits {
    /// Its first name in the tree, in path order.
    pub path: Vec<u8>,
    /// By offset, without overlap.
    pub edits: Vec<(u64, Edit)>,
}

/// Looks at every program and library of a tree.
///
/// # Errors
/// A file could not be read.
pub fn analyse(tree: &Tree, config: &ImageConfig) -> Result<Analysis, FactsError> {
    let (facts, interpreters) = facts::facts(tree, config)?;
    edits::analyse(tree, facts, &interpreters)
}
