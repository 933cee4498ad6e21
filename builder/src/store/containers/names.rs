//! Names of containers: `names/NAME` holds an id. A container may have several, or none.
//!
//! A name counts only while its container is there, so a crash between the two leaves nothing to mend. Changes happen
//! under one lock; the file itself is made by link(2), which is exclusive on network file systems too.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use super::{Containers, error::ContainerError};
use crate::store::{lock, make_directory, read_to_string};

/// The longest name.
const LONGEST: usize = 128;

/// Whether a container can have the name.
///
/// # Errors
/// [`ContainerError::Name`].
pub fn check(name: &str) -> Result<(), ContainerError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is longer than 128 bytes"
    } else if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        "its first character is no letter or digit"
    } else if name.contains('/') {
        "it holds a slash"
    } else if name.contains(char::is_whitespace) {
        "it holds a space"
    } else if !name.chars().all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char)) {
        "it holds a character that is none of those"
    } else {
        return Ok(());
    };
    Err(ContainerError::Name { given: name.to_owned(), why })
}

/// The right to change names.
#[derive(Debug)]
pub(super) struct Locked<'store> {
    containers: Containers<'store>,
    _lock: File,
}

impl<'store> Containers<'store> {
    fn names_directory(self) -> PathBuf {
        self.store.root().join("names")
    }

    /// The right to change names, soon.
    pub(super) fn lock_names(self) -> Result<Locked<'store>, ContainerError> {
        let directory = self.names_directory();
        let path = directory.join(".lock");
        let open = || {
            make_directory(&directory)?;
            let file = lock::open(&path)?;
            lock::exclusive(&file)?;
            lock::look_anew([directory.as_path(), &self.directory()]);
            Ok(file)
        };
        let lock = open().map_err(ContainerError::file("lock", &path))?;
        Ok(Locked { containers: self, _lock: lock })
    }

    /// The id that a name means, if that container is there.
    pub(super) fn named(self, name: &str) -> Result<Option<String>, ContainerError> {
        if check(name).is_err() {
            return Ok(None);
        }
        let path = self.names_directory().join(name);
        let id = match read_to_string(&path) {
            Ok(id) => id.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(ContainerError::File { action: "read", path, cause }),
        };
        Ok(Some(id).filter(|id| super::is_id(id) && self.directory_of(id).is_dir()))
    }

    /// Every name, by id, sorted. Names of containers that are gone are among them.
    ///
    /// # Errors
    /// [`ContainerError::File`].
    pub fn names(self) -> Result<BTreeMap<String, Vec<String>>, ContainerError> {
        let directory = self.names_directory();
        let failed = || ContainerError::file("read", &directory);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed()(error)),
        };
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned).filter(|name| check(name).is_ok()) else {
                continue;
            };
            // Removed meanwhile, or never a name.
            if let Ok(id) = read_to_string(&entry.path()) {
                names.entry(id.trim().to_owned()).or_default().push(name);
            }
        }
        names.values_mut().for_each(|names| names.sort());
        Ok(names)
    }
}

impl Locked<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.containers.names_directory().join(name)
    }

    /// Fails if a container has the name.
    pub(super) fn is_free(&self, name: &str) -> Result<(), ContainerError> {
        check(name)?;
        match self.containers.named(name)? {
            Some(id) => Err(ContainerError::Taken { name: name.to_owned(), id: super::short(&id).to_owned() }),
            None => Ok(()),
        }
    }

    /// Gives a name to a container, which may be about to appear.
    pub(super) fn give(&self, name: &str, id: &str) -> Result<(), ContainerError> {
        self.is_free(name)?;
        let path = self.path(name);
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(self.containers.names_directory())?;
            writeln!(file, "{id}")?;
            file.as_file().sync_all()?;
            // What is there belongs to nobody: it was looked at just now, under the lock.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Some file systems have no hard links; there the lock must do.
            fs::hard_link(file.path(), &path).or_else(|error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS) => fs::rename(file.path(), &path),
                _ => Err(error),
            })
        };
        write().map_err(ContainerError::file("write", &path))
    }

    /// Takes a name away, whoever has it.
    pub(super) fn take(&self, name: &str) -> Result<(), ContainerError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ContainerError::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Takes away the names of containers that are gone; how many there were.
    pub(super) fn sweep(&self) -> Result<usize, ContainerError> {
        let mut swept = crate::store::sweep_unfinished(&self.containers.names_directory());
        for (id, names) in self.containers.names()? {
            if !super::is_id(&id) || !self.containers.directory_of(&id).is_dir() {
                for name in names {
                    self.take(&name)?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_that_nobody_can_have() {
        for name in ["", ".", "..", "a/b", "/a", "a b", "é", "-a", ".a", "a\n", "a[1]", "a\0", "--name"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert!(check(&"a".repeat(129)).is_err());
        for name in ["a", "web-1", "My.App_2", "0"] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }
}
