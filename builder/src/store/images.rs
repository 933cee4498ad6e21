//! Images by reference: which manifest a name meant when it was last pulled, for each platform.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, digest, lock, read, replace};

/// A reference and what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The reference in full: `docker.io/library/alpine:3.20`.
    pub reference: String,
    /// By platform, `linux/amd64`.
    pub platforms: BTreeMap<String, Pulled>,
    /// `rmi` refuses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
}

/// One platform's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Digest of the image manifest.
    pub manifest: String,
    /// Digest of what the reference itself names: an index, or the same manifest.
    pub target: String,
    /// Size of config and layers as stored.
    #[serde(default)]
    pub size: u64,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub pulled: u64,
}

impl Pulled {
    /// Whether it means the same image, whenever that was learnt.
    fn is_same(&self, other: &Self) -> bool {
        (&self.manifest, &self.target, self.size) == (&other.manifest, &other.target, other.size)
    }
}

impl Store {
    fn image_path(&self, reference: &str) -> PathBuf {
        // A reference may be longer than a file name may be, and holds slashes.
        let name = digest::sha256(reference.as_bytes());
        let name = name.strip_prefix("sha256:").unwrap_or(&name);
        self.root.join("images").join(format!("{name}.json"))
    }

    /// What a reference meant; `None` if it was never pulled, or its record is damaged (it is then pulled again).
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn image(&self, reference: &str) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.image_path(reference);
        match read(&path) {
            Ok(bytes) => {
                Ok(serde_json::from_slice(&bytes).ok().filter(|record: &ImageRecord| record.reference == reference))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::File { action: "read", path, cause }),
        }
    }

    /// Every image, sorted by reference; damaged records are left out.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        Ok(self.image_records()?.0)
    }

    /// Every image, sorted by reference; and the files of damaged records.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn image_records(&self) -> Result<(Vec<ImageRecord>, Vec<PathBuf>), StoreError> {
        let directory = self.root.join("images");
        let error = |cause| StoreError::File { action: "read", path: directory.clone(), cause };
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&directory) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok((records, damaged)),
            entries => entries.map_err(error)?,
        };
        for entry in entries {
            let path = entry.map_err(error)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || !name.ends_with(".json") {
                continue;
            }
            match read(&path).map(|bytes| serde_json::from_slice::<ImageRecord>(&bytes)) {
                Ok(Ok(record)) if self.image_path(&record.reference) == path => records.push(record),
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => damaged.push(path),
            }
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        damaged.sort();
        Ok((records, damaged))
    }

    /// The right to change records. It covers reading, changing and writing; a record is replaced, so it cannot carry
    /// the lock itself.
    pub(super) fn lock_images(&self) -> Result<File, StoreError> {
        let path = self.root.join("images").join(".lock");
        let lock = lock::open(&path).and_then(|file| lock::exclusive(&file).map(|()| file));
        lock.map_err(|cause| StoreError::File { action: "lock", path, cause })
    }

    fn write_image(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let path = self.image_path(&record.reference);
        let json = serde_json::to_vec_pretty(record).unwrap_or_default();
        replace(&path, &json, 0o644).map_err(|cause| StoreError::File { action: "write", path, cause })
    }

    /// Remembers what a reference means for a platform.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn record(&self, reference: &str, platform: &str, pulled: Pulled) -> Result<(), StoreError> {
        // What is known already is not written again: the store may be another's, to be read only.
        let known = self.image(reference)?;
        if known.is_some_and(|known| known.platforms.get(platform).is_some_and(|known| known.is_same(&pulled))) {
            return Ok(());
        }
        let _lock = self.lock_images()?;
        let mut record = self.image(reference)?.unwrap_or_default();
        reference.clone_into(&mut record.reference);
        record.platforms.insert(platform.to_owned(), pulled);
        self.write_image(&record)
    }

    /// Lets another reference mean the same image; what that one meant before is replaced. False if there is no image.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn tag(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let _lock = self.lock_images()?;
        let Some(record) = self.image(from)? else { return Ok(false) };
        let protected = self.image(to)?.is_some_and(|there| there.protected);
        self.write_image(&ImageRecord { reference: to.to_owned(), protected, ..record })?;
        Ok(true)
    }

    /// Forgets a reference, or one platform of it; false if it was not there.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn forget_image(&self, reference: &str, platform: Option<&str>) -> Result<bool, StoreError> {
        let _lock = self.lock_images()?;
        if let (Some(platform), Some(mut record)) = (platform, self.image(reference)?) {
            if record.platforms.remove(platform).is_none() {
                return Ok(false);
            }
            if !record.platforms.is_empty() {
                self.write_image(&record)?;
                return Ok(true);
            }
        }
        let path = self.image_path(reference);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(StoreError::File { action: "remove", path, cause }),
            Ok(()) => Ok(true),
        }
    }

    /// Protects an image from removal, or no longer; false if there is none.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn protect_image(&self, reference: &str, protected: bool) -> Result<bool, StoreError> {
        let _lock = self.lock_images()?;
        let Some(mut record) = self.image(reference)? else { return Ok(false) };
        record.protected = protected;
        self.write_image(&record)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_a_reference_stand_side_by_side() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        let name = format!("localhost:5000/{}x:1", "deep/".repeat(45));
        let pulled = |digit: &str| Pulled { manifest: format!("sha256:{}", digit.repeat(64)), ..Pulled::default() };
        store.record(&name, "linux/amd64", pulled("a")).expect("recorded");
        store.record(&name, "linux/386", pulled("b")).expect("recorded");
        store.record(&name, "linux/amd64", pulled("c")).expect("recorded");
        let record = store.image(&name).expect("read").expect("there");
        assert_eq!(record.platforms["linux/amd64"], pulled("c"));
        assert_eq!(record.platforms["linux/386"], pulled("b"));
        assert_eq!(store.images().expect("listed"), [record]);
    }

    #[test]
    fn references_are_tagged_protected_and_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        store.record("a", "linux/amd64", Pulled::default()).expect("recorded");
        store.record("a", "linux/386", Pulled::default()).expect("recorded");
        assert!(store.protect_image("a", true).expect("changed") && !store.protect_image("x", true).expect("none"));
        assert!(store.tag("a", "b").expect("tagged") && !store.tag("x", "b").expect("none"));
        let b = store.image("b").expect("read").expect("there");
        assert!(!b.protected && b.platforms.len() == 2 && store.image("a").expect("read").expect("there").protected);
        assert!(store.forget_image("b", Some("linux/386")).expect("forgotten"));
        assert!(!store.forget_image("b", Some("linux/386")).expect("it was gone"));
        assert!(store.forget_image("b", Some("linux/amd64")).expect("forgotten"));
        assert_eq!(store.image("b").expect("read"), None);
        assert!(store.forget_image("a", None).expect("forgotten") && !store.forget_image("a", None).expect("gone"));
    }

    #[test]
    fn a_damaged_record_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        fs::write(store.image_path("x"), "{\"reference\":").expect("written");
        assert_eq!(store.image("x").expect("read"), None);
        assert_eq!(store.images().expect("listed"), []);
    }
}
