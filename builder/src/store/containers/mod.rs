//! Containers: a tree with settings, under a name.
//!
//! ```text
//! names/NAME                   the id of the container that has the name
//! containers/ID/container.json its settings, replaced whole under `lock`
//! containers/ID/ROOT/          its tree: the user's own files, all writable and removable
//! containers/ID/changes/       instead of it: what it has changed of the image's tree that it stands on; see [`base`]
//! containers/ID/owners         owners and modes of the image that the tree on disk does not have, by path
//! containers/ID/ledger         the same for root emulation, as it has changed since; its own form
//! containers/ID/lease          held by whatever runs in it
//! containers/ID/runs/*.json    what ran, and what came of it
//! containers/.new-ID/          one that is being made; `lease` is held by whoever makes it
//! trash/*                      on its way out
//! ```
//!
//! Rules: a container appears by one rename when it is whole, and vanishes by one rename before its files are removed. Order
//! of locks: a container's, then the names'. Every wait has an end. A process that is killed leaves at most a directory
//! that nobody looks at, which `prune` removes.

pub mod base;
mod damage;
pub mod edits;
mod error;
pub mod names;
mod remove;
mod runs;
mod settings;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

pub use error::ContainerError;
pub(in crate::store) use remove::remove_aside;
pub use remove::remove_tree;
pub use runs::{Lease, RunRecord, State, boot_id, started};
pub use settings::{SETTINGS_VERSION, Settings, Sharing};
pub use verdict::{Check, Verdict};

use super::{Store, lock, make_directory, read, replace, replace_fleeting};

/// Digits of an id.
const ID: usize = 32;
/// Digits that are shown of it.
const SHORT: usize = 12;
/// Where the tree is.
const ROOT: &str = "ROOT";

/// The containers of a store.
#[derive(Debug, Clone, Copy)]
pub struct Containers<'store> {
    store: &'store Store,
}

/// A container that was there when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    id: String,
    directory: PathBuf,
}

/// A container that is being made; it is gone again unless [`finish`](Draft::finish) is called.
#[derive(Debug)]
pub struct Draft<'store> {
    containers: Containers<'store>,
    id: String,
    directory: PathBuf,
    lease: Option<File>,
}

/// The right to change a container.
#[derive(Debug)]
pub struct Changing {
    _lock: File,
}

impl Store {
    /// Its containers.
    #[must_use]
    pub fn containers(&self) -> Containers<'_> {
        Containers { store: self }
    }
}

/// Whether it can be a container's id.
fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// As much of an id as people see.
fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

impl<'store> Containers<'store> {
    fn directory(self) -> PathBuf {
        self.store.root().join("containers")
    }

    fn directory_of(self, id: &str) -> PathBuf {
        self.directory().join(id)
    }

    fn container(self, id: String) -> Container {
        Container { directory: self.directory_of(&id), id }
    }

