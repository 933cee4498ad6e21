//! An overlay's changes laid on the tree below them, as overlayfs itself does it (Documentation/filesystems/overlayfs).
//!
//! A name among the changes hides the one below, and a character device 0:0 hides it and is nothing itself (a *whiteout*). A
//! directory joins the one below, unless it is marked *opaque*.

use crate::flatten::{InodeId, InodeKind, Tree};

/// Beginning of the names of overlayfs's own attributes.
pub(crate) const MARKS: &[u8] = b"user.overlay.";

/// Lays `upper` over `lower`.
pub(super) fn over(mut lower: Tree, upper: Tree) -> Tree {
    let first = u32::try_from(lower.inodes.len()).expect("limits keep inodes below 2^32");
    let Tree { paths, mut inodes, notes } = upper;
    let mut opaque = Vec::with_capacity(inodes.len());
    for inode in &mut inodes {
        let marked = |name: &[u8]| name.strip_prefix(MARKS) == Some(b"opaque");
        opaque.push(inode.xattrs.iter().any(|xattr| marked(&xattr.name) && xattr.value == b"y"));
        inode.xattrs.retain(|xattr| !xattr.name.starts_with(MARKS));
    }
    // Parents come before what is in them, so what is removed for a name is never of the changes themselves.
    for (path, InodeId(number)) in paths {
        let inode = &inodes[number as usize];
        let joins = matches!(inode.kind, InodeKind::Directory)
            && !opaque[number as usize]
            && lower.get(&path).is_some_and(|below| matches!(below.kind, InodeKind::Directory));
        if !joins && !path.is_empty() {
            lower.remove(&path);
        }
        if !matches!(inode.kind, InodeKind::CharDevice(0, 0)) {
            lower.paths.insert(path, InodeId(first + number));
        }
    }
    lower.inodes.append(&mut inodes);
    lower.notes.extend(notes);
    lower
}

#[cfg(test)]
mod tests {
    use coracle_format::{Time, Xattr};

    use super::*;
    use crate::flatten::Inode;

    fn tree(files: &[(&str, InodeKind, bool)]) -> Tree {
        let mut tree = Tree::default();
        for (path, kind, opaque) in files {
            let mark = |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
            let mut xattrs = vec![mark(b"user.own", b"kept"), mark(b"user.overlay.origin", b"x")];
            xattrs.extend(opaque.then(|| mark(b"user.overlay.opaque", b"y")));
            let mtime = Time { seconds: 0, nanoseconds: 0 };
            let id = tree.add(Inode { mode: 0o755, uid: 0, gid: 0, mtime, xattrs, kind: kind.clone() });
            tree.paths.insert(path.as_bytes().to_vec(), id);
        }
        tree
    }

    #[test]
    fn changes_hide_join_and_remove() {
        let dir = || InodeKind::Directory;
        let link = |text: &str| InodeKind::Symlink(text.as_bytes().to_vec());
        let lower = tree(&[
            ("", dir(), false),
            ("a", dir(), false),
            ("a/kept", link("below"), false),
            ("a/changed", link("below"), false),
            ("a/gone", dir(), false),
            ("a/gone/inner", link("below"), false),
            ("b", dir(), false),
            ("b/hidden", link("below"), false),
            ("c", dir(), false),
            ("c/hidden", link("below"), false),
            ("d", link("below"), false),
        ]);
        let whiteout = || InodeKind::CharDevice(0, 0);
        let upper = tree(&[
            ("", dir(), false),
            ("a", dir(), false),
            ("a/changed", link("above"), false),
            ("a/gone", whiteout(), false),
            ("a/never", whiteout(), false),
            ("b", dir(), true),
            ("b/new", link("above"), false),
            ("c", link("above"), false),
            ("d", dir(), false),
            ("d/in", link("above"), false),
        ]);
        let merged = over(lower, upper);
        let shown: Vec<String> = merged
            .paths
            .iter()
            .map(|(path, id)| {
                let inode = merged.inode(*id);
                let text = match &inode.kind {
                    InodeKind::Symlink(text) => String::from_utf8_lossy(text).into_owned(),
                    _ => "/".to_owned(),
                };
                format!("{} {text}", String::from_utf8_lossy(path))
            })
            .collect();
        assert_eq!(
            shown,
            [" /", "a /", "a/changed above", "a/kept below", "b /", "b/new above", "c above", "d /", "d/in above"]
        );
        let names = |path: &[u8]| merged.get(path).expect("there").xattrs.len();
        assert_eq!((names(b"b"), names(b"b/new")), (1, 1), "overlayfs's own marks are left out");
    }
}
