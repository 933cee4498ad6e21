//! What a run has changed, laid on the bundle's files.
//!
//! A directory of changes holds an overlay's upper directory, in which a name hides the one below, a character device 0:0
//! removes it, and a directory joins the one below unless it is marked opaque (Documentation/filesystems/overlayfs); or a
//! view (`coracle_view`), which is the whole tree, so that what is not there was removed. In a view a file that holds
//! the same bytes as the image's is the image's: links and times prove nothing, for a guest may move files over each other.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use coracle_format::{Content, Entry, Index, Kind};

use super::{
    found::{Found, Owners, below},
    stream::{Contents, open_file},
    tree::{Bytes, Tree, bytes_of},
};
use crate::{actions::ActionError, open::Bundle};

/// Where changes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// The upper directory of an overlay.
    Overlay(PathBuf),
    /// A view's directory.
    View(PathBuf),
}

impl Layer {
    /// What a directory of changes holds; none if no run has changed anything there yet.
    ///
    /// # Errors
    /// [`ActionError::Changes`] for what is no such directory.
    pub fn find(dir: &Path) -> Result<Option<Self>, ActionError> {
        let failed = |why: String| ActionError::Changes { path: dir.to_owned(), why };
        let has = |name: &str| dir.join(name).is_dir();
        if has("view") {
            return Ok(Some(Self::View(dir.join("view"))));
        }
        if has("upper") {
            return Ok(Some(Self::Overlay(dir.join("upper"))));
        }
        match fs::read_dir(dir).map_err(|error| failed(error.to_string()))?.next() {
            None => Ok(None),
            Some(_) => Err(failed("holds no changes of a run".to_owned())),
        }
    }

    /// Whether it holds files of other users: a guest's root gave them away to ids that its caller is not.
    #[must_use]
    pub fn has_other_owners(&self) -> bool {
        let Self::Overlay(upper) = self else { return false };
        let me = nix::unistd::geteuid().as_raw();
        let mut pending = vec![upper.clone()];
        while let Some(dir) = pending.pop() {
            let Ok(names) = fs::read_dir(&dir) else { return true };
            for entry in names.flatten() {
                let Ok(meta) = entry.metadata() else { return true };
                if meta.uid() != me {
                    return true;
                }
                if meta.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        false
    }
}

/// What a name means.
#[derive(Debug)]
enum Named {
    /// What it means in the bundle, by number.
    Kept(usize),
    /// A file of the run's.
    Found(Box<Found>),
}

type Names = BTreeMap<Vec<u8>, Named>;

/// Lays the changes on `kept`, which is the bundle's own tree.
pub(super) fn lay(bundle: &Bundle, kept: Tree, layer: &Layer) -> Result<Tree, ActionError> {
    let (names, owners) = match layer {
        Layer::Overlay(upper) => (over(&kept.kept, upper)?, Owners::on_disk()),
        Layer::View(view) => {
            let (root, ledger) = (view.join("root"), view.join("ledger"));
            let mut names = Names::new();
            walk(&root, b"", &mut |path, found| {
                names.insert(path, Named::Found(Box::new(found)));
                true
            })?;
            let owners = Owners::of_view(&root, &ledger)
                .map_err(|error| ActionError::Changes { path: ledger, why: error.to_string() })?;
            (names, owners)
        }
    };
    finish(bundle, kept, names, &owners, matches!(layer, Layer::View(_)))
}

/// An overlay's upper directory over the bundle's names.
fn over(index: &Index, upper: &Path) -> Result<Names, ActionError> {
    let mut names: Names =
        index.entries.iter().enumerate().map(|(number, entry)| (entry.path.clone(), Named::Kept(number))).collect();
    walk(upper, b"", &mut |path, found| {
        let below = match names.get(&path) {
            Some(Named::Kept(number)) => Some(&index.entries[*number].kind),
            _ => None,
        };
        let joins = found.meta.is_dir() && !found.opaque && below == Some(&Kind::Directory);
        if !joins {
            remove(&mut names, &path);
        }
        let whiteout = found.is_whiteout();
        if !whiteout {
            names.insert(path, Named::Found(Box::new(found)));
        }
        !whiteout
    })?;
    Ok(names)
}

/// Removes a name with all below it.
fn remove(names: &mut Names, path: &[u8]) {
    names.remove(path);
    let (first, last) = ([path, b"/"].concat(), [path, b"0"].concat());
    let gone: Vec<Vec<u8>> = names.range(first..last).map(|(path, _)| path.clone()).collect();
    for path in gone {
        names.remove(&path);
    }
}

/// Tells of every file, parents first. `take` says whether a directory is to be entered.
fn walk(root: &Path, path: &[u8], take: &mut dyn FnMut(Vec<u8>, Found) -> bool) -> Result<(), ActionError> {
    let host = below(root, path);
    let failed = |error: std::io::Error| ActionError::Changes { path: host.clone(), why: error.to_string() };
    let found = Found::look(host.clone()).map_err(failed)?;
    let is_dir = found.meta.is_dir();
    if !take(path.to_vec(), found) || !is_dir {
        return Ok(());
    }
    let mut names = fs::read_dir(&host)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    names.sort();
    for name in names {
        let inner = if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() };
        walk(root, &inner, take)?;
    }
    Ok(())
}

/// Which file a name means, so that two names of one are found.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Kept(usize),
    Found(u64, u64),
}

