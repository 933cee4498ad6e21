//! `coracle export`: a container's tree as a tar, with or without its settings.
//!
//! A clone's archive is an ordinary tar: `container.json` (settings, as the store keeps them) and the tree below `ROOT/`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use coracle_format::Time;

use crate::{
    cli::{args::ExportArgs, report, source, stored},
    flatten::{Data, Inode, InodeId, InodeKind, Tree},
    pack,
    source::open_store,
    store::{
        containers::{Settings, Sharing},
        trees,
    },
};

/// Name of the settings in a clone's archive.
pub(super) const SETTINGS: &[u8] = b"container.json";
/// Name of the tree in it.
pub(super) const ROOT: &[u8] = b"ROOT";

/// Writes the tar.
pub(super) fn run(args: &ExportArgs, quiet: bool) -> anyhow::Result<()> {
    let (output, given) = words(args)?;
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&given)?;
    if container.is_running()? && !args.live {
        report::note(quiet, &format!("{given} is running: what it changes meanwhile may be missing or half-written"));
    }
    // It stays while it is read.
    let _lease = container.lease();
    let settings = container.settings()?;
    let mut tree = trees::read_container(&container)?;
    if args.clone {
        // The tree goes with it.
        let settings = Settings { base: None, sharing: Sharing::Copy, version: 1, ..settings };
        let json = serde_json::to_vec_pretty(&settings)?;
        tree = clone_of(tree, json, settings.created);
    }
    let mut notes = std::mem::take(&mut tree.notes);
    stored::write_out(output.as_deref(), |out: &mut dyn Write| {
        notes.extend(pack::write_tar(&tree, out)?);
        Ok(())
    })?;
    for note in notes {
        report::note(quiet, &note);
    }
    Ok(())
}

/// The file and the container, in Docker's or udocker's order: `export [-o FILE] CONTAINER`, `export -o FILE CONTAINER`,
/// `export - CONTAINER`.
fn words(args: &ExportArgs) -> anyhow::Result<(Option<PathBuf>, String)> {
    match (&args.output, args.words.as_slice()) {
        (output, [container]) => Ok((output.clone(), container.clone())),
        (None, [file, container]) if file == "-" => Ok((None, container.clone())),
        (_, [first, second, ..]) => bail!("{first} {second}: one container is exported at a time"),
        (_, []) => bail!("no container was named"),
    }
}

/// The tree below `ROOT`, beside the settings.
fn clone_of(tree: Tree, settings: Vec<u8>, created: u64) -> Tree {
    let mtime = Time { seconds: i64::try_from(created).unwrap_or(0), nanoseconds: 0 };
    let inode = |mode, kind| Inode { mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind };
    let Tree { paths, inodes, notes } = tree;
    let mut clone = Tree { inodes, notes, ..Tree::default() };
    for (path, id) in paths {
        let mut below = ROOT.to_vec();
        if !path.is_empty() {
            below.push(b'/');
            below.extend_from_slice(&path);
        }
        clone.paths.insert(below, id);
    }
    let top = clone.add(inode(0o755, InodeKind::Directory));
    clone.paths.insert(Vec::new(), top);
    let size = settings.len() as u64;
    let file = clone.add(inode(0o644, InodeKind::File { size, data: Data::Bytes(settings.into()) }));
    clone.paths.insert(SETTINGS.to_vec(), file);
    clone
}

/// A clone's archive, taken apart: the settings' bytes, and the tree.
pub(super) fn from_clone(mut tree: Tree, name: &Path) -> anyhow::Result<(Vec<u8>, Tree)> {
    const MOST: u64 = 16 << 20;
    let wrong = || format!("{}: it is no container that was exported with --clone", name.display());
    let settings = match tree.get(SETTINGS).map(|inode| &inode.kind) {
        Some(InodeKind::File { size, data }) if *size <= MOST => {
            let mut bytes = vec![0; usize::try_from(*size)?];
            data.read_exact_at(&mut bytes, 0)?;
            bytes
        }
        _ => bail!("{}", wrong()),
    };
    ensure!(matches!(tree.get(ROOT).map(|inode| &inode.kind), Some(InodeKind::Directory)), "{}", wrong());
    let paths = std::mem::take(&mut tree.paths);
    let below = |path: Vec<u8>| -> Option<Vec<u8>> {
        match path.strip_prefix(ROOT)? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    };
    tree.paths = paths.into_iter().filter_map(|(path, id): (_, InodeId)| Some((below(path)?, id))).collect();
    Ok((settings, tree))
}
