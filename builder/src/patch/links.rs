//! Symbolic links that a loader follows by itself: absolute ones would lead to the host, so they become relative.
//!
//! Only links on the way to libraries are changed, each by itself, so that a chain such as Debian's alternatives remains
//! a chain. All other links are followed by the engine, which reads them as the guest means them.

use std::collections::BTreeSet;

use coracle_format::Edit;

use super::paths::{inside, name, resolve};
use crate::flatten::{InodeKind, Tree};

/// Links that lead out of the tree on the way from links that are named as libraries.
pub(super) fn of_libraries(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let mut leaving = BTreeSet::new();
    for (path, id) in &tree.paths {
        if !matches!(tree.inode(*id).kind, InodeKind::Symlink(_)) || !is_library(name(path)) {
            continue;
        }
        let Some(resolved) = resolve(tree, path) else { continue };
        if tree.get(&resolved.path).is_some_and(|inode| matches!(inode.kind, InodeKind::File { .. })) {
            leaving.extend(resolved.leaving);
        }
    }
    leaving
}

/// The new target of a link.
pub(super) fn edit(tree: &Tree, path: &[u8]) -> Option<Edit> {
    let InodeKind::Symlink(target) = &tree.get(path)?.kind else { return None };
    Some(Edit::Bytes(inside(path, target)))
}

/// Whether a name is one that loaders look for: `libx.so`, `libx.so.1.2`.
pub(super) fn is_library(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    text.ends_with(".so") || text.contains(".so.")
}
