//! Files of a tree, and paragraphs of `Key: value` lines in them.

use crate::{
    flatten::{InodeKind, Tree},
    patch::resolve,
};

/// A database of a hundred thousand packages is smaller.
const MOST: u64 = 256 << 20;

/// A file's text, symbolic links followed inside the tree; what is no UTF-8 is replaced.
pub(super) fn text(tree: &Tree, path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(tree, path)?).into_owned())
}

/// A file's bytes, symbolic links followed inside the tree.
pub(super) fn bytes(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    let path = resolve(tree, path.as_bytes())?.path;
    let InodeKind::File { size, data } = &tree.get(&path)?.kind else { return None };
    let mut bytes = vec![0; usize::try_from(*size).ok().filter(|_| *size <= MOST)?];
    data.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// `ID` and `VERSION_ID` of os-release(5).
pub(super) fn release(tree: &Tree) -> (Option<String>, Option<String>) {
    let Some(text) = text(tree, "etc/os-release").or_else(|| text(tree, "usr/lib/os-release")) else {
        return (None, None);
    };
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    (value("ID"), value("VERSION_ID"))
}

/// Paragraphs, each a list of fields (deb822(5), section "Syntax"): lines that begin with white space go on the one before.
pub(super) fn paragraphs(text: &str) -> impl Iterator<Item = Vec<(&str, String)>> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let mut fields: Vec<(&str, String)> = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                fields.push((key, value.trim().to_owned()));
            }
        }
        Some(fields)
    })
}

/// A field's value.
pub(super) fn field(fields: &[(&str, String)], key: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
    (!value.is_empty()).then(|| value.clone())
}

#[cfg(test)]
pub(super) mod tests {
    use coracle_format::Time;

    use super::*;
    use crate::flatten::{Data, Inode};

    /// A tree of these files, and links where the content begins with `-> `.
    pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, content) in files {
            let kind = match content.strip_prefix("-> ") {
                Some(target) => InodeKind::Symlink(target.as_bytes().to_vec()),
                None => InodeKind::File {
                    size: content.len() as u64,
                    data: Data::Bytes(content.as_bytes().to_vec().into()),
                },
            };
            let time = Time { seconds: 0, nanoseconds: 0 };
            let id = tree.add(Inode { mode: 0o644, uid: 0, gid: 0, mtime: time, xattrs: Vec::new(), kind });
            tree.paths.insert(path.as_bytes().to_vec(), id);
        }
        tree
    }

    #[test]
    fn links_are_followed_inside() {
        let tree = tree(&[
            ("etc/os-release", "-> ../usr/lib/os-release"),
            ("usr/lib/os-release", "ID=\"x y\"\nVERSION_ID=''\n"),
        ]);
        assert_eq!(release(&tree), (Some("x y".to_owned()), None));
    }

    #[test]
    fn paragraphs_are_taken_apart() {
        let all: Vec<_> = paragraphs("\nA: 1\nB:\n two\n\tthree\nnonsense\n\n\nC : 4\n").collect();
        assert_eq!(all.len(), 2);
        assert_eq!(field(&all[0], "b").as_deref(), Some("\ntwo\nthree"));
        assert_eq!(field(&all[0], "missing"), None);
    }
}
