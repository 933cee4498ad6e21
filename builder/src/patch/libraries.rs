//! Where a tree's loaders look for libraries: what their configuration says, and their cache.
//!
//! After ld.so(8), ldconfig(8) and, for musl, its manual: a file that lists directories instead of those built in.

use std::{collections::BTreeSet, io};

use coracle_api::Libc;
use globset::{GlobBuilder, GlobMatcher};

use super::{
    bytes::{Bytes, MOST, number},
    paths::{LONGEST, name, parent, resolve},
};
use crate::flatten::{InodeKind, Tree};

/// Files that include each other, at most, and patterns that name them: each is looked for in the whole tree.
const MOST_FILES: usize = 1000;
const MOST_PATTERNS: usize = 100;

/// Lines of configuration, and directories of a cache, that are followed: a distribution has ten.
const MOST_NAMED: usize = 10_000;

/// A cache of libraries is read up to this length.
const MOST_CACHE: u64 = 16 << 20;

/// Directories of libraries.
#[derive(Debug, Default)]
pub(super) struct Directories {
    /// Guest paths without symbolic links and without a leading slash, without repetition.
    pub(super) paths: Vec<Vec<u8>>,
    known: BTreeSet<Vec<u8>>,
}

impl Directories {
    /// Adds the directory that a guest path leads to, if it leads to one.
    pub(super) fn add(&mut self, tree: &Tree, path: &[u8]) {
        let Some(resolved) = resolve(tree, path) else { return };
        let is_directory = tree.get(&resolved.path).is_some_and(|inode| matches!(inode.kind, InodeKind::Directory));
        // What a library path cannot name, it cannot hold.
        let plain = !resolved.path.iter().any(|byte| matches!(byte, b':' | b';' | b'$'));
        if is_directory && plain && self.known.insert(resolved.path.clone()) {
            self.paths.push(resolved.path);
        }
    }
}

/// The directories of a loader, those `built_in` last.
pub(super) fn directories(tree: &Tree, libc: Libc, loader: &[u8], built_in: &[Vec<u8>]) -> io::Result<Directories> {
    let mut found = Directories::default();
    match libc {
        Libc::Musl => {
            // `ld-musl-x86_64.so.1` reads `/etc/ld-musl-x86_64.path`.
            let stem = name(loader).split(|byte| *byte == b'.').next().unwrap_or_default();
            let listed = text(tree, &[b"etc/", stem, b".path"].concat())?;
            match listed {
                Some(listed) => {
                    for path in listed.split(|byte| matches!(byte, b':' | b'\n')) {
                        found.add(tree, path.trim_ascii());
                    }
                }
                None => built_in.iter().for_each(|path| found.add(tree, path)),
            }
        }
        Libc::Glibc => {
            configured(tree, b"etc/ld.so.conf", &mut Read::default(), &mut found)?;
            let mut defaults = Directories::default();
            built_in.iter().for_each(|path| defaults.add(tree, path));
            for path in cached(tree)? {
                if resolve(tree, &path).is_some_and(|resolved| !defaults.paths.contains(&resolved.path)) {
                    found.add(tree, &path);
                }
            }
            built_in.iter().for_each(|path| found.add(tree, path));
        }
    }
    Ok(found)
}

/// A small text of the tree.
fn text(tree: &Tree, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(resolved) = resolve(tree, path) else { return Ok(None) };
    match tree.get(&resolved.path).map(|inode| &inode.kind) {
        Some(InodeKind::File { size, data }) => Bytes { data, size: *size }.get(0, (*size).min(MOST)),
        _ => Ok(None),
    }
}

/// What has been read of a configuration.
#[derive(Default)]
struct Read {
    files: BTreeSet<Vec<u8>>,
    patterns: usize,
    lines: usize,
}

/// `ld.so.conf`: a directory a line, and files to include.
fn configured(tree: &Tree, path: &[u8], read: &mut Read, found: &mut Directories) -> io::Result<()> {
    if read.files.len() >= MOST_FILES || !read.files.insert(path.to_vec()) {
        return Ok(());
    }
    let Some(content) = text(tree, path)? else { return Ok(()) };
    for line in content.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        match words.next() {
            Some(b"include") => {
                for pattern in words {
                    read.patterns += 1;
                    if read.patterns > MOST_PATTERNS {
                        return Ok(());
                    }
                    for path in matching(tree, path, pattern) {
                        configured(tree, &path, read, found)?;
                    }
                }
            }
            // Options of old: a machine's capabilities.
            Some(b"hwcap") | None => {}
            // `DIRECTORY=TYPE` of old.
            Some(_) => {
                read.lines += 1;
                if read.lines > MOST_NAMED {
                    return Ok(());
                }
                found.add(tree, line.split(|byte| *byte == b'=').next().unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// Files that a pattern of `ld.so.conf` means, in order.
fn matching(tree: &Tree, from: &[u8], pattern: &[u8]) -> Vec<Vec<u8>> {
    let full = if pattern.starts_with(b"/") { pattern[1..].to_vec() } else { [parent(from), b"/", pattern].concat() };
    let Some(matcher) = matcher(&full) else { return Vec::new() };
    // The directory of the pattern is plain in every distribution; a tree has few files in it.
    let fixed = full.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[')).unwrap_or(full.len());
    let start = full[..fixed].to_vec();
    tree.paths
        .range(start.clone()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(&start))
        .filter(|path| std::str::from_utf8(path).is_ok_and(|path| matcher.is_match(path)))
        .cloned()
        .collect()
}

/// `None` for what matches nothing: braces mean themselves to ldconfig, and are in no name. (Deep nests of them would be
/// too much for the matcher, as long patterns would.)
fn matcher(pattern: &[u8]) -> Option<GlobMatcher> {
    let text = std::str::from_utf8(pattern).ok()?;
    if text.len() >= LONGEST || text.contains(['{', '}']) {
        return None;
    }
    Some(GlobBuilder::new(text).literal_separator(true).build().ok()?.compile_matcher())
}

/// The directories of `/etc/ld.so.cache`, in its order: ldconfig may have been given some on its command line.
fn cached(tree: &Tree) -> io::Result<Vec<Vec<u8>>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    let Some(InodeKind::File { size, data }) = tree.get(b"etc/ld.so.cache").map(|inode| &inode.kind) else {
        return Ok(Vec::new());
    };
    let Some(bytes) = Bytes { data, size: *size }.get_most(0, *size, MOST_CACHE)? else { return Ok(Vec::new()) };
    // The older format may come first; offsets of strings count from the newer one's start.
    let Some(start) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) else { return Ok(Vec::new()) };
    let cache = &bytes[start..];
    let count = number(cache, 20, 4).unwrap_or_default().min(cache.len() as u64 / 24);
    let (mut directories, mut known) = (Vec::new(), BTreeSet::new());
    for entry in 0..usize::try_from(count).unwrap_or_default() {
        // Header of 48 bytes; entries of 24: flags, key, value, version, capabilities.
        let Some(value) = number(cache, 48 + 24 * entry + 8, 4).and_then(|value| usize::try_from(value).ok()) else {
            break;
        };
        let Some(rest) = cache.get(value..) else { continue };
        let Some(end) = rest.iter().take(LONGEST).position(|byte| *byte == 0) else { break };
        let directory = parent(&rest[..end]);
        // Directories of special capabilities are found from the directory that they lie in.
        let special = directory.windows(13).any(|window| window == b"/glibc-hwcaps");
        if rest.starts_with(b"/") && !special && known.insert(directory) {
            directories.push(directory.to_vec());
        }
        if directories.len() == MOST_NAMED {
            break;
        }
    }
    Ok(directories)
}
