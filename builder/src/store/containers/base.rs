//! Containers that stand on an image's tree (`crate::store::trees::image`), and hold no more than what they have
//! changed of it.
//!
//! ```text
//! containers/ID/changes/         the directory that engines get for a copy-on-write run
//!     upper/ work/               an overlay's, of the engine `namespaces`
//!     view/                      or hard links, of engines that intercept
//! containers/ID/ROOT/            if it is there it counts, and `changes` is what a crash has left of the time before
//! ```
//!
//! An overlay's changes and a view do not turn into each other: an engine that cannot use what there is gets a tree of the
//! container's own ([`Container::own`]), which any engine can use. It is put together beside, and appears by one rename.

use std::{
    fs, io,
    num::NonZero,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{Changing, Container, ContainerError, Draft, ROOT, Settings, Sharing, remove_tree};
use crate::store::{
    lock, replace,
    trees::{self, ReadError, UnpackError, Whose, image},
    usage::{disk_use, disk_use_unshared},
};

/// Where an overlay's changes are.
const UPPER: &str = "changes/upper";
/// Where a view's tree is.
const VIEW: &str = "changes/view/root";
/// Where a tree of its own is put together.
const DRAFT: &str = "own-new";

/// File systems of a node's own that an overlay can have its changes on (statfs(2)): ext4, xfs, btrfs, tmpfs, f2fs,
/// bcachefs. On one that nodes share, two of them would each mount an overlay, and know nothing of each other.
const LOCAL: [i64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e];

/// The layers of a container that stands on an image's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The image's tree.
    pub lower: PathBuf,
    /// Changes, in overlayfs's form; need not be there.
    pub upper: PathBuf,
    /// What engines get.
    pub changes: PathBuf,
}

/// A tree of its own cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// What there is cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its files cannot be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Whether containers in this directory can have their changes in overlays.
#[must_use]
pub fn may_overlay(directory: &Path) -> bool {
    // What an overlay marks, an ordinary user's keeps in attributes.
    const PROBE: &str = "user.coracle.probe";
    is_local(directory) && xattr::set(directory, PROBE, b"y").is_ok() && xattr::remove(directory, PROBE).is_ok()
}

/// Whether a directory is on a file system of this node's own, as far as is known.
pub(in crate::store) fn is_local(directory: &Path) -> bool {
    nix::sys::statfs::statfs(directory)
        .is_ok_and(|found| LOCAL.iter().any(|magic| i128::from(found.filesystem_type().0) == i128::from(*magic)))
}

impl Draft<'_> {
    /// Has the container stand on an image's tree instead of having one.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn stand_on(&self, tree: &trees::ImageTree, settings: &mut Settings) -> Result<(), ContainerError> {
        let root = self.root();
        fs::remove_dir(&root).map_err(ContainerError::file("remove", &root))?;
        let changes = self.directory().join("changes");
        let made = fs::DirBuilder::new().mode(0o700).create(&changes);
        made.map_err(ContainerError::file("make", &changes))?;
        let owners = self.directory().join("owners");
        match fs::hard_link(tree.owners(), &owners) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file system without links; or too many of them.
            Err(_) => {
                fs::copy(tree.owners(), &owners).map_err(ContainerError::file("write", &owners))?;
            }
            Ok(()) => {}
        }
        settings.base = Some(tree.name().to_owned());
        Ok(())
    }
}

impl Container {
    pub(super) fn view(&self) -> PathBuf {
        self.directory.join(VIEW)
    }

    /// Where a tree of its own is, or would be.
    #[must_use]
    pub fn own_root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// The layers that its tree is made of, unless it has a tree of its own.
    #[must_use]
    pub fn stands_on(&self, settings: &Settings) -> Option<Layers> {
        let base = settings.base.as_deref()?;
        if self.directory.join(ROOT).is_dir() {
            return None;
        }
        let lower = image::of_container(&self.directory, base).join("root");
        Some(Layers { lower, upper: self.directory.join(UPPER), changes: self.directory.join("changes") })
    }

    /// How its files share their bytes with others' now.
    #[must_use]
    pub fn sharing(&self, settings: &Settings) -> Sharing {
        match self.stands_on(settings) {
            None if settings.base.is_some() => Sharing::Copy,
            None => settings.sharing,
            Some(_) if self.view().is_dir() => Sharing::Hardlink,
            Some(layers) if fs::read_dir(&layers.upper).is_ok_and(|mut names| names.next().is_some()) => {
                Sharing::Overlay
            }
            Some(_) => Sharing::Image,
        }
    }

