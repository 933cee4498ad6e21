//! Image trees: an image unpacked once, for all containers that stand on it.
//!
//! ```text
//! trees/ALGORITHM-HEX/       by the digest of the image's manifest; whole from the moment it has this name
//!     root/                  the tree: never changed again
//!     owners                 as a container's
//!     truths                 the same for views of hard links, in their form
//!     sum                    digest of all names, kinds, sizes and times: what is changed in place shows by them
//!     edits                  what F3 edits in it, found out once (`containers/edits/plan.rs`); need not be there
//!     spare/                 a view in which nobody changed anything, for the next container (`coracle_view::spare`)
//!     image.json             config and provenance: with it a container is made without a look at manifest and layers
//!     lease                  shared by whoever makes a container of it; who removes the tree has it alone
//! trees/.new-*/              one that is being made; `lease` is held by whoever makes it
//! ```
//!
//! Rules: a tree goes when neither an image nor a container names it, decided under the lease; a container names it
//! (`base` in its settings) before its maker lets the lease go. Nobody writes below `root`: engines put an overlay on it, or
//! link its files and break links before a change.

use std::{
    fs::{self, File},
    io,
    num::NonZero,
    path::{Path, PathBuf},
};

use coracle_format::{ImageConfig, Provenance, Time};
use coracle_view::truths::{self, Truth};
use serde::{Deserialize, Serialize};

use super::{UnpackError, unpack};
use crate::{
    flatten::{InodeKind, Tree},
    source::{Owners, WalkError, WalkOptions, walk},
    store::{
        Store,
        containers::{ContainerError, draft_lease, remove_aside, remove_tree},
        digest, lock, make_directory, replace,
    },
};

/// Number of the form of `image.json`.
const VERSION: u32 = 1;

/// What is known of an image whose tree there is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRecord {
    /// The form of this record.
    version: u32,
    /// Whose files they are: another user's tree is of no use.
    uid: u32,
    /// How to run it.
    pub config: ImageConfig,
    /// Where it came from.
    pub provenance: Provenance,
    /// The engine that whoever built it chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// An image tree that stays as long as this does.
#[derive(Debug)]
pub struct ImageTree {
    name: String,
    directory: PathBuf,
    /// What is known of the image.
    pub record: ImageRecord,
    _lease: File,
}

/// An image tree that is being made; it is gone again unless it is [`finish`](TreeDraft::finish)ed.
#[derive(Debug)]
pub struct TreeDraft<'store> {
    store: &'store Store,
    directory: PathBuf,
    lease: Option<File>,
}

/// A tree that cannot be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Its files cannot be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Its files cannot be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Anything else.
    #[error(transparent)]
    Store(#[from] ContainerError),
}

/// The directory of image trees.
pub(in crate::store) fn directory(store: &Path) -> PathBuf {
    store.join("trees")
}

/// A digest as the name of a directory; none if it is no digest.
#[must_use]
pub fn name_of(manifest: &str) -> Option<String> {
    digest::parse(manifest).map(|_| manifest.replacen(':', "-", 1))
}