    /// Begins to make one. `name` is only looked at; [`Draft::finish`] gives it.
    ///
    /// # Errors
    /// [`ContainerError::Taken`] early, [`ContainerError::File`].
    pub fn begin(self, name: Option<&str>) -> Result<Draft<'store>, ContainerError> {
        if let Some(name) = name {
            self.lock_names()?.is_free(name)?;
        }
        let directory = self.directory();
        make_directory(&directory).map_err(ContainerError::file("make", &directory))?;
        loop {
            let id = new_id().map_err(ContainerError::file("read", "/dev/urandom"))?;
            let directory = directory.join(format!(".new-{id}"));
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(ContainerError::file("make", &directory))?,
            }
            let mut draft = Draft { containers: self, id, directory, lease: None };
            draft.lease = draft_lease(&draft.directory)?;
            if draft.lease.is_none() {
                continue;
            }
            let root = draft.root();
            fs::create_dir(&root).map_err(ContainerError::file("make", &root))?;
            return Ok(draft);
        }
    }

    /// The container that an id, a name, or the beginning of an id means, in this order.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`], [`ContainerError::Ambiguous`].
    pub fn resolve(self, given: &str) -> Result<Container, ContainerError> {
        if is_id(given) && self.directory_of(given).is_dir() {
            return Ok(self.container(given.to_owned()));
        }
        if let Some(id) = self.named(given)? {
            return Ok(self.container(id));
        }
        let mut found: Vec<String> = if given.is_empty() {
            Vec::new()
        } else {
            self.ids()?.into_iter().filter(|id| id.starts_with(given)).collect()
        };
        match (found.pop(), found.len()) {
            (Some(id), 0) => Ok(self.container(id)),
            (Some(_), others) => Err(ContainerError::Ambiguous { given: given.to_owned(), count: others + 1 }),
            (None, _) => Err(ContainerError::NoSuch { given: given.to_owned() }),
        }
    }

    fn ids(self) -> Result<Vec<String>, ContainerError> {
        let directory = self.directory();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ContainerError::file("read", directory)(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| is_id(name)).collect();
        ids.sort();
        Ok(ids)
    }

    /// All containers, by id.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn list(self) -> Result<Vec<Container>, ContainerError> {
        Ok(self.ids()?.into_iter().map(|id| self.container(id)).collect())
    }

    /// Gives a container one more name.
    ///
    /// # Errors
    /// [`ContainerError::Taken`], [`ContainerError::NoSuch`].
    pub fn add_name(self, container: &Container, name: &str) -> Result<(), ContainerError> {
        let _changing = container.lock()?;
        self.lock_names()?.give(name, &container.id)
    }

    /// Changes one of a container's names (or gives the first one, if `old` is none).
    ///
    /// # Errors
    /// [`ContainerError::Taken`], [`ContainerError::NoSuch`].
    pub fn rename(self, container: &Container, old: Option<&str>, new: &str) -> Result<(), ContainerError> {
        let _changing = container.lock()?;
        let names = self.lock_names()?;
        // A crash in the middle leaves both names, which harms nobody; the same command again goes on from there.
        let begun = old != Some(new) && self.named(new)?.as_deref() == Some(&container.id);
        if !begun {
            names.give(new, &container.id)?;
        }
        match old {
            Some(old) if self.named(old)?.as_deref() == Some(&container.id) => names.take(old),
            _ => Ok(()),
        }
    }

    /// Takes a name from its container, which stays.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`] if no container has it.
    pub fn remove_name(self, name: &str) -> Result<(), ContainerError> {
        let names = self.lock_names()?;
        if self.named(name)?.is_none() {
            return Err(ContainerError::NoSuch { given: name.to_owned() });
        }
        names.take(name)
    }
}

impl Draft<'_> {
    /// Its id, once it is made.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory for now.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its tree for now: an empty directory at first.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// A directory beside the tree for what is to be renamed into it; what is left in it goes when it is made.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn apart(&self) -> Result<PathBuf, ContainerError> {
        let path = self.directory.join("apart");
        make_directory(&path).map_err(ContainerError::file("make", &path))?;
        Ok(path)
    }

    /// Makes it a container, under a name if one is given.
    ///
    /// # Errors
    /// [`ContainerError::Taken`] if another was faster; then nothing is left.
    pub fn finish(mut self, mut settings: Settings, name: Option<&str>) -> Result<Container, ContainerError> {
        settings.version = settings.form();
        if settings.created == 0 {
            settings.created = super::now();
        }
        remove_tree(&self.directory.join("apart"))?;
        let path = self.directory.join("container.json");
        // What goes with its run need not outlive a crash of the node, and a disk's answer is not waited for.
        let goes = settings.options.get("remove").and_then(serde_json::Value::as_bool) == Some(true);
        let write = if goes { replace_fleeting } else { replace };
        write(&path, &settings.encode(), 0o600).map_err(ContainerError::file("write", &path))?;
        let container = self.containers.container(self.id.clone());
        let appear = |from: &Path| fs::rename(from, &container.directory).map_err(ContainerError::file("rename", from));
        match name {
            Some(name) => {
                let names = self.containers.lock_names()?;
                // The name first: until the container is there it means nothing, and nobody else can take it meanwhile.
                names.give(name, &self.id)?;
                if let Err(error) = appear(&self.directory) {
                    let _ = names.take(name);
                    return Err(error);
                }
            }
            None => appear(&self.directory)?,
        }
        self.lease = None;
        // Nothing is left for the destructor.
        self.directory = PathBuf::new();
        Ok(container)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // On NFS, a file that is open would stay, under another name.
        self.lease = None;
        if !self.directory.as_os_str().is_empty() {
            let _ = remove_tree(&self.directory);
        }
    }
}

