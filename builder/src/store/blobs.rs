//! Blobs: bytes by digest, and the ones still on their way.
//!
//! A download is claimed by a lock on its partial file, so two pulls of one image share the work; the lock dies with its
//! process, and the bytes stay for the next. The holder that finishes renames the file into place while it still holds the
//! lock, so a waiter that gets the lock afterwards holds a file that is no longer at its path, sees that, and looks again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Store, StoreError, digest, lock, make_directory, replace};
use digest::Digest;

/// A blob that this process may download, and nobody else meanwhile.
#[derive(Debug)]
pub struct Partial {
    /// The bytes so far, open for reading and writing.
    pub file: File,
    path: PathBuf,
    target: PathBuf,
}

/// What trying to claim a blob gave.
#[derive(Debug)]
pub enum Claim {
    /// It is ours to download.
    Ours(Partial),
    /// Another process downloads it.
    Busy,
    /// It is there already.
    There(PathBuf),
}

impl Store {
    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }

    /// A blob that is there with the expected size; one of another size is damaged and is removed.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<PathBuf>, StoreError> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() && size.is_none_or(|size| size == meta.len()) => Ok(Some(path)),
            Ok(_) => {
                self.discard(digest)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::File { action: "look at", path, cause }),
        }
    }

    /// A blob that is there and whose bytes have the digest; a damaged one is removed.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn verified_blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<PathBuf>, StoreError> {
        let Some(path) = self.blob(digest, size)? else { return Ok(None) };
        let read = fs::metadata(&path).and_then(|meta| digest::of_file(&path, 0, meta.len(), digest));
        match read {
            Ok(Some(found)) if found == digest.as_ref() => Ok(Some(path)),
            Ok(_) => {
                self.discard(digest)?;
                Ok(None)
            }
            // A disk that cannot give the bytes back is as good as damaged; fetch them again under a new inode.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                self.discard(digest)?;
                Ok(None)
            }
            Err(cause) => Err(StoreError::File { action: "read", path, cause }),
        }
    }

    /// A small blob's bytes, verified; `None` if it is not there, or damaged (then it is removed), or over the limit.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(path) = self.blob(digest, None)? else { return Ok(None) };
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > limit) {
            return Ok(None);
        }
        let bytes = match super::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::File { action: "read", path, cause }),
        };
        let Some(mut hasher) = digest::Hasher::like(digest) else { return Ok(None) };
        hasher.update(&bytes);
        if hasher.finish() == digest.as_ref() {
            return Ok(Some(bytes));
        }
        self.discard(digest)?;
        Ok(None)
    }

    /// Keeps a small blob whose digest the caller has checked.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        self.make_algorithm(&path)?;
        replace(&path, bytes, 0o644).map_err(|cause| StoreError::File { action: "write", path, cause })
    }

    /// Tries to claim a blob for downloading.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn claim(&self, digest: &Digest, size: u64) -> Result<Claim, StoreError> {
        let path = self.root.join("partial").join(format!("{}-{}", digest.algorithm(), digest.digest()));
        let error = |cause| StoreError::File { action: "write", path: path.clone(), cause };
        loop {
            if let Some(there) = self.blob(digest, Some(size))? {
                return Ok(Claim::There(there));
            }
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(error)?;
            let file = match lock::try_exclusive(&file).map_err(error)? {
                lock::Try::Busy => return Ok(Claim::Busy),
                lock::Try::Locked if same_file(&file, &path) => file,
                // Renamed into place, or removed, between our open and our lock.
                lock::Try::Locked => continue,
                // No locks here (some network file systems): a name of our own instead, and no share in others' work.
                lock::Try::None => return self.claim_unlocked(digest).map(Claim::Ours),
            };
            // Finished by another between the look above and our lock?
            if let Some(there) = self.blob(digest, Some(size))? {
                let _ = fs::remove_file(&path);
                return Ok(Claim::There(there));
            }
            let target = self.blob_path(digest);
            self.make_algorithm(&target)?;
            return Ok(Claim::Ours(Partial { file, path, target }));
        }
    }

    fn claim_unlocked(&self, digest: &Digest) -> Result<Partial, StoreError> {
        let directory = self.root.join("partial");
        let (file, path) = tempfile::Builder::new()
            .prefix(digest.digest())
            .tempfile_in(&directory)
            .and_then(|file| file.keep().map_err(|error| error.error))
            .map_err(|cause| StoreError::File { action: "write in", path: directory, cause })?;
        let target = self.blob_path(digest);
        self.make_algorithm(&target)?;
        Ok(Partial { file, path, target })
    }

    fn make_algorithm(&self, blob: &Path) -> Result<(), StoreError> {
        let Some(directory) = blob.parent() else { return Ok(()) };
        make_directory(directory).map_err(|cause| StoreError::File {
            action: "make",
            path: directory.to_owned(),
            cause,
        })
    }

    /// Removes a blob that turned out to be damaged.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::File { action: "remove damaged", path, cause })
            }
            _ => Ok(()),
        }
    }
}

