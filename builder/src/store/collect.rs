//! Freeing what no image refers to: blobs, and downloads that nobody goes on with.
//!
//! Whoever reads or adds blobs holds a shared lock for as long as it does; collecting takes it alone, and does nothing if
//! it cannot: the next collection will. So nothing vanishes under a pull that has not told yet what it is for.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use super::{Store, StoreError, digest, lock};

/// What collecting gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub files: usize,
    /// Bytes freed.
    pub bytes: u64,
    /// Another command uses blobs, so none were removed.
    pub busy: bool,
    /// Nothing was freed, since this file system has no locks by which to know that nobody uses it.
    pub lockless: bool,
    /// An image's manifest cannot be read, so nobody knows what it needs, and no blob was removed.
    pub damaged: bool,
}

impl Store {
    /// Keeps all blobs where they are until the file is closed; none where the store cannot be written to.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn use_blobs(&self) -> Result<Option<File>, StoreError> {
        let path = self.root.join("blobs").join(".lock");
        let failed = |cause| StoreError::File { action: "lock", path: path.clone(), cause };
        let file = match lock::open(&path).or_else(|error| File::open(&path).map_err(|_| error)) {
            Ok(file) => file,
            // A store to be read only is not collected either.
            Err(error) if super::is_read_only(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match lock::wait(lock::PATIENCE, || lock::try_shared(&file)).map_err(failed)? {
            lock::Try::Busy => {
                Err(failed(io::Error::new(io::ErrorKind::TimedOut, "another command has held it for a minute")))
            }
            _ => Ok(Some(file)),
        }
    }

    /// Digests of every blob that the images need; `None` if a manifest cannot be read.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn needed_blobs(&self) -> Result<Option<BTreeSet<String>>, StoreError> {
        let mut needed = BTreeSet::new();
        for record in self.images()? {
            for pulled in record.platforms.values() {
                needed.insert(pulled.target.clone());
                let Some(blobs) = self.blobs_of(&pulled.manifest)? else { return Ok(None) };
                needed.insert(pulled.manifest.clone());
                needed.extend(blobs);
            }
        }
        Ok(Some(needed))
    }

    /// Digests of config and layers of a manifest, config first; `None` if it cannot be read.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn blobs_of(&self, manifest: &str) -> Result<Option<Vec<String>>, StoreError> {
        let Some(parsed) = digest::parse(manifest) else { return Ok(None) };
        let bytes = match super::read(&self.blob_path(&parsed)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::File { action: "read", path: self.blob_path(&parsed), cause }),
        };
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { return Ok(None) };
        let digest = |descriptor: &Value| descriptor["digest"].as_str().map(str::to_owned);
        let layers = value["layers"].as_array().into_iter().flatten().map(digest);
        Ok([digest(&value["config"])].into_iter().chain(layers).collect())
    }

    /// Removes blobs that no image needs, and downloads that nobody has gone on with for `idle`.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn collect(&self, idle: Duration) -> Result<Collected, StoreError> {
        let mut collected = self.collect_partial(idle)?;
        {
            let _lock = self.lock_images()?;
            collected.files += super::sweep_unfinished(&self.root.join("images"));
        }
        let path = self.root.join("blobs").join(".lock");
        let failed = |cause| StoreError::File { action: "lock", path: path.clone(), cause };
        let file = lock::open(&path).map_err(failed)?;
        match lock::wait(Duration::from_secs(1), || lock::try_exclusive(&file)).map_err(failed)? {
            lock::Try::Locked => {}
            // Without locks nobody knows who reads; blobs stay.
            lock::Try::Busy => return Ok(Collected { busy: true, ..collected }),
            lock::Try::None => return Ok(Collected { lockless: true, ..collected }),
        }
        let Some(needed) = self.needed_blobs()? else { return Ok(Collected { damaged: true, ..collected }) };
        for (digest, path) in self.stored_blobs()? {
            if !needed.contains(&digest) {
                remove(path, &mut collected)?;
            }
        }
        Ok(collected)
    }

    /// Every blob there is, as digest and path; files that are no blobs come with an empty digest.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn stored_blobs(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let root = self.root.join("blobs");
        let mut blobs = Vec::new();
        for algorithm in list(&root)? {
            let kind = algorithm.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !algorithm.is_dir() {
                continue;
            }
            for path in list(&algorithm)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let digest = format!("{kind}:{name}");
                blobs.push((digest::parse(&digest).map(|_| digest).unwrap_or_default(), path));
            }
        }
        blobs.sort();
        Ok(blobs)
    }

    fn collect_partial(&self, idle: Duration) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for path in list(&self.root.join("partial"))? {
            let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
            let old = file.metadata().and_then(|meta| meta.modified());
            let old = old.is_ok_and(|when| when.elapsed().unwrap_or_default() >= idle);
            // Removed while the lock is held: whoever waits for it looks again.
            if old && lock::try_exclusive(&file).is_ok_and(|answer| answer == lock::Try::Locked) {
                remove(path, &mut collected)?;
            }
        }
        Ok(collected)
    }
}

fn remove(path: PathBuf, collected: &mut Collected) -> Result<(), StoreError> {
    let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
    match fs::remove_file(&path) {
        Ok(()) => {
            collected.files += 1;
            collected.bytes += bytes;
            Ok(())
        }
        // On NFS, one that was open when it was removed stays busy under another name until it is closed.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => Ok(()),
        Err(cause) => Err(StoreError::File { action: "remove", path, cause }),
    }
}

fn list(directory: &std::path::Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(StoreError::File { action: "read", path: directory.to_owned(), cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Pulled;

    #[test]
    fn what_no_image_needs_is_freed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        let put = |bytes: &[u8]| {
            let digest = digest::sha256(bytes);
            store.put_blob(&digest::parse(&digest).expect("a digest"), bytes).expect("put");
            digest
        };
        let (config, layer, other) = (put(b"{}"), put(b"layer"), put(b"other"));
        let manifest =
            put(format!("{{\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{{\"digest\":\"{layer}\"}}]}}")
                .as_bytes());
        let pulled = Pulled { target: manifest.clone(), manifest: manifest.clone(), ..Pulled::default() };
        store.record("x", "linux/amd64", pulled).expect("recorded");
        let using = store.use_blobs().expect("used");
        assert!(store.collect(Duration::ZERO).expect("collected").busy);
        drop(using);
        let collected = store.collect(Duration::ZERO).expect("collected");
        assert_eq!(collected, Collected { files: 1, bytes: 5, ..Collected::default() });
        let left: Vec<String> = store.stored_blobs().expect("listed").into_iter().map(|(digest, _)| digest).collect();
        assert!(left.contains(&config) && left.contains(&layer) && !left.contains(&other));
        store.discard(&digest::parse(&manifest).expect("a digest")).expect("removed");
        assert!(store.collect(Duration::ZERO).expect("collected").damaged);
        store.forget_image("x", None).expect("forgotten");
        assert_eq!(store.collect(Duration::ZERO).expect("collected").files, 2);
    }
}
