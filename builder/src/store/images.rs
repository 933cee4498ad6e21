//! Images by reference: which manifest a name meant when it was last pulled, for each platform.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, digest, lock, replace};

/// A reference and what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The reference in full: `docker.io/library/alpine:3.20`.
    pub reference: String,
    /// By platform, `linux/amd64`.
    pub platforms: BTreeMap<String, Pulled>,
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

impl Store {
    fn image_path(&self, reference: &str) -> PathBuf {
        // A reference may be longer than a file name may be, and holds slashes.
        let name = digest::sha256(reference.as_bytes());
        self.root.join("images").join(format!("{}.json", &name["sha256:".len()..]))
    }

    /// What a reference meant; `None` if it was never pulled, or its record is damaged (it is then pulled again).
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn image(&self, reference: &str) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.image_path(reference);
        match fs::read(&path) {
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
        let directory = self.root.join("images");
        let error = |cause| StoreError::File { action: "read", path: directory.clone(), cause };
        let mut records = Vec::new();
        for entry in fs::read_dir(&directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(bytes) = fs::read(&path)
                && let Ok(record) = serde_json::from_slice::<ImageRecord>(&bytes)
            {
                records.push(record);
            }
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// Remembers what a reference means for a platform.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn record(&self, reference: &str, platform: &str, pulled: Pulled) -> Result<(), StoreError> {
        let path = self.image_path(reference);
        // The lock covers reading, changing and writing; the record itself is replaced, so it cannot carry the lock.
        let lock_path = self.root.join("images").join(".lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .and_then(|file| lock::exclusive(&file).map(|()| file))
            .map_err(|cause| StoreError::File { action: "lock", path: lock_path, cause })?;
        let mut record = self.image(reference)?.unwrap_or_default();
        reference.clone_into(&mut record.reference);
        record.platforms.insert(platform.to_owned(), pulled);
        let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
        replace(&path, &json, 0o644).map_err(|cause| StoreError::File { action: "write", path, cause })?;
        drop(lock);
        Ok(())
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
    fn a_damaged_record_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        fs::write(store.image_path("x"), "{\"reference\":").expect("written");
        assert_eq!(store.image("x").expect("read"), None);
        assert_eq!(store.images().expect("listed"), []);
    }
}