/// Names to entries, with hard links in their order.
fn finish(bundle: &Bundle, kept: Tree, names: Names, owners: &Owners, compare: bool) -> Result<Tree, ActionError> {
    let mut contents = Contents::new(bundle);
    let mut tree = Tree { entries: Vec::new(), bytes: Vec::new(), changed: true, ..kept };
    let index = &tree.kept;
    let by_path = |path: &[u8]| index.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok();
    let mut firsts: HashMap<Identity, u32> = HashMap::new();
    let mut sockets = 0;
    let mut entries: Vec<(Entry, Bytes)> = Vec::with_capacity(names.len());
    for (path, named) in names {
        let next = u32::try_from(entries.len()).map_err(|_| ActionError::Pack("it has too many files"))?;
        let (mut entry, bytes, identity) = match named {
            Named::Kept(number) => {
                let first = first_name(index, number);
                let entry = Entry { path, kind: index.entries[first].kind.clone(), ..index.entries[number].clone() };
                let bytes = bytes_of(&entry.kind);
                (entry, bytes, Identity::Kept(first))
            }
            Named::Found(found) => {
                let was = by_path(&path);
                let Some(entry) = found.entry(&path, was.map(|number| &index.entries[number]), owners) else {
                    sockets += 1;
                    continue;
                };
                let mut bytes = match entry.kind {
                    Kind::File { size: 1.., .. } => Bytes::Host(found.host.clone()),
                    _ => Bytes::None,
                };
                let of_image = was.map(|number| first_name(index, number)).filter(|_| compare);
                if let (Bytes::Host(host), Some(first)) = (&bytes, of_image)
                    && let Kind::File { size, content } = index.entries[first].kind
                    && size == found.meta.len()
                    && holds(&mut contents, &tree, content, size, host)?
                {
                    bytes = Bytes::Kept(content);
                }
                (entry, bytes, Identity::Found(found.meta.dev(), found.meta.ino()))
            }
        };
        if matches!(entry.kind, Kind::File { .. }) {
            match firsts.get(&identity) {
                Some(first) => entry.kind = Kind::HardLink { entry: *first },
                None => drop(firsts.insert(identity, next)),
            }
        }
        let bytes = if matches!(entry.kind, Kind::File { .. }) { bytes } else { Bytes::None };
        entries.push((entry, bytes));
    }
    (tree.entries, tree.bytes) = entries.into_iter().unzip();
    if sockets > 0 {
        tree.notes.push(format!("{sockets} sockets were left out: no image holds such"));
    }
    Ok(tree)
}

/// The entry that holds the bytes of a file with several names.
fn first_name(index: &Index, number: usize) -> usize {
    match index.entries[number].kind {
        Kind::HardLink { entry } => entry as usize,
        _ => number,
    }
}

/// Whether a host's file holds these bytes of the payload.
fn holds(
    contents: &mut Contents<'_>,
    tree: &Tree,
    content: Content,
    size: u64,
    host: &Path,
) -> Result<bool, ActionError> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| ActionError::Changes { path: host.to_owned(), why: error.to_string() };
    let mut file = open_file(host).map_err(failed)?;
    let (mut same, mut buffer) = (true, Vec::new());
    contents.kept(tree, content, size, |plain| {
        if same {
            buffer.resize(plain.len(), 0);
            same = match file.read_exact(&mut buffer) {
                Ok(()) => buffer == plain,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(())
    })?;
    Ok(same)
}
