//! What was pulled: layers and images by digest, under `$CORACLE_DIR` or `~/.coracle`.
//!
//! ```text
//! version              the layout's number; a greater one is refused and nothing is touched
//! blobs/ALG/HEX        manifests, configs and layers, by digest, never changed once there
//! partial/ALG-HEX      a blob on its way; whoever downloads holds a lock on it, and leaves it for the next if killed
//! images/HEX.json      a reference, and which manifest it means for each platform
//! names/ containers/ trash/   see [`containers`]
//! ```
//!
//! Rules: whatever appears under a final name was renamed there whole. A lock concerns one object. Nothing here is trusted
//! unseen: a blob's size is compared before use and its digest before its content is believed, so a crash, a full disk or a
//! bad disk costs a download, never a wrong image.

mod blobs;
mod check;
mod collect;
pub mod containers;
pub mod digest;
mod images;
mod local;
mod lock;
pub mod trees;
pub mod usage;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::source::reason;
pub use blobs::{Claim, Partial};
pub use check::Findings;
pub use collect::Collected;
pub use images::{ImageRecord, Pulled};
pub use local::StoredLayer;

/// Number of the layout that this version reads and writes.
pub const STORE_VERSION: u32 = 1;

/// A store that is there and of a version we know.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be made, or written to.
    #[error("cannot use the store {path}: {}{}", reason(.cause), unusable(.cause), path = .path.display())]
    Unusable {
        /// The store's directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It belongs to a later Coracle.
    #[error("cannot use the store {path}: it has version {found}, this Coracle knows {STORE_VERSION}: use a newer Coracle, or set CORACLE_DIR to another directory", path = .path.display())]
    Newer {
        /// The store's directory.
        path: PathBuf,
        /// The version it has.
        found: String,
    },
    /// A part of an image is gone.
    #[error("{of} lacks {digest} in the store: pull or load it again")]
    Missing {
        /// What is gone.
        digest: String,
        /// The image.
        of: String,
    },
    /// A file in it cannot be read or written.
    #[error("cannot {action} {path} in the store: {}{}", reason(.cause), advice(.cause), path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn unusable(cause: &io::Error) -> &'static str {
    match advice(cause) {
        "" => ": set CORACLE_DIR to a directory that you can write to",
        advice => advice,
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space, or set CORACLE_DIR to a larger disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": set CORACLE_DIR to a directory that you can write to"
        }
        _ => "",
    }
}

impl Store {
    /// Opens the store, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] or [`StoreError::Newer`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let unusable = |cause| StoreError::Unusable { path: root.to_owned(), cause };
        let version = root.join("version");
        match read_to_string(&version) {
            Ok(found) if found.trim().parse::<u32>().is_ok_and(|found| found <= STORE_VERSION) => {}
            Ok(found) => {
                let found = found.trim().chars().filter(|c| !c.is_control()).take(40).collect();
                return Err(StoreError::Newer { path: root.to_owned(), found });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(root).map_err(unusable)?;
                replace(&version, format!("{STORE_VERSION}\n").as_bytes(), 0o644).map_err(unusable)?;
            }
            Err(error) => return Err(unusable(error)),
        }
        for directory in ["blobs", "blobs/sha256", "partial", "images"] {
            match make_directory(&root.join(directory)) {
                // Another's store, to be read only.
                Err(error) if !is_read_only(&error) => return Err(unusable(error)),
                _ => {}
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Whether an error says that we may read and not write.
fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Reads a small file that others replace as a whole: on NFS, the one that was opened may be gone before it is read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut tries = 0;
    loop {
        match fs::read(path) {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) && tries < 5 => tries += 1,
            answer => return answer,
        }
    }
}

/// The same for text.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Makes a directory for its owner alone, with its parents; one that is there is left as it is.
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// Gives a file new content in one step: whoever reads sees the old or the new, and a crash leaves one of them.
///
/// # Errors
/// Those of writing beside it and of renaming.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    place(path, content, mode, true)
}

/// The same for what need not outlive a crash of the node, and is written where a disk's answer would be waited for.
fn replace_fleeting(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    place(path, content, mode, false)
}

fn place(path: &Path, content: &[u8], mode: u32, kept: bool) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".coracle-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    if kept {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes files that killed commands left on their way to a name in this directory; how many. The caller holds the lock
/// under which they are written; where that may not reach everybody, an hour tells.
fn sweep_unfinished(directory: &Path) -> usize {
    let local = containers::base::is_local(directory);
    let unfinished = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let old = || {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age.as_secs() > 3600))
        };
        (name.starts_with(".new-") || name.starts_with(".coracle-")) && (local || old())
    };
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).filter(unfinished);
    entries.filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("version"), "2\n").expect("written");
        let error = Store::open(dir.path()).expect_err("refused");
        assert!(matches!(&error, StoreError::Newer { found, .. } if found == "2"), "{error}");
        let names: Vec<_> = fs::read_dir(dir.path()).expect("listed").collect();
        assert_eq!(names.len(), 1, "nothing was made");
    }

    #[test]
    fn a_store_that_cannot_be_made_says_how_to_have_another() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = Store::open(&file.path().join("store")).expect_err("below a file").to_string();
        assert!(error.contains("CORACLE_DIR") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn opening_twice_is_opening_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("deep/store");
        Store::open(&root).expect("made");
        assert_eq!(Store::open(&root).expect("opened").root(), root);
    }
}
