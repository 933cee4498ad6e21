//! A container's tree read back, with the owners and modes that it should have.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{sys::stat::SFlag, unistd::Uid};

use super::owners::{Owner, Owners};
use crate::{
    flatten::{Data, Inode, InodeKind, Tree},
    source::{self, WalkError, WalkOptions, reason, walk},
    store::containers::Container,
};

/// A container's tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The tree.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The list of owners.
    #[error("cannot read {path}: {}: without it (remove it) all files belong to root", reason(.cause), path = .path.display())]
    Owners {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
}

/// Reads a container's tree.
///
/// # Errors
/// [`ReadError`].
pub fn read_container(container: &Container) -> Result<Tree, ReadError> {
    let path = container.owners();
    let owners = Owners::load(&path).map_err(|cause| ReadError::Owners { path, cause })?;
    Ok(read(&container.root(), &owners)?)
}

/// Reads the tree at `root`. What belongs to the tree's own user is root's, unless the list says otherwise.
///
/// # Errors
/// A file or directory that cannot be read.
pub fn read(root: &Path, owners: &Owners) -> Result<Tree, WalkError> {
    // Root keeps true owners on disk.
    let kept = if Uid::effective().is_root() { source::Owners::Kept } else { source::Owners::Mapped };
    let mut tree = walk(root, WalkOptions { skip_unreadable: false, owners: kept })?;
    for (path, owner) in owners.iter() {
        if let Some(id) = tree.paths.get(path).copied() {
            apply(tree.inode_mut(id), owner);
        }
    }
    Ok(tree)
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
