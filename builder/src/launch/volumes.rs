//! Named volumes: directories of the store's (`volumes/NAME`) that outlive containers.
//!
//! One appears, by rename, with a copy of what the tree has at the place where it is first shown, as Docker's do.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use super::LaunchError;
use crate::store::{
    Store,
    containers::{Container, Settings, remove_tree},
    trees,
};

/// Whether it can be a volume's name rather than a path (Docker's rule: two characters at least).
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char))
}

/// What a named volume begins with a copy of.
#[derive(Debug)]
pub enum Begin<'a> {
    /// A place in this tree.
    Tree(PathBuf),
    /// A place in the tree of a container that stands on an image's.
    Container(&'a Container),
}

impl<'a> Begin<'a> {
    /// What volumes of a container begin with.
    #[must_use]
    pub fn of(container: &'a Container, settings: &Settings) -> Self {
        match container.stands_on(settings) {
            Some(_) if !container.root().is_dir() => Self::Container(container),
            _ => Self::Tree(container.root()),
        }
    }

    fn copy(&self, guest: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Tree(root) => match resolve(root, guest, true) {
                Ok(from) if from.is_dir() => copy(&from, to),
                _ => Ok(()),
            },
            Self::Container(container) => {
                trees::copy_out(container, guest, to).map_err(|error| io::Error::other(error.to_string()))
            }
        }
    }
}

/// The directory of a named volume, made if this is its first use.
pub fn named(store: &Store, name: &str, begin: &Begin<'_>, guest: &Path) -> Result<PathBuf, LaunchError> {
    let directory = store.root().join("volumes");
    let path = directory.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let failed = |cause| LaunchError::Volume { path: path.clone(), cause };
    fs::create_dir_all(&directory).map_err(failed)?;
    let draft = tempfile::Builder::new().prefix(".new-").tempdir_in(&directory).map_err(failed)?;
    let beside = draft.path().join("data");
    fs::create_dir(&beside).map_err(failed)?;
    begin.copy(guest, &beside).map_err(failed)?;
    match fs::rename(&beside, &path) {
        // Another run was faster; its volume is as good.
        Err(_) if path.is_dir() => {}
        answer => answer.map_err(failed)?,
    }
    let _ = remove_tree(draft.path());
    Ok(path)
}

/// A guest path's place in a tree: symbolic links of the tree's lead nowhere else. What is missing is made as directories.
pub(super) fn inside(root: &Path, guest: &Path) -> Result<PathBuf, LaunchError> {
    let host = resolve(root, guest, true);
    let failed = |cause| LaunchError::Volume { path: guest.to_owned(), cause };
    let host = host.map_err(failed)?;
    fs::create_dir_all(&host).map_err(failed)?;
    Ok(host)
}

/// Follows a guest path through a tree, its links inside the tree and `..` no higher than its root. What does not exist is
/// taken as it is written.
///
/// # Errors
/// Too many symbolic links.
pub fn resolve(root: &Path, guest: &Path, follow_last: bool) -> io::Result<PathBuf> {
    let mut pending: Vec<PathBuf> = parts(guest);
    let mut host = root.to_owned();
    let mut depth = 0_usize;
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == Path::new("..") {
            if depth > 0 {
                host.pop();
                depth -= 1;
            }
            continue;
        }
        host.push(&part);
        depth += 1;
        let last = pending.is_empty() && !follow_last;
        if let Some(target) = fs::read_link(&host).ok().filter(|_| !last) {
            links += 1;
            if links > 40 {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            host.pop();
            depth -= 1;
            if target.is_absolute() {
                host = root.to_owned();
                depth = 0;
            }
            pending.extend(parts(&target));
        }
    }
    Ok(host)
}

/// A path's components, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |component: Component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// Copies a directory's content: files, directories and links with their modes; nothing else belongs into a volume.
///
/// # Errors
/// Those of reading and writing.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_one(&entry.path(), &to.join(entry.file_name()))?;
    }
    let meta = fs::metadata(from)?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

/// Copies one thing of any kind to a name that is free, or a file over a file.
///
/// # Errors
/// Those of reading and writing; a directory over something else.
pub fn copy_one(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_dir() {
        // A link that is there is not followed: it may lead out of a tree.
        match fs::create_dir(to) {
            Err(_) if fs::symlink_metadata(to).is_ok_and(|there| there.is_dir()) => {}
            answer => answer?,
        }
        return copy(from, to);
    }
    if kind.is_symlink() {
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        // A link that is there is replaced and not followed; nor is a file written to that has other names, which may be
        // other containers'.
        if fs::symlink_metadata(to).is_ok_and(|there| there.is_symlink() || there.nlink() > 1) {
            fs::remove_file(to)?;
        }
        fs::copy(from, to)?;
        let times = fs::FileTimes::new().set_modified(meta.modified()?);
        // Only a courtesy.
        let _ = fs::File::options().write(true).open(to).and_then(|file| file.set_times(times));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for name in ["data", "my.vol-1", "00"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["a", "./a", "/a", "a/b", ".x", "", "~"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[test]
    fn a_named_volume_begins_with_what_the_tree_has_and_never_with_the_hosts() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store")).expect("a store");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("srv/data/sub")).expect("made");
        fs::write(root.join("srv/data/sub/f"), "x").expect("written");
        symlink("/srv/data", root.join("link")).expect("linked");
        symlink("../../../../../../etc", root.join("escape")).expect("linked");
        let volume = named(&store, "v1", &Begin::Tree(root.clone()), Path::new("/link")).expect("made");
        assert_eq!(fs::read_to_string(volume.join("sub/f")).expect("copied"), "x");
        fs::write(volume.join("own"), "y").expect("written");
        assert_eq!(named(&store, "v1", &Begin::Tree(root.clone()), Path::new("/link")).expect("there"), volume);
        assert!(volume.join("own").exists(), "the second use copies nothing");
        let other = named(&store, "v2", &Begin::Tree(root.clone()), Path::new("/escape")).expect("made");
        assert_eq!(fs::read_dir(other).expect("readable").count(), 0, "the host's /etc stays out");
        assert_eq!(resolve(&root, Path::new("/link"), false).expect("resolved"), root.join("link"));
    }
}