impl Store {
    /// The tree of the image with this manifest, if there is one of this user's.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn image_tree(&self, manifest: &str) -> Result<Option<ImageTree>, ContainerError> {
        name_of(manifest).map_or(Ok(None), |name| self.image_tree_named(&name))
    }

    /// The tree that containers refer to by this name.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn image_tree_named(&self, name: &str) -> Result<Option<ImageTree>, ContainerError> {
        let name = name.to_owned();
        let directory = directory(self.root()).join(&name);
        let path = directory.join("lease");
        let lease = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer.map_err(ContainerError::file("open", &path))?,
        };
        match lock::wait(lock::PATIENCE, || lock::try_shared(&lease)).map_err(ContainerError::file("lock", &path))? {
            // Whoever has it alone for a minute does not remove it.
            lock::Try::Locked | lock::Try::None | lock::Try::Busy => {}
        }
        if !lock::is_at(&lease, &path) {
            return Ok(None);
        }
        let record = crate::store::read(&directory.join("image.json")).ok();
        let record = record.and_then(|bytes| serde_json::from_slice::<ImageRecord>(&bytes).ok());
        let Some(record) = record else { return Ok(None) };
        let own = nix::unistd::geteuid().as_raw();
        let fits = record.version == VERSION && record.uid == own && directory.join("root").is_dir();
        Ok(fits.then_some(ImageTree { name, directory, record, _lease: lease }))
    }

    /// Begins to make one.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn begin_image_tree(&self) -> Result<TreeDraft<'_>, ContainerError> {
        let all = directory(self.root());
        make_directory(&all).map_err(ContainerError::file("make", &all))?;
        loop {
            let made = tempfile::Builder::new().prefix(".new-").tempdir_in(&all);
            let directory = made.map_err(ContainerError::file("make", &all))?.keep();
            let draft = TreeDraft { store: self, lease: draft_lease(&directory)?, directory };
            if draft.lease.is_some() {
                return Ok(draft);
            }
        }
    }

    /// Names of all image trees, and of what is no tree any more.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn image_trees(&self) -> Result<Vec<String>, ContainerError> {
        let all = directory(self.root());
        let entries = match fs::read_dir(&all) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(ContainerError::file("read", &all))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    /// Removes the trees that neither an image nor a container names; how many they were. Those in use stay.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn collect_trees(&self) -> Result<usize, ContainerError> {
        let mut removed = 0;
        for name in self.image_trees()? {
            removed += usize::from(self.collect_tree(&name)?);
        }
        Ok(removed)
    }

    /// Removes a tree if neither an image nor a container names it.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn collect_tree(&self, name: &str) -> Result<bool, ContainerError> {
        let path = directory(self.root()).join(name);
        let lease = path.join("lease");
        let file = match File::options().read(true).write(true).open(&lease) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            answer => Some(answer.map_err(ContainerError::file("open", &lease))?),
        };
        if let Some(file) = &file {
            // Without locks nobody knows who makes a container of it just now.
            let alone = lock::try_exclusive(file).map_err(ContainerError::file("lock", &lease))?;
            if alone != lock::Try::Locked {
                return Ok(false);
            }
        }
        if self.is_needed(name)? {
            return Ok(false);
        }
        let aside = self.containers().throw_away(&path, name);
        drop(file);
        match aside {
            Ok(aside) => remove_aside(&aside).map(|_| true),
            // Another command was faster.
            Err(ContainerError::NoSuch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_needed(&self, name: &str) -> Result<bool, ContainerError> {
        let images = self.images()?;
        let mut manifests = images.iter().flat_map(|record| record.platforms.values()).map(|pulled| &pulled.manifest);
        if manifests.any(|manifest| name_of(manifest).as_deref() == Some(name)) {
            return Ok(true);
        }
        for container in self.containers().list()? {
            match container.settings() {
                Ok(settings) if settings.base.as_deref() != Some(name) => {}
                Err(ContainerError::NoSuch { .. }) => {}
                // Nobody knows what a damaged one stands on.
                _ => return Ok(true),
            }
        }
        Ok(false)
    }
}

impl ImageRecord {
    /// A record for a tree that is to be made.
    #[must_use]
    pub fn new(config: ImageConfig, provenance: Provenance, engine: Option<String>) -> Self {
        Self { version: VERSION, uid: nix::unistd::geteuid().as_raw(), config, provenance, engine }
    }
}

impl ImageTree {
    /// Its name, by which containers refer to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its list of owners, which need not be there.
    #[must_use]
    pub fn owners(&self) -> PathBuf {
        self.directory.join("owners")
    }
}

impl Store {
    /// What is wrong with an image tree, if anything.
    #[must_use]
    pub fn damage_of_tree(&self, name: &str) -> Option<String> {
        let directory = directory(self.root()).join(name);
        let mend = format!("move {} away: it is made anew when it is needed", directory.display());
        let record = fs::read(directory.join("image.json")).map(|bytes| serde_json::from_slice::<ImageRecord>(&bytes));
        if !matches!(record, Ok(Ok(ImageRecord { version: 1.., .. }))) && directory.exists() {
            return Some(format!("the record of the tree {name} is damaged: {mend}"));
        }
        let sum = fs::read_to_string(directory.join("sum"));
        match (sum, sum_of(&directory.join("root"))) {
            (Ok(sum), Ok(found)) if sum == found => None,
            // Removed meanwhile.
            _ if !directory.exists() => None,
            (Err(error), _) => Some(format!("the tree {name} cannot be checked ({error}): {mend}")),
            (_, Err(error)) => Some(format!("the tree {name} cannot be read: {error}: {mend}")),
            _ => Some(format!("the tree {name}, which containers share, was changed: {mend}")),
        }
    }
}

impl TreeDraft<'_> {
    /// A directory beside the tree for what is to be renamed into it.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn apart(&self) -> Result<PathBuf, ContainerError> {
        let path = self.directory.join("apart");
        make_directory(&path).map_err(ContainerError::file("make", &path))?;
        Ok(path)
    }

    /// Writes the tree and gives it its name. If another was faster, that one's is as good.
    ///
    /// # Errors
    /// [`TreeError`]; then nothing is left.
    pub fn finish(mut self, tree: &Tree, record: ImageRecord, threads: NonZero<usize>) -> Result<ImageTree, TreeError> {
        let manifest = record.provenance.manifest.clone().unwrap_or_default();
        let root = self.directory.join("root");
        make_directory(&root).map_err(ContainerError::file("make", &root))?;
        let unpacked = unpack(tree, &root, threads)?;
        remove_tree(&self.directory.join("apart"))?;
        let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
        let sum = sum_of(&root)?;
        for (name, bytes) in [
            ("owners", unpacked.owners.encode()),
            ("truths", truths_of(tree, &manifest)),
            ("sum", sum.into()),
            ("image.json", json),
        ] {
            let path = self.directory.join(name);
            // The last one has the others on disk with it.
            let written = if name == "image.json" { replace(&path, &bytes, 0o600) } else { fs::write(&path, bytes) };
            written.map_err(ContainerError::file("write", &path))?;
        }
        let Some(name) = name_of(&manifest) else {
            let unnamed = io::Error::new(io::ErrorKind::InvalidInput, "the image has no digest");
            return Err(ContainerError::file("name", &self.directory)(unnamed).into());
        };
        let path = directory(self.store.root()).join(name);
        for _ in 0..3 {
            match fs::rename(&self.directory, &path) {
                Ok(()) => self.directory = PathBuf::new(),
                Err(error) if path.is_dir() => {
                    if let Some(there) = self.store.image_tree(&manifest)? {
                        return Ok(there);
                    }
                    // A damaged one, or another user's.
                    drop(error);
                    let aside = self.store.containers().throw_away(&path, "tree")?;
                    let _ = remove_tree(&aside);
                    continue;
                }
                Err(error) => return Err(ContainerError::file("rename", &self.directory)(error).into()),
            }
            // Whoever collects trees meanwhile finds it in use, since the lease is ours until this returns.
            let lease = File::open(path.join("lease")).map_err(ContainerError::file("open", &path))?;
            let (name, directory) = (name_of(&manifest).unwrap_or_default(), path);
            // From alone to shared on the one descriptor that has the lock.
            if let Some(own) = &self.lease {
                lock::try_shared(own).map_err(ContainerError::file("lock", &directory))?;
            }
            lock::try_shared(&lease).map_err(ContainerError::file("lock", &directory))?;
            return Ok(ImageTree { name, directory, record, _lease: lease });
        }
        Err(ContainerError::file("rename", &self.directory)(io::ErrorKind::AlreadyExists.into()).into())
    }
}

