//! `coracle diff`: what a container has changed of its image.

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, bail};
use coracle_api::NAMES;

use crate::{
    cli::{args::DiffArgs, print, source, table::Listing},
    flatten::{self, Data, Inode, InodeKind, Limits, Tree},
    source::{load, open_store},
    store::trees,
};

/// Lists added (A), changed (C) and deleted (D) paths.
pub(super) fn run(args: &DiffArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::bare(quiet)?;
    let store = open_store(&options)?;
    let container = store.containers().resolve(&args.container)?;
    let settings = container.settings()?;
    let Some(manifest) = &settings.provenance.manifest else {
        bail!("container {} was made of no image of the store, so there is nothing to compare it with", args.container);
    };
    let using = store.use_blobs()?;
    let layers = load::stored(&store, manifest, &settings.image)
        .with_context(|| format!("cannot compare container {} with its image", args.container))?;
    let flatten =
        flatten::Options { limits: Limits::default(), spool: options.scratch, threads: options.threads, apart: false };
    let image = flatten::flatten(layers, &flatten)?;
    drop(using);
    let _lease = container.lease();
    let now = trees::read_container(&container)?;
    let mut changes: BTreeMap<Vec<u8>, char> = BTreeMap::new();
    for (path, id) in &now.paths {
        let kind = match image.get(path) {
            None if is_for_names(path, now.inode(*id)) => continue,
            None => 'A',
            Some(was) if differs(was, now.inode(*id))? => 'C',
            Some(_) => continue,
        };
        changes.insert(path.clone(), kind);
    }
    for path in image.paths.keys().filter(|path| !now.paths.contains_key(*path)) {
        // What is in a deleted directory goes without saying.
        if changes.get(parent(path)) != Some(&'D') && is_there(&now, parent(path)) {
            changes.insert(path.clone(), 'D');
        }
    }
    // A directory changes with what is in it.
    let inside: Vec<Vec<u8>> = changes.keys().cloned().collect();
    for path in inside {
        let mut above = parent(&path);
        while !above.is_empty() {
            changes.entry(above.to_vec()).or_insert('C');
            above = parent(above);
        }
    }
    changes.remove(&b""[..]);
    let mut listing = Listing::new(&[("Path", "PATH"), ("Type", "TYPE")], &["Type", "Path"]);
    for (path, kind) in &changes {
        let path = format!("/{}", String::from_utf8_lossy(path));
        if args.list.format.is_some() || quiet {
            listing.row(vec![path, kind.to_string()]);
        } else {
            print::line(&format!("{kind} {}", print::visible(&path)))?;
        }
    }
    if args.list.format.is_some() || quiet { listing.print(&args.list, quiet) } else { Ok(()) }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn is_there(tree: &Tree, path: &[u8]) -> bool {
    tree.paths.contains_key(path)
}

/// Whether a run has made this to put a file of the node's on: no change of the application's, so it is not listed, as with
/// Docker.
fn is_for_names(path: &[u8], inode: &Inode) -> bool {
    let is_shown = NAMES.iter().any(|name| name.as_bytes().strip_prefix(b"/") == Some(path));
    is_shown && matches!(inode.kind, InodeKind::File { size: 0, .. })
}

/// Whether two inodes differ in what a program can see, times of directories apart.
fn differs(was: &Inode, is: &Inode) -> io::Result<bool> {
    if (was.mode, was.uid, was.gid) != (is.mode, is.uid, is.gid) && !matches!(was.kind, InodeKind::Symlink(_)) {
        return Ok(true);
    }
    Ok(match (&was.kind, &is.kind) {
        (InodeKind::File { size, data }, InodeKind::File { size: now, data: new }) => {
            size != now || (was.mtime != is.mtime && !same(data, new, *size)?)
        }
        (InodeKind::Symlink(target), InodeKind::Symlink(now)) => target != now,
        (a, b) => std::mem::discriminant(a) != std::mem::discriminant(b),
    })
}

fn same(a: &Data, b: &Data, size: u64) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(one.len());
        a.read_exact_at(&mut one[..len], at)?;
        b.read_exact_at(&mut other[..len], at)?;
        if one[..len] != other[..len] {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}