    /// Bytes on disk that are its own alone, and of all that is seen inside.
    #[must_use]
    pub fn disk_use(&self, settings: &Settings) -> (u64, u64) {
        match self.stands_on(settings) {
            Some(layers) if !self.root().is_dir() => {
                let changed = disk_use(&layers.upper).1;
                (changed, changed + disk_use(&layers.lower).1)
            }
            _ => {
                let root = self.root();
                let (own, all) = match self.sharing(settings) {
                    Sharing::Reflink => disk_use_unshared(&root),
                    _ => disk_use(&root),
                };
                // Those of a view are the image's.
                let (kept, _) = disk_use(&self.kept_files());
                (own + kept, all + kept)
            }
        }
    }

    /// Gives it a tree of its own, if it has none. `lease` is a descriptor with the container's lease, if the caller has it
    /// already; it is left shared. With `keep`, root gives files to those whose they are (as it does when it makes a
    /// container); otherwise only the list of owners says it, as for an ordinary user.
    ///
    /// # Errors
    /// [`ContainerError::Running`] if something (else) runs in it; [`OwnError`].
    pub fn own(
        &self,
        lease: Option<std::os::fd::BorrowedFd<'_>>,
        keep: bool,
        threads: NonZero<usize>,
    ) -> Result<bool, OwnError> {
        self.alone(lease, |changing| {
            if self.settings()?.base.is_none() {
                return Ok(false);
            }
            self.make_own(changing, keep, threads).map(|()| true)
        })
    }

    /// Does something while nothing (else) runs in it. `lease` is a descriptor with its lease, if the caller has that
    /// already; it is left shared.
    pub(super) fn alone<T, E: From<ContainerError>>(
        &self,
        lease: Option<std::os::fd::BorrowedFd<'_>>,
        act: impl FnOnce(&Changing) -> Result<T, E>,
    ) -> Result<T, E> {
        let changing = self.lock()?;
        let running = || ContainerError::Running { container: self.short_id().to_owned() };
        let Some(lease) = lease else {
            let _lease = self.lease_alone()?.ok_or_else(running)?;
            return act(&changing);
        };
        let file = fs::File::from(lease.try_clone_to_owned().map_err(ContainerError::file("lock", "the lease"))?);
        let alone = lock::try_exclusive(&file).map_err(ContainerError::file("lock", "the lease"))?;
        let done = if alone == lock::Try::Busy { Err(running().into()) } else { act(&changing) };
        // The lock is the descriptor's, which the copy shares.
        lock::try_shared(&file).map_err(ContainerError::file("lock", "the lease"))?;
        done
    }

    fn make_own(&self, _changing: &Changing, keep: bool, threads: NonZero<usize>) -> Result<(), OwnError> {
        let mut settings = self.settings()?;
        let draft = self.directory.join(DRAFT);
        let root = self.directory.join(ROOT);
        let mut sharing = settings.sharing;
        if !root.is_dir() {
            remove_tree(&draft)?;
            let attempt = || -> Result<Sharing, OwnError> {
                let tree = trees::read_container(self)?;
                fs::create_dir(&draft).map_err(ContainerError::file("make", &draft))?;
                let whose = if keep { Whose::Theirs } else { Whose::Callers };
                let unpacked = trees::unpack_as(&tree, &draft, whose, threads)?;
                // This list is as true of what there is now, so it may come first; it says all that the ledger did.
                let owners = self.owners();
                replace(&owners, &unpacked.owners.encode(), 0o600).map_err(ContainerError::file("write", &owners))?;
                match fs::remove_file(self.ledger()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(ContainerError::file("remove", self.ledger())(error))?;
                    }
                    _ => {}
                }
                fs::rename(&draft, &root).map_err(ContainerError::file("rename", &draft))?;
                Ok(if unpacked.cloned { Sharing::Reflink } else { Sharing::Copy })
            };
            match attempt() {
                Ok(shared) => sharing = shared,
                Err(error) => {
                    let _ = remove_tree(&draft);
                    return Err(error);
                }
            }
        }
        settings.base = None;
        settings.sharing = sharing;
        settings.version = settings.form();
        let path = self.directory.join("container.json");
        replace(&path, &settings.encode(), 0o600).map_err(ContainerError::file("write", &path))?;
        remove_tree(&self.directory.join("changes"))?;
        // Those of the view.
        Ok(remove_tree(&self.edits())?)
    }
}