impl Drop for TreeDraft<'_> {
    fn drop(&mut self) {
        // On NFS, a file that is open would stay, under another name.
        self.lease = None;
        if !self.directory.as_os_str().is_empty() {
            let _ = remove_tree(&self.directory);
        }
    }
}

/// The digest of all names of a tree, and of what the disk says of them.
fn sum_of(root: &Path) -> Result<String, WalkError> {
    let tree = walk(root, WalkOptions { skip_unreadable: false, owners: Owners::Kept })?;
    let mut text = Vec::new();
    for (path, id) in &tree.paths {
        let inode = tree.inode(*id);
        let (kind, size) = match &inode.kind {
            InodeKind::Directory => ('d', 0),
            InodeKind::File { size, .. } => ('f', *size),
            InodeKind::Symlink(target) => ('l', target.len() as u64),
            InodeKind::Fifo => ('p', 0),
            InodeKind::CharDevice(..) | InodeKind::BlockDevice(..) => ('s', 0),
        };
        let Time { seconds, nanoseconds } = inode.mtime;
        text.extend_from_slice(format!("{kind} {size} {seconds}.{nanoseconds} ").as_bytes());
        text.extend_from_slice(path);
        text.push(0);
    }
    Ok(digest::sha256(&text))
}

/// True modes and owners, for views.
fn truths_of(tree: &Tree, manifest: &str) -> Vec<u8> {
    let mut image = [0; 32];
    let hex = manifest.rsplit(':').next().unwrap_or_default();
    for (byte, pair) in image.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
    }
    let files = tree.paths.iter().filter_map(|(path, id)| {
        let inode = tree.inode(*id);
        let kept = matches!(inode.kind, InodeKind::Directory | InodeKind::File { .. });
        kept.then_some((path.as_slice(), Truth { mode: inode.mode, uid: inode.uid, gid: inode.gid }))
    });
    truths::write(&image, files)
}

/// Where the tree of a container's `base` is, by the container's own directory.
pub(in crate::store) fn of_container(container: &Path, base: &str) -> PathBuf {
    // STORE/containers/ID
    let store = container.ancestors().nth(2).unwrap_or(container);
    directory(store).join(base)
}
