//! What upper layers hide of lower ones, guessed from names alone.
//!
//! Layers are read from the top down, so that the bytes of a file that a later layer deletes or replaces are not even
//! written to the spool. The guess knows nothing of symbolic links in paths nor of hard links inside lower layers; where
//! it was wrong, the tree asks for the file again (`flatten` reads that layer a second time). So it can cost time, never
//! content.

use std::collections::HashMap;

use super::members::{Member, MemberKind};

/// Whiteouts begin with this (OCI image-spec, layer.md).
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The whiteout that hides all that lower layers have in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Names that layers hide, each with the number of the highest such layer.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    /// The path and all below it.
    whole: HashMap<Vec<u8>, usize>,
    /// All below the path.
    below: HashMap<Vec<u8>, usize>,
    /// The path alone, if it is no directory.
    file: HashMap<Vec<u8>, usize>,
    /// Targets of hard links: kept whatever else is said of them.
    linked: HashMap<Vec<u8>, usize>,
}

impl Hidden {
    /// Adds what layer `number` hides.
    pub(crate) fn add(&mut self, number: usize, members: &[Member]) {
        for member in members {
            let (parent, name) = split(&member.path);
            let (map, path) = match (&member.kind, name.strip_prefix(WHITEOUT)) {
                (_, Some(_)) if name == OPAQUE => (&mut self.below, parent.to_vec()),
                (_, Some(hidden)) if parent.is_empty() => (&mut self.whole, hidden.to_vec()),
                (_, Some(hidden)) => (&mut self.whole, [parent, b"/", hidden].concat()),
                (MemberKind::Directory, None) => (&mut self.file, member.path.clone()),
                (MemberKind::HardLink(target), None) => {
                    self.linked.insert(target.clone(), number);
                    (&mut self.whole, member.path.clone())
                }
                (_, None) => (&mut self.whole, member.path.clone()),
            };
            let highest = map.entry(path).or_insert(number);
            *highest = number.max(*highest);
        }
    }

    /// Whether a layer above `number` seems to hide the file at `path`.
    pub(crate) fn hides(&self, number: usize, path: &[u8]) -> bool {
        let above = |map: &HashMap<Vec<u8>, usize>, path: &[u8]| map.get(path).is_some_and(|layer| *layer > number);
        if above(&self.linked, path) {
            return false;
        }
        if above(&self.whole, path) || above(&self.file, path) {
            return true;
        }
        let mut rest = path;
        while !rest.is_empty() {
            rest = split(rest).0;
            if above(&self.whole, rest) || above(&self.below, rest) {
                return true;
            }
        }
        false
    }
}

/// Parent and name of a clean path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
