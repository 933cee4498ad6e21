//! Guest paths of a tree: followed as the kernel follows them inside, and turned into paths that lead to the same place
//! from outside.

use std::collections::BTreeSet;

use crate::flatten::{InodeKind, Tree};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MOST: u32 = 40;

/// Bytes of the longest path that the kernel takes, with its NUL (`PATH_MAX`).
pub(super) const LONGEST: usize = 4096;

/// Where a guest path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Without symbolic links and without a leading slash; what is not there stays as it is named.
    pub(crate) path: Vec<u8>,
    pub(super) exists: bool,
    /// Links on the way that lead out of the tree when the host follows them: absolute ones, and those that climb above
    /// the root.
    pub(super) leaving: BTreeSet<Vec<u8>>,
    /// A `..` of the path itself climbed above the root.
    pub(super) climbed: bool,
}

/// Follows a guest path from the root, the last link too. `None`: in circles, or longer than any that can be opened.
pub(crate) fn resolve(tree: &Tree, path: &[u8]) -> Option<Resolved> {
    // Each part with the link that it comes from.
    let parts = |path: &[u8], from: Option<Vec<u8>>| {
        path.rsplit(|byte| *byte == b'/').map(|part| (part.to_vec(), from.clone())).collect::<Vec<_>>()
    };
    if path.len() >= LONGEST {
        return None;
    }
    let mut todo = parts(path, None);
    let mut resolved = Resolved { path: Vec::new(), exists: true, leaving: BTreeSet::new(), climbed: false };
    let mut links = 0;
    while let Some((part, from)) = todo.pop() {
        match &part[..] {
            b"" | b"." => {}
            b".." if resolved.path.is_empty() => match from {
                Some(link) => drop(resolved.leaving.insert(link)),
                None => resolved.climbed = true,
            },
            b".." => resolved.path.truncate(parent(&resolved.path).len()),
            _ => {
                let next = join(&resolved.path, &part);
                let Some(inode) = tree.get(&next) else {
                    (resolved.path, resolved.exists) = (next, false);
                    continue;
                };
                let InodeKind::Symlink(target) = &inode.kind else {
                    resolved.path = next;
                    continue;
                };
                links += 1;
                if links > LINKS_MOST || target.len() >= LONGEST {
                    return None;
                }
                if target.starts_with(b"/") {
                    resolved.path.clear();
                    resolved.leaving.insert(next.clone());
                }
                todo.extend(parts(target, Some(next)));
            }
        }
    }
    resolved.exists &= tree.get(&resolved.path).is_some();
    Some(resolved)
}

/// The path that leads from a directory to another place, both without symbolic links.
pub(super) fn relative(from: &[u8], to: &[u8]) -> Vec<u8> {
    let parts = |path: &'_ [u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (from, to) = (parts(from), parts(to));
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let mut path: Vec<&[u8]> = vec![b".."; from.len() - common];
    path.extend(to[common..].iter().map(Vec::as_slice));
    path.join(&b'/')
}

/// The target of a link at `link` that leads where `target` leads, also when the host follows it.
pub(super) fn inside(link: &[u8], target: &[u8]) -> Vec<u8> {
    let depth = link.iter().filter(|byte| **byte == b'/').count();
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut height = if target.starts_with(b"/") {
        parts.resize(depth, b"..");
        0
    } else {
        depth
    };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            // Above the root is the root.
            b".." if height == 0 => {}
            b".." => {
                height -= 1;
                parts.push(part);
            }
            _ => {
                height += 1;
                parts.push(part);
            }
        }
    }
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

/// The directory that a path is in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

/// The last part of a path.
pub(super) fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| &path[at + 1..])
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// A path as people write it.
pub(super) fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_from_one_place_to_another() {
        let path = |from: &str, to: &str| String::from_utf8(relative(from.as_bytes(), to.as_bytes())).unwrap();
        assert_eq!(path("usr/bin", "usr/lib/x"), "../lib/x");
        assert_eq!(path("", "opt/lib"), "opt/lib");
        assert_eq!(path("opt/lib", "opt/lib"), "");
        assert_eq!(path("opt/lib64", "opt/lib"), "../lib");
    }

    #[test]
    fn targets_stay_inside() {
        let target = |link: &str, to: &str| String::from_utf8(inside(link.as_bytes(), to.as_bytes())).unwrap();
        assert_eq!(target("usr/lib/libx.so", "/etc/alternatives/libx"), "../../etc/alternatives/libx");
        assert_eq!(target("libx.so", "/etc/../../a"), "etc/../a");
        assert_eq!(target("usr/libx.so", "../../../a"), "../a");
        assert_eq!(target("usr/lib", "/"), "..");
        assert_eq!(target("lib", "/"), ".");
    }
}