impl Partial {
    /// Where it is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets the bytes so far.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn restart(&mut self) -> Result<(), StoreError> {
        use std::io::Seek as _;
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|cause| StoreError::File {
            action: "truncate",
            path: self.path.clone(),
            cause,
        })
    }

    /// Gives the blob, whole and verified by the caller, its final name.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn finish(self) -> Result<PathBuf, StoreError> {
        fs::rename(&self.path, &self.target).map_err(|cause| StoreError::File {
            action: "rename",
            path: self.path,
            cause,
        })?;
        Ok(self.target)
    }

    /// Removes it: its bytes are of no use to anyone.
    pub fn abandon(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("s")).expect("a store");
        (dir, store)
    }

    fn digest_of(bytes: &[u8]) -> Digest {
        digest::parse(&digest::sha256(bytes)).expect("a digest")
    }

    #[test]
    fn a_blob_has_one_downloader_at_a_time() {
        let (_dir, store) = store();
        let digest = digest_of(b"hello");
        let Claim::Ours(mut partial) = store.claim(&digest, 5).expect("claimed") else { panic!("ours") };
        assert!(matches!(store.claim(&digest, 5).expect("asked"), Claim::Busy));
        partial.file.write_all(b"hel").expect("written");
        drop(partial);
        let Claim::Ours(mut partial) = store.claim(&digest, 5).expect("claimed again") else { panic!("ours") };
        assert_eq!(partial.file.metadata().expect("length").len(), 3, "the first three bytes are kept");
        std::io::Seek::seek(&mut partial.file, io::SeekFrom::End(0)).expect("seek");
        partial.file.write_all(b"lo").expect("written");
        partial.finish().expect("renamed");
        assert!(matches!(store.claim(&digest, 5).expect("asked"), Claim::There(_)));
        assert_eq!(fs::read_dir(store.root().join("partial")).expect("listed").count(), 0);
    }

    #[test]
    fn damage_is_noticed_and_removed() {
        let (_dir, store) = store();
        let digest = digest_of(b"hello");
        store.put_blob(&digest, b"hellO").expect("put");
        assert!(store.blob(&digest, Some(5)).expect("looked").is_some(), "the size alone shows nothing");
        assert!(store.verified_blob(&digest, Some(5)).expect("looked").is_none());
        assert!(!store.blob_path(&digest).exists());
        store.put_blob(&digest, b"hell").expect("put");
        assert!(store.blob(&digest, Some(5)).expect("looked").is_none());
        assert!(!store.blob_path(&digest).exists());
        store.put_blob(&digest, b"hello").expect("put");
        assert_eq!(store.read_blob(&digest, 100).expect("read").as_deref(), Some(&b"hello"[..]));
    }
}
