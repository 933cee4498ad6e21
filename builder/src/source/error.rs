//! What can go wrong between a source's name and its image. Every message is one line: what, why, what to do.

use std::{io, path::PathBuf};

use super::{UnbundleError, WalkError, platform::Platform, reference::ReferenceError, registry::RegistryError};
use crate::store::StoreError;

/// A source that gave no image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name was not understood.
    #[error("cannot understand the source {given:?}: {why}")]
    Name {
        /// As given.
        given: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// A reference was not understood.
    #[error("cannot understand the image name {given:?}: {why}")]
    Reference {
        /// As given.
        given: String,
        /// The part that is wrong.
        why: ReferenceError,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {}{advice}", reason(.cause), path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
        /// What to do, beginning with a colon, or nothing.
        advice: &'static str,
    },
    /// A document or archive is not what it should be.
    #[error("cannot read {what}: {why}")]
    Malformed {
        /// Which.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// Bytes do not have the digest that names them.
    #[error("{what} is damaged: its digest is {actual}, it should be {expected}: fetch or copy it again")]
    Digest {
        /// Which.
        what: String,
        /// The digest that names it.
        expected: String,
        /// The digest it has.
        actual: String,
    },
    /// Nothing here runs that platform.
    #[error("cannot run {wanted}: this version has stubs for linux/amd64 and linux/386 only: choose one of them with --platform{}", offers(.has))]
    NotRunnable {
        /// What was asked for.
        wanted: Platform,
        /// What the image has, if that is known.
        has: Vec<Platform>,
    },
    /// The image does not have the platform.
    #[error("{image} has no image for {wanted}{}: choose another with --platform", instead(.has))]
    NoPlatform {
        /// The image.
        image: String,
        /// What was asked for.
        wanted: Platform,
        /// What it has.
        has: Vec<Platform>,
    },
    /// An archive or layout holds several images.
    #[error("{what} holds several images: {}: choose one with {hint}", names.join(", "))]
    Several {
        /// The file or directory.
        what: String,
        /// Their names.
        names: Vec<String>,
        /// How to choose.
        hint: String,
    },
    /// An archive or layout does not hold the image.
    #[error("{what} has no image {wanted:?}: it has {}", if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") })]
    NotThere {
        /// The file or directory.
        what: String,
        /// What was asked for.
        wanted: String,
        /// What it has.
        names: Vec<String>,
    },
    /// Something that images may be, and that this version does not take.
    #[error("cannot use {what}: {why}")]
    Unsupported {
        /// Which.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// `--pull=never`, and it never was.
    #[error(
        "{image} for {platform} is not in the store: --pull=never forbids to fetch it: pull it first, or leave that option out"
    )]
    NotPulled {
        /// The image.
        image: String,
        /// The platform.
        platform: Platform,
    },
    /// The daemon.
    #[error("cannot get {image} from a Docker or Podman daemon: {why}")]
    Daemon {
        /// The image.
        image: String,
        /// Why, and what to do.
        why: String,
    },
    /// A directory.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A bundle.
    #[error(transparent)]
    Unbundle(#[from] UnbundleError),
    /// A stream decompresses to more than may be.
    #[error("{what} has more than {limit} decompressed bytes: if it is to be trusted, raise --limit-size")]
    Limit {
        /// Which.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SourceError {
    /// A file that could not be read or written; says what to do where that is clear.
    pub fn file(action: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        let advice = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ": free some space, or set TMPDIR to a larger disk"
            }
            io::ErrorKind::NotFound => ": check the spelling",
            _ => "",
        };
        Self::File { action, path: path.into(), cause, advice }
    }

    /// A document or archive that is not what it should be.
    pub fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        // A parser's message may quote what it read; keep it on one line and short.
        let why = why.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        Self::Malformed { what: what.into(), why }
    }
}

/// What the system said, without the error's number.
pub(crate) fn reason(cause: &io::Error) -> String {
    let text = cause.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn offers(platforms: &[Platform]) -> String {
    if platforms.is_empty() { String::new() } else { format!(" (the image has {})", list(platforms)) }
}

fn instead(platforms: &[Platform]) -> String {
    if platforms.is_empty() { String::new() } else { format!(", it has {}", list(platforms)) }
}
