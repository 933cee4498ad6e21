//! What is compared: names, types, content, modes, times, link targets and hard-link groups.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use coracle::flatten::{InodeKind, Tree};
use coracle_format::{hex, sha256};

/// By path.
pub(crate) type Facts = BTreeMap<Vec<u8>, Fact>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    what: String,
    mode: u32,
    mtime: (i64, i64),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// First path of the same inode.
    first: Vec<u8>,
}

/// Compares; times since `started` are the unpacker's own, of things that no layer describes.
pub(crate) fn same(ours: &Facts, theirs: &Facts, started: SystemTime, what: &str) {
    let started = started.duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed() - 1;
    let mut differences = Vec::new();
    for path in ours.keys().filter(|path| !theirs.contains_key(*path)) {
        differences.push(format!("only Coracle has {:?}", String::from_utf8_lossy(path)));
    }
    for (path, theirs) in theirs {
        let shown = String::from_utf8_lossy(path);
        let Some(ours) = ours.get(path) else {
            differences.push(format!("only umoci has {shown:?}"));
            continue;
        };
        let timeless = theirs.mtime.0 >= started;
        if ours.what != theirs.what
            || ours.mode != theirs.mode
            || ours.first != theirs.first
            || ours.attributes != theirs.attributes
            || (!timeless && ours.mtime != theirs.mtime)
        {
            differences.push(format!("{shown:?}: Coracle {ours:?}, umoci {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{what}\n{}", differences.join("\n"));
}

/// A directory that umoci has filled.
pub(crate) fn facts_of_directory(root: &Path) -> Facts {
    let mut facts = Facts::new();
    let mut open = vec![(Vec::new(), root.to_owned())];
    while let Some((path, host)) = open.pop() {
        let meta = fs::symlink_metadata(&host).expect("readable");
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            for entry in fs::read_dir(&host).expect("readable") {
                let entry = entry.expect("readable");
                let mut path = path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(entry.file_name().as_bytes());
                open.push((path, entry.path()));
            }
            "a directory".to_owned()
        } else if kind.is_file() {
            content(&fs::read(&host).expect("readable"))
        } else if kind.is_symlink() {
            let target = fs::read_link(&host).expect("readable").into_os_string().into_vec();
            format!("a link to {:?}", String::from_utf8_lossy(&target))
        } else if kind.is_fifo() {
            "a pipe".to_owned()
        } else {
            format!("{kind:?}")
        };
        let mut attributes = Vec::new();
        if !kind.is_symlink() {
            for name in xattr::list(&host).expect("readable").filter(|name| *name != "user.rootlesscontainers") {
                let value = xattr::get(&host, &name).expect("readable").expect("there");
                attributes.push((name.into_vec(), value));
            }
        }
        attributes.sort();
        let mode = if kind.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
        let mtime = (meta.mtime(), meta.mtime_nsec());
        // The inode's number for now, so that names come together below.
        let first = format!("{}:{}", meta.dev(), meta.ino()).into_bytes();
        facts.insert(path, Fact { what, mode, mtime, attributes, first });
    }
    grouped(facts)
}

/// A tree that Coracle has made; device nodes are empty files, as umoci makes them for an ordinary user.
pub(crate) fn facts_of_tree(tree: &Tree) -> Facts {
    let mut facts = Facts::new();
    for (path, id) in &tree.paths {
        let inode = tree.inode(*id);
        let what = match &inode.kind {
            InodeKind::Directory => "a directory".to_owned(),
            InodeKind::File { size, data } => {
                let mut bytes = vec![0; usize::try_from(*size).expect("small")];
                data.read_exact_at(&mut bytes, 0).expect("its bytes are there");
                content(&bytes)
            }
            InodeKind::Symlink(target) => format!("a link to {:?}", String::from_utf8_lossy(target)),
            InodeKind::Fifo => "a pipe".to_owned(),
            InodeKind::CharDevice(..) | InodeKind::BlockDevice(..) => content(b""),
        };
        let attributes = inode.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone()));
        // What only root may set stays in the tree; umoci could not set it.
        let attributes = attributes.filter(|(name, _)| name.starts_with(b"user.")).collect();
        let mtime = (inode.mtime.seconds, i64::from(inode.mtime.nanoseconds));
        let first = id.0.to_string().into_bytes();
        facts.insert(path.clone(), Fact { what, mode: inode.mode.into(), mtime, attributes, first });
    }
    grouped(facts)
}

fn content(bytes: &[u8]) -> String {
    format!("{} bytes, {}", bytes.len(), &hex(&sha256(bytes))[..16])
}

/// Replaces the inodes' own names by their first paths.
fn grouped(mut facts: Facts) -> Facts {
    let mut firsts: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for (path, fact) in &mut facts {
        fact.first = firsts.entry(fact.first.clone()).or_insert_with(|| path.clone()).clone();
    }
    facts
}
