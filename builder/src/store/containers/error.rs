//! What can go wrong with containers: one line each.

use std::{io, path::PathBuf};

use crate::{source::reason, store::StoreError};

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Nothing of that name.
    #[error("no such container: {given}: see `coracle ps`")]
    NoSuch {
        /// What was asked for.
        given: String,
    },
    /// The beginning of several ids.
    #[error("{given} is the beginning of {count} containers' ids: write more of it")]
    Ambiguous {
        /// What was asked for.
        given: String,
        /// How many there are.
        count: usize,
    },
    /// A name that no container can have.
    #[error("{given:?} cannot name a container: {why}: use letters, digits, and _ . - after the first")]
    Name {
        /// What was asked for.
        given: String,
        /// Why not.
        why: &'static str,
    },
    /// Another container's name.
    #[error("the name {name} is taken by container {id}: choose another, or remove that container")]
    Taken {
        /// The name.
        name: String,
        /// The other's id, short.
        id: String,
    },
    /// It runs.
    #[error("container {container} is running: stop it first, or force removal with -f")]
    Running {
        /// Its name or id.
        container: String,
    },
    /// It is protected.
    #[error("container {container} is protected: lift that first with `coracle unprotect {container}`")]
    Protected {
        /// Its name or id.
        container: String,
    },
    /// Its settings cannot be understood.
    #[error(
        "container {id} is damaged: {why}: its files are in {root}: copy what you need, then `coracle rm -f {id}`",
        root = .root.display()
    )]
    Damaged {
        /// Its id.
        id: String,
        /// What is wrong.
        why: String,
        /// Its tree.
        root: PathBuf,
    },
    /// Its settings are of a later Coracle.
    #[error("container {id} was made by a newer Coracle (its settings have version {version}): use that one")]
    Newer {
        /// Its id.
        id: String,
        /// The version.
        version: u32,
    },
    /// Another command holds its lock.
    #[error("container {container} is being changed by another command, for longer than a minute: try again later")]
    Busy {
        /// Its name or id.
        container: String,
    },
    /// A file of the container.
    #[error("cannot {action} {path}: {}{}", reason(.cause), super::super::advice(.cause), path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Part of a tree that cannot be removed.
    #[error("cannot remove {path}: {}: it is out of the way, and `coracle prune` tries again", reason(.cause), path = .path.display())]
    Remove {
        /// What is left.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ContainerError {
    /// For `map_err`: what was tried on which file.
    pub(in crate::store) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File { action, path, cause }
    }
}
