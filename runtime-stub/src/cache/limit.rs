//! Keeping the cache within a size: what was used least recently goes first, and what a job uses stays.
//!
//! A tree's weight is written down when it is unpacked, as its files would take it on disks with blocks of 4 KiB; a tree
//! without one, of an older version, is measured. Who unpacks makes room before, and looks again after: two that unpack at
//! the same time do not see each other's.

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use coracle_format::{Index, Kind};
use nix::{
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, fstatat},
};

use super::{Cleaned, base::Base, lease::LEASE, roots, trust, unused, view};

const BLOCK: u64 = 4096;

/// What a tree takes on disk.
pub(super) fn weight(index: &Index) -> u64 {
    let block = |size: u64| size.div_ceil(BLOCK) * BLOCK;
    let entries = index.entries.iter().map(|entry| match &entry.kind {
        Kind::File { size, .. } => block(*size),
        Kind::Directory => BLOCK,
        _ => 0,
    });
    entries.sum()
}

/// What a payload will take, before its index was read; a little more than [`weight`] says of it.
pub(super) fn estimate(unpacked: u64, inodes: u64) -> u64 {
    unpacked.saturating_add(inodes.saturating_mul(BLOCK / 2))
}

/// A tree in the cache.
struct Kept {
    name: String,
    weight: u64,
    /// Seconds and nanoseconds of its last start.
    used: (i64, i64),
}

/// Removes trees that nobody uses, the least recently used one first, until all together weigh at most `most`. What was
/// removed, and by how much the others still exceed it.
pub(super) fn trim(base: &Base, most: u64) -> (Vec<Cleaned>, u64) {
    let (path, names) = unused::names(base);
    let mut kept: Vec<Kept> = names.into_iter().filter_map(|name| look(base, name)).collect();
    for tree in &mut kept {
        tree.weight = tree.weight.saturating_add(view::weight(&path.join(&tree.name)));
    }
    kept.sort_by_key(|tree| tree.used);
    let mut all: u64 = kept.iter().map(|tree| tree.weight).sum();
    let mut cleaned = Vec::new();
    for tree in kept {
        if all <= most {
            break;
        }
        if unused::remove_unused(base, &tree.name) {
            all = all.saturating_sub(tree.weight);
            cleaned.push(Cleaned { path: path.join(tree.name), removed: true });
        }
    }
    (cleaned, all.saturating_sub(most))
}

fn look(base: &Base, name: String) -> Option<Kept> {
    coracle_format::parse_hex(&name)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = openat(base.fd(), name.as_str(), flags, Mode::empty()).ok()?;
    // A tree whose lease a cleaner took is of no use to anybody.
    let used = fstatat(&dir, LEASE, AtFlags::AT_SYMLINK_NOFOLLOW).map_or((0, 0), |s| (s.st_mtime, s.st_mtime_nsec));
    let weight = trust::weight(dir.as_fd()).unwrap_or_else(|| measure(dir.as_fd()));
    Some(Kept { name, weight, used })
}

/// What a tree without a weight takes.
fn measure(dir: BorrowedFd<'_>) -> u64 {
    let Ok(path) = super::base::path_of(dir) else { return 0 };
    blocks(&path) + roots::beside(&path).iter().map(|root| blocks(root)).sum::<u64>()
}

fn blocks(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        let own = meta.blocks() * 512;
        // A file of several names is counted in parts.
        Some(if meta.is_dir() { own + blocks(&entry.path()) } else { own / meta.nlink().max(1) })
    });
    sizes.sum()
}
