//! `coracle cp`: files between the host and a container's tree, or its volumes.
//!
//! The container's links are followed as its programs would follow them, so they never lead to the host's files.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{launching, own};
use crate::{
    cli::{args::CpArgs, print, source},
    launch::{
        Source,
        hold::{Held, hold},
        ids,
        volumes::{Begin, copy, copy_one, named, resolve},
    },
    source::open_store,
    store::{
        Store,
        containers::{Container, Lease, Settings},
    },
};

/// One side of a copy.
enum Side {
    /// A tar on standard input or output.
    Pipe,
    /// A path of the host's.
    Host(PathBuf),
    /// A path inside a container: the tree (or volume) that it lies in, the path in that, and who puts the tree together.
    Inside { root: PathBuf, path: PathBuf, _held: Option<(Held, Lease)> },
}

/// Copies.
pub(super) fn run(args: &CpArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    match (side(&store, &args.from, quiet)?, side(&store, &args.to, quiet)?) {
        (Side::Inside { root, path, _held }, Side::Pipe) => write_tar(&from(&root, &path, args.follow_link)?),
        (Side::Pipe, Side::Inside { root, path, _held }) => read_tar(&resolve(&root, &path, true)?),
        (Side::Inside { root, path, _held }, Side::Host(to)) => {
            let source = from(&root, &path, args.follow_link)?;
            let onto = onto(&to, &path, ends_with(&args.to, b"/"), &to)?;
            put(&source, &onto, ends_with(&args.from, b"/."))
        }
        (Side::Host(source), Side::Inside { root, path, _held }) => {
            let shown = source.display().to_string();
            let source = if args.follow_link { fs::canonicalize(source) } else { Ok(source) };
            let source = source.and_then(|it| fs::symlink_metadata(&it).map(|_| it)).context(shown)?;
            into(&root, &path, &source, args)
        }
        (Side::Inside { root, path, _held }, Side::Inside { root: to_root, path: to_path, _held: _also }) => {
            let source = from(&root, &path, args.follow_link)?;
            into(&to_root, &to_path, &source, args)
        }
        _ => bail!("neither side is in a container: write CONTAINER:PATH"),
    }
}

fn side(store: &Store, given: &OsStr, quiet: bool) -> anyhow::Result<Side> {
    let bytes = given.as_bytes();
    if bytes == b"-" {
        return Ok(Side::Pipe);
    }
    let host = || Ok(Side::Host(PathBuf::from(given)));
    let Some(colon) = bytes.iter().position(|byte| *byte == b':') else { return host() };
    let Ok(name) = std::str::from_utf8(&bytes[..colon]) else { return host() };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return host();
    }
    let container = store.containers().resolve(name)?;
    let path = Path::new("/").join(OsStr::from_bytes(&bytes[colon + 1..]));
    let settings = container.settings()?;
    let options = launching::kept(&settings)?;
    let below = options.volumes.iter().filter(|volume| path.starts_with(&volume.guest));
    let volume = below.max_by_key(|volume| volume.guest.as_os_str().len());
    Ok(match volume {
        Some(volume) if !matches!(volume.source, Source::Tree) => {
            let root = match &volume.source {
                Source::Host(path) => path.clone(),
                // One that no run has used yet is made.
                Source::Named(name) => named(store, name, &Begin::of(&container, &settings), &volume.guest)?,
                Source::Tree => container.root(),
            };
            Side::Inside { path: path.strip_prefix(&volume.guest).unwrap_or(&path).to_owned(), root, _held: None }
        }
        _ => {
            let given = std::env::var(HELD).ok().filter(|_| ids::inside());
            let given = given.and_then(|all| {
                let mut trees = all.lines().filter_map(|line| line.split_once(' '));
                trees.find(|(id, _)| *id == container.id()).map(|(_, root)| PathBuf::from(root))
            });
            let held = if given.is_some() { None } else { held(store, &container, &settings, quiet)? };
            let root = match (given, &held) {
                (Some(root), _) => root,
                (None, Some((held, _))) => held.root().to_owned(),
                (None, None) => container.root(),
            };
            Side::Inside { root, path, _held: held }
        }
    })
}

