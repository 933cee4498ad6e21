//! A container's tree read back, with the owners and modes that it should have.

use std::{
    io,
    num::NonZero,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::{sys::stat::SFlag, unistd::Uid};

use super::{
    merge,
    owners::{Owner, Owners},
    told,
    unpack::{UnpackError, unpack},
};
use crate::{
    flatten::{Data, Inode, InodeKind, Tree},
    source::{self, WalkError, WalkOptions, reason, walk},
    store::containers::{Container, ContainerError, edits::Edited},
};

/// A container's tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The tree.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The settings.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The ledger of root emulation.
    #[error("cannot read {path}: {}: without it (remove it) files have the owners that the image gave them", reason(.cause), path = .path.display())]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
    /// The list of owners.
    #[error("cannot read {path}: {}: without it (remove it) all files belong to root", reason(.cause), path = .path.display())]
    Owners {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
}

/// Reads a container's tree, with owners, modes and devices as its programs see them.
///
/// # Errors
/// [`ReadError`].
pub fn read_container(container: &Container) -> Result<Tree, ReadError> {
    let mut tree = match container.stands_on(&container.settings()?) {
        Some(layers) if !container.root().is_dir() => {
            let lower = walked(&layers.lower)?;
            if layers.upper.is_dir() { merge::over(lower, walked(&layers.upper)?) } else { lower }
        }
        _ => {
            let mut tree = walked(&container.root())?;
            for file in container.edited()? {
                as_it_was(&mut tree, &file)?;
            }
            let path = container.ledger();
            match told::apply(&mut tree, &container.root(), &path) {
                Ok(true) => return Ok(tree),
                Ok(false) => {}
                Err(cause) => return Err(ReadError::Ledger { path, cause }),
            }
            tree
        }
    };
    let path = container.owners();
    let owners = Owners::load(&path).map_err(|cause| ReadError::Owners { path, cause })?;
    own(&mut tree, &owners);
    Ok(tree)
}

/// Gives an edited file the content of the true one.
fn as_it_was(tree: &mut Tree, file: &Edited) -> Result<(), ReadError> {
    let Some(id) = tree.paths.get(file.path.as_os_str().as_bytes()).copied() else { return Ok(()) };
    let read = || {
        Ok(match std::fs::symlink_metadata(&file.pristine)? {
            meta if meta.is_symlink() => {
                InodeKind::Symlink(std::fs::read_link(&file.pristine)?.into_os_string().into_encoded_bytes())
            }
            meta => InodeKind::File { size: meta.len(), data: Data::Host(file.pristine.clone()) },
        })
    };
    tree.inode_mut(id).kind = read().map_err(ContainerError::file("read", &file.pristine))?;
    Ok(())
}

/// Part of a container's tree cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Reading it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing the copy.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Copies a directory of a container's tree into the empty directory `to`; one that is not there is empty.
///
/// # Errors
/// [`CopyError`].
pub fn copy_out(container: &Container, guest: &Path, to: &Path) -> Result<(), CopyError> {
    let tree = read_container(container)?;
    let path = guest.strip_prefix("/").unwrap_or(guest).as_os_str().as_bytes().to_vec();
    let Some(InodeKind::Directory) = tree.get(&path).map(|inode| &inode.kind) else { return Ok(()) };
    let Tree { paths, inodes, .. } = tree;
    let below = |full: Vec<u8>| {
        let rest = full.strip_prefix(path.as_slice())?;
        match rest {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ if path.is_empty() => Some(rest.to_vec()),
            _ => None,
        }
    };
    let paths = paths.into_iter().filter_map(|(full, id)| Some((below(full)?, id))).collect();
    unpack(&Tree { paths, inodes, notes: Vec::new() }, to, NonZero::<usize>::MIN)?;
    Ok(())
}

/// Reads the tree at `root`. What belongs to the tree's own user is root's, unless the list says otherwise.
///
/// # Errors
/// A file or directory that cannot be read.
pub fn read(root: &Path, owners: &Owners) -> Result<Tree, WalkError> {
    let mut tree = walked(root)?;
    own(&mut tree, owners);
    Ok(tree)
}

fn walked(root: &Path) -> Result<Tree, WalkError> {
    // Root keeps true owners on disk.
    let kept = if Uid::effective().is_root() { source::Owners::Kept } else { source::Owners::Mapped };
    walk(root, WalkOptions { skip_unreadable: false, owners: kept })
}

fn own(tree: &mut Tree, owners: &Owners) {
    for (path, owner) in owners.iter() {
        if let Some(id) = tree.paths.get(path).copied() {
            apply(tree.inode_mut(id), owner);
        }
    }
}

/// Gives an inode what the list says, if it still is what the list speaks of.
fn apply(inode: &mut Inode, owner: &Owner) {
    let (major, minor) = owner.device;
    let kind = SFlag::from_bits_truncate(owner.mode & SFlag::S_IFMT.bits());
    let empty = matches!(&inode.kind, InodeKind::File { size: 0, data: Data::Bytes(_) });
    let same = match &inode.kind {
        InodeKind::Directory => kind == SFlag::S_IFDIR,
        InodeKind::File { .. } if kind == SFlag::S_IFCHR && empty => {
            inode.kind = InodeKind::CharDevice(major, minor);
            true
        }
        InodeKind::File { .. } if kind == SFlag::S_IFBLK && empty => {
            inode.kind = InodeKind::BlockDevice(major, minor);
            true
        }
        InodeKind::File { .. } => kind == SFlag::S_IFREG,
        InodeKind::Symlink(_) => kind == SFlag::S_IFLNK,
        InodeKind::Fifo => kind == SFlag::S_IFIFO,
        InodeKind::CharDevice(..) => kind == SFlag::S_IFCHR,
        InodeKind::BlockDevice(..) => kind == SFlag::S_IFBLK,
    };
    if !same {
        return;
    }
    (inode.uid, inode.gid) = (owner.uid, owner.gid);
    let mode = u16::try_from(owner.mode & 0o7777).unwrap_or_default();
    // Another mode on disk than was written there: a guest has changed it, and that counts.
    let written = match inode.kind {
        InodeKind::Directory => (mode & 0o1777) | 0o700,
        InodeKind::CharDevice(..) | InodeKind::BlockDevice(..) => inode.mode,
        _ => (mode & 0o777) | 0o600,
    };
    if inode.mode == written {
        inode.mode = mode;
    }
}