impl Container {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As much of its id as people see.
    #[must_use]
    pub fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// Its directory in the store.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory with its tree: its own, or its view of the image's. One that stands on an image's tree otherwise has
    /// none ([`stands_on`](Self::stands_on)).
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let own = self.directory.join(ROOT);
        let view = self.view();
        if view.is_dir() && !own.is_dir() { view } else { own }
    }

    /// Where root emulation keeps owners and modes, in its own form; may be absent.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.directory.join("ledger")
    }

    /// Owners and modes that the image has and the tree on disk has not; one line per path. May be absent.
    #[must_use]
    pub fn owners(&self) -> PathBuf {
        self.directory.join("owners")
    }

    /// Its settings as they are now.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`], [`ContainerError::Damaged`], [`ContainerError::Newer`].
    pub fn settings(&self) -> Result<Settings, ContainerError> {
        let path = self.directory.join("container.json");
        let damaged = |why: String| ContainerError::Damaged { id: self.id.clone(), why, root: self.root() };
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_dir() => {
                return Err(damaged("it has no container.json".to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContainerError::NoSuch { given: self.short_id().to_owned() });
            }
            Err(cause) => return Err(ContainerError::File { action: "read", path, cause }),
        };
        let settings: Settings = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("its container.json cannot be understood: {error}")))?;
        match settings.version {
            1..=SETTINGS_VERSION => Ok(settings),
            0 => Err(damaged("its container.json has no version".to_owned())),
            version => Err(ContainerError::Newer { id: self.id.clone(), version }),
        }
    }

    /// What is wrong with its settings, if anything, that does not keep them from being used.
    #[must_use]
    pub fn damage_of_settings(&self) -> Option<String> {
        let bytes = fs::read(self.directory.join("container.json")).ok()?;
        let id = self.short_id();
        (!settings::is_as_written(&bytes)).then(|| {
            format!(
                "its container.json is not as it was written (by hand, or damaged): look at `coracle inspect {id}`; if that is right, `coracle setup --execmode=… {id}` writes it anew, otherwise make the container anew"
            )
        })
    }

    /// Waits for the right to change it.
    ///
    /// # Errors
    /// [`ContainerError::NoSuch`] if it was removed meanwhile, [`ContainerError::Busy`].
    pub fn lock(&self) -> Result<Changing, ContainerError> {
        let path = self.directory.join("lock");
        let gone = || ContainerError::NoSuch { given: self.short_id().to_owned() };
        let file = match lock::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            result => result.map_err(ContainerError::file("lock", &path))?,
        };
        match lock::exclusive(&file) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ContainerError::Busy { container: self.short_id().to_owned() });
            }
            result => result.map_err(ContainerError::file("lock", &path))?,
        }
        if lock::is_at(&file, &path) { Ok(Changing { _lock: file }) } else { Err(gone()) }
    }

    /// Changes its settings.
    ///
    /// # Errors
    /// Those of [`lock`](Self::lock) and [`settings`](Self::settings).
    pub fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<(), ContainerError> {
        let _changing = self.lock()?;
        let mut settings = self.settings()?;
        change(&mut settings);
        let path = self.directory.join("container.json");
        replace(&path, &settings.encode(), 0o600).map_err(ContainerError::file("write", &path))
    }
}

/// The lease of a directory that was made just now; none if somebody who sweeps was faster, and takes the directory away.
pub(in crate::store) fn draft_lease(directory: &Path) -> Result<Option<File>, ContainerError> {
    let path = directory.join("lease");
    let lease = match lock::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lease => lease.map_err(ContainerError::file("make", &path))?,
    };
    let busy = lock::try_exclusive(&lease).map_err(ContainerError::file("lock", &path))? == lock::Try::Busy;
    Ok((!busy && lock::is_at(&lease, &path)).then_some(lease))
}

/// 128 random bits in hexadecimal.
fn new_id() -> io::Result<String> {
    let mut bytes = [0; ID / 2];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    use std::fmt::Write as _;
    Ok(bytes.iter().fold(String::with_capacity(ID), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    }))
}