/// Tells this command, carried out again as the root of subordinate ids, where containers' trees are (`ID PATH`, a line
/// each): what runs in a container can only be joined from outside.
pub(super) const HELD: &str = "CORACLE_CP_TREE";

/// The tree of a container that is in layers, put together.
pub(super) fn held(
    store: &Store,
    container: &Container,
    settings: &Settings,
    quiet: bool,
) -> anyhow::Result<Option<(Held, Lease)>> {
    let Some(layers) = container.stands_on(settings).filter(|_| !container.root().is_dir()) else { return Ok(None) };
    let lease = container.lease()?;
    if let Ok(held) = hold(container, &layers, &launching::places(store)) {
        return Ok(Some((held, lease)));
    }
    drop(lease);
    own::make(container, None, false, quiet)?;
    Ok(None)
}

fn ends_with(given: &OsStr, end: &[u8]) -> bool {
    given.as_bytes().ends_with(end)
}

/// An existing place inside.
fn from(root: &Path, path: &Path, follow: bool) -> anyhow::Result<PathBuf> {
    let host = resolve(root, path, follow)?;
    fs::symlink_metadata(&host).with_context(|| format!("{} in the container", path.display()))?;
    Ok(host)
}

/// Where it goes: into a directory that is there, or under the name that was given; `shown` is what messages call it.
fn onto(to: &Path, source: &Path, wants_directory: bool, shown: &Path) -> anyhow::Result<PathBuf> {
    if to.is_dir() {
        return Ok(match source.file_name() {
            Some(name) => to.join(name),
            None => to.to_owned(),
        });
    }
    if wants_directory {
        bail!("{}: there is no such directory: make it first", shown.display());
    }
    Ok(to.to_owned())
}

/// Copies into a container.
fn into(root: &Path, path: &Path, source: &Path, args: &CpArgs) -> anyhow::Result<()> {
    let to = resolve(root, path, true)?;
    let onto = onto(&to, source, ends_with(&args.to, b"/"), path)?;
    // What is there already may be a link that leads the host's way.
    let inner = onto.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    put(source, &resolve(root, &inner, true)?, ends_with(&args.from, b"/."))
}

fn put(source: &Path, onto: &Path, content_only: bool) -> anyhow::Result<()> {
    let done = if content_only && source.is_dir() {
        let onto = onto.parent().filter(|_| onto.file_name() == source.file_name()).unwrap_or(onto);
        fs::create_dir_all(onto).and_then(|()| copy(source, onto))
    } else {
        copy_one(source, onto)
    };
    done.with_context(|| format!("cannot copy {} to {}", source.display(), onto.display()))
}

fn write_tar(source: &Path) -> anyhow::Result<()> {
    let name = source.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut tar = tar::Builder::new(Pipe);
    tar.follow_symlinks(false);
    let added = if source.is_dir() && !source.is_symlink() {
        tar.append_dir_all(&name, source)
    } else {
        tar.append_path_with_name(source, &name)
    };
    let written = added.and_then(|()| tar.finish());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(print::Closed.into()),
        answer => answer.with_context(|| format!("cannot write a tar of {}", source.display())),
    }
}

/// Standard output for a tar.
struct Pipe;

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

fn read_tar(to: &Path) -> anyhow::Result<()> {
    if !to.is_dir() {
        bail!("a tar is unpacked into a directory of the container's: make it first");
    }
    let mut tar = tar::Archive::new(io::stdin().lock());
    tar.set_preserve_permissions(true);
    // Refuses names that lead out of the directory, by themselves or by links on their way.
    tar.unpack(to).with_context(|| "cannot unpack the tar on standard input")
}
