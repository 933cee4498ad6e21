//! Edits of an engine in a container's tree: laid while nobody runs in it, and taken out again before another engine runs.
//!
//! ```text
//! edits/pristine/PATH    the files as they were, under their names in the tree
//! edits/laid.json        which files of the tree are the edited ones, and for which place; written last
//! ```
//!
//! A container's tree is its guest's to change, so it cannot stand beside an edited copy as an image's can: what is written
//! to one would be missing in the other. Hence there is one tree, and an edited file lies in it in place of the true one,
//! which is kept. An edited file that a guest replaced or wrote to is the guest's, and stays.
//!
//! Rules: only who has the container's lease alone lays edits or takes them out. `edits` without a whole `laid.json` is what
//! a killed command left, and is taken out by the next. Whoever reads a container's tree for others (export, clone, diff)
//! reads the true files ([`Container::edited`]).

mod lay;
mod owners;
mod plan;
mod times;

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::BorrowedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::PathBuf,
};

use coracle_api::{Laid, Loader};
use serde::{Deserialize, Serialize};

pub use lay::{EditError, ToEdit};
pub use plan::Plan;

use super::{Container, ContainerError, remove_tree};
use times::Times;

/// Directory of all this, in the container's.
const EDITS: &str = "edits";
const PRISTINE: &str = "pristine";
const LAID: &str = "laid.json";
/// Number of the form of `laid.json`.
const VERSION: u32 = 1;

/// What was laid.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    version: u32,
    /// The tree's own path, which is written in the edited files.
    place: PathBuf,
    loaders: Vec<Loader>,
    /// The edited files as they are on disk.
    files: BTreeSet<Seen>,
}

/// A file as stat(2) tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Seen {
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Seen {
    fn of(meta: &fs::Metadata) -> Self {
        Self { inode: meta.ino(), size: meta.size(), mtime: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// A file of a tree that is an edited one.
#[derive(Debug, Clone)]
pub struct Edited {
    /// Its name in the tree.
    pub path: PathBuf,
    /// The true file.
    pub pristine: PathBuf,
}

impl Container {
    pub(super) fn edits(&self) -> PathBuf {
        self.directory().join(EDITS)
    }

    /// Where the files are that have edited ones in their place; need not be there.
    #[must_use]
    pub fn kept_files(&self) -> PathBuf {
        self.edits().join(PRISTINE)
    }

    /// Whether there are edits in its tree, or the rest of some.
    #[must_use]
    pub fn has_edits(&self) -> bool {
        self.edits().is_dir()
    }

    /// The edits that are in its tree, whole and made for where it is.
    #[must_use]
    pub fn laid(&self) -> Option<Laid> {
        let record = self.record_of_edits()?;
        let place = fs::canonicalize(self.root()).ok()?;
        let pristine = self.kept_files();
        (record.place == place).then_some(Laid { pristine, loaders: record.loaders })
    }

    fn record_of_edits(&self) -> Option<Record> {
        let bytes = fs::read(self.edits().join(LAID)).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|record: &Record| record.version == VERSION)
    }

    /// What is wrong with its edits, if anything.
    #[must_use]
    pub fn damage_of_edits(&self) -> Option<String> {
        if !self.has_edits() {
            return None;
        }
        let mend = || format!("`coracle setup --execmode=F3 {}` lays them anew", self.short_id());
        match self.edited() {
            _ if self.record_of_edits().is_none() => {
                Some(format!("its edits for an engine were never whole, or their record is damaged: {}", mend()))
            }
            Err(error) => Some(format!("the files that were edited for an engine cannot be read: {error}: {}", mend())),
            Ok(_) => None,
        }
    }

    /// The files of its tree that are edited ones just now.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn edited(&self) -> Result<Vec<Edited>, ContainerError> {
        let (base, root) = (self.kept_files(), self.root());
        let record = self.record_of_edits();
        let mut edited = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            let there = base.join(&directory);
            let entries = match fs::read_dir(&there) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(ContainerError::file("read", &there))?,
            };
            for entry in entries {
                let entry = entry.map_err(ContainerError::file("read", &there))?;
                let path = directory.join(entry.file_name());
                let pristine = entry.path();
                let meta = fs::symlink_metadata(&pristine).map_err(ContainerError::file("look at", &pristine))?;
                if meta.is_dir() {
                    open.push(path);
                    continue;
                }
                // Removed by the guest, or its directory.
                let Ok(now) = fs::symlink_metadata(root.join(&path)) else { continue };
                let is_edited = match &record {
                    Some(record) => record.files.contains(&Seen::of(&now)),
                    // A maker that was killed: no guest has run since, so what is not the true file is the edited one.
                    None => now.ino() != meta.ino(),
                };
                if is_edited {
                    edited.push(Edited { path, pristine });
                }
            }
        }
        edited.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(edited)
    }

    /// Takes all edits out of its tree. `lease` is as in [`own`](Self::own).
    ///
    /// # Errors
    /// [`ContainerError::Running`] if something (else) runs in it, [`ContainerError::File`].
    pub fn take_out_edits(&self, lease: Option<BorrowedFd<'_>>) -> Result<bool, ContainerError> {
        if !self.has_edits() {
            return Ok(false);
        }
        self.alone(lease, |_| self.restore(true))?;
        Ok(true)
    }

    /// As [`take_out_edits`](Self::take_out_edits), for who has the container alone; the record of owners need not
    /// follow in a container that goes.
    pub(in crate::store::containers) fn restore(&self, stays: bool) -> Result<(), ContainerError> {
        let mut moved = Vec::new();
        let edited = self.edited()?;
        let shared = self.root() == self.view();
        for Edited { path, pristine } in &edited {
            let there = self.root().join(path);
            let failed = || ContainerError::file("restore", &there);
            let (now, mut then) =
                (fs::symlink_metadata(&there).map_err(failed())?, fs::symlink_metadata(pristine).map_err(failed())?);
            // A guest's chmod stays, and what the ledger says of the file.
            let same =
                (now.uid(), now.gid()) == (then.uid(), then.gid()) && (now.is_symlink() || now.mode() == then.mode());
            if !same {
                if shared {
                    // Of a view the true file is the image's.
                    then = lay::copy_away(pristine).map_err(failed())?;
                }
                std::os::unix::fs::lchown(pristine, Some(now.uid()), Some(now.gid())).map_err(failed())?;
                if !now.is_symlink() {
                    fs::set_permissions(pristine, fs::Permissions::from_mode(now.mode() & 0o7777)).map_err(failed())?;
                }
            }
            moved.push((now.ino(), then.ino()));
        }
        // Known twice does no harm, should this be broken off.
        if stays {
            owners::tell_of(&self.ledger(), &self.root(), &moved)
                .map_err(ContainerError::file("write", self.ledger()))?;
        }
        let mut times = Times::default();
        for Edited { path, pristine } in edited {
            let there = self.root().join(path);
            times.note(&there).map_err(ContainerError::file("look at", &there))?;
            fs::rename(&pristine, &there).map_err(ContainerError::file("restore", &there))?;
        }
        times.set_back();
        remove_tree(&self.edits())
    }
}
