//! Times of directories, which files that are replaced in them would change.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::{
    stat::{UtimensatFlags, utimensat},
    time::TimeSpec,
};

/// Directories as they were.
#[derive(Debug, Default)]
pub(super) struct Times(BTreeMap<PathBuf, fs::Metadata>);

impl Times {
    /// Looks at the directory of a file that is about to be replaced.
    pub(super) fn note(&mut self, file: &Path) -> io::Result<()> {
        let Some(directory) = file.parent().filter(|directory| !self.0.contains_key(*directory)) else { return Ok(()) };
        self.0.insert(directory.to_owned(), fs::symlink_metadata(directory)?);
        Ok(())
    }

    /// Sets all of them back.
    pub(super) fn set_back(&self) {
        for (directory, meta) in &self.0 {
            // What a guest has closed to its owner keeps the new time, which harms nobody.
            let _ = set(directory, meta);
        }
    }
}

/// Gives a file the times of another.
pub(super) fn set(path: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let access = TimeSpec::new(meta.atime(), meta.atime_nsec());
    let change = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    Ok(utimensat(nix::fcntl::AT_FDCWD, path, &access, &change, UtimensatFlags::NoFollowSymlink)?)
}
