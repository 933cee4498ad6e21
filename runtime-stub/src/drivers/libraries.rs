//! The directory that a driver's libraries are shown in: what the guest's loader finds there, and under which names.
//!
//! Each library is a file to bind over, each further name a symbolic link beside it. The names are those that the host's
//! loader knows the file by, that is, the links to it in its own directory (ldconfig(8) makes them), and those that a CDI
//! hook asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use super::Edits;

/// Where the guest sees the directory.
pub const GUEST: &str = "/.coracle/drivers";

/// Files and links of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name and host path of each library.
    pub files: BTreeMap<OsString, PathBuf>,
    /// Further names, and which of the files they mean.
    pub links: BTreeMap<OsString, OsString>,
}

impl Names {
    /// Of the libraries found.
    #[must_use]
    pub fn of(edits: &Edits) -> Self {
        let mut names = Self::default();
        for library in &edits.libraries {
            // A name of a name: the file itself counts.
            let Ok(real) = fs::canonicalize(library) else { continue };
            let Some(name) = real.file_name().map(OsStr::to_owned) else { continue };
            for dir in [library.parent(), real.parent()].into_iter().flatten() {
                names.links_in(dir, &real, &name);
            }
            names.files.insert(name, real);
        }
        for (link, target) in &edits.links {
            let target = names.links.get(target).unwrap_or(target).clone();
            if names.files.contains_key(&target) && !names.files.contains_key(link) {
                names.links.insert(link.clone(), target);
            }
        }
        names
    }

    fn links_in(&mut self, dir: &Path, real: &Path, name: &OsStr) {
        // `libcuda.so.550.54.14` is never called by a name that starts otherwise.
        let stem = name.as_bytes().split(|byte| *byte == b'.').next().unwrap_or_default();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let link = entry.file_name();
            if link != name
                && link.as_bytes().starts_with(stem)
                && entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && fs::canonicalize(entry.path()).is_ok_and(|target| target == real)
            {
                self.links.insert(link, name.to_owned());
            }
        }
    }

    /// What tells one such directory from another.
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let files: BTreeSet<_> = self.files.keys().map(|name| (name.as_os_str(), OsStr::new(""))).collect();
        let links = self.links.iter().map(|(link, target)| (link.as_os_str(), target.as_os_str()));
        for (name, target) in files.into_iter().chain(links) {
            for part in [name, target] {
                text.extend_from_slice(part.as_bytes());
                text.push(0);
            }
        }
        text
    }

    /// Makes the directory at `dir`, beside its place first, unless it is there.
    ///
    /// # Errors
    /// What the file system said.
    pub fn make(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let mut half = dir.as_os_str().to_owned();
        half.push(format!(".new-{}", std::process::id()));
        let half = PathBuf::from(half);
        // A leftover of a process that was killed and had our id.
        let _ = fs::remove_dir_all(&half);
        let made = fs::create_dir(&half).and_then(|()| {
            self.files.keys().try_for_each(|name| fs::File::create_new(half.join(name)).map(drop))?;
            self.links.iter().try_for_each(|(link, target)| symlink(target, half.join(link)))?;
            fs::rename(&half, dir)
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&half);
        }
        // Another start may have been faster.
        if dir.is_dir() { Ok(()) } else { made }
    }
}
