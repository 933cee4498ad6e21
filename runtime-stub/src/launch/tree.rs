//! Looking into the unpacked image before an engine has entered it: guest paths resolved as the guest would.
//!
//! For a handful of look-ups per start. The tree is the caller's own and nobody changes it meanwhile, so a walk by names is
//! enough; the engines, whose guests do change things, resolve by `engines/paths`.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// An unpacked image.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    root: &'a Path,
}

impl<'a> Tree<'a> {
    /// The tree in this host directory.
    #[must_use]
    pub fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// The host path of an existing guest path, links followed inside the tree; none if it does not exist.
    #[must_use]
    pub fn resolve(&self, guest: &Path) -> Option<PathBuf> {
        let mut pending = parts(guest);
        let mut host = self.root.to_owned();
        let mut depth = 0_usize;
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                if depth > 0 {
                    host.pop();
                    depth -= 1;
                }
                continue;
            }
            host.push(&part);
            match fs::read_link(&host) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    host.pop();
                    if target.is_absolute() {
                        host = self.root.to_owned();
                        depth = 0;
                    }
                    pending.extend(parts(&target));
                }
                // EINVAL: it exists and is no symbolic link.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => depth += 1,
                Err(_) => return None,
            }
        }
        Some(host)
    }

    /// The content of a guest file.
    ///
    /// # Errors
    /// What open(2) or read(2) said; `NotFound` for what the tree lacks.
    pub fn read(&self, guest: &Path) -> io::Result<Vec<u8>> {
        let host = self.resolve(guest).ok_or(io::ErrorKind::NotFound)?;
        // A device or a pipe where a file should be must not hold us up.
        if !fs::metadata(&host)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fs::read(host)
    }

    /// Whether a guest path is a file that somebody may execute.
    #[must_use]
    pub fn is_program(&self, guest: &Path) -> bool {
        self.resolve(guest)
            .and_then(|host| fs::metadata(host).ok())
            .is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    }

    /// Whether a guest path is a directory.
    #[must_use]
    pub fn is_dir(&self, guest: &Path) -> bool {
        self.resolve(guest).is_some_and(|host| host.is_dir())
    }

    /// Looks a bare name up on a guest PATH.
    #[must_use]
    pub fn find_program(&self, name: &OsStr, path: &OsStr) -> Option<PathBuf> {
        path.as_bytes()
            .split(|byte| *byte == b':')
            .map(|dir| Path::new(OsStr::from_bytes(dir)))
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|full| self.is_program(full))
    }
}

/// A path's components, last first, so that the next one is popped from the end.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_tree() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let root = dir.path();
        fs::create_dir_all(root.join("usr/bin")).expect("it is empty");
        fs::create_dir(root.join("etc")).expect("it is empty");
        fs::write(root.join("usr/bin/tool"), "#!").expect("it is writable");
        fs::set_permissions(root.join("usr/bin/tool"), fs::Permissions::from_mode(0o555)).expect("it is ours");
        fs::write(root.join("usr/bin/data"), "x").expect("it is writable");
        for (target, link) in [
            ("usr/bin", "bin"),
            ("/usr/bin/tool", "absolute"),
            ("../../../../usr/bin/tool", "above"),
            ("/etc/hostname", "escape"),
            ("loop", "loop"),
        ] {
            symlink(target, root.join(link)).expect("the name is free");
        }
        let tree = Tree::new(root);
        let tool = Some(root.join("usr/bin/tool"));
        for guest in ["/bin/tool", "/absolute", "/above", "/../bin/../bin/tool"] {
            assert_eq!(tree.resolve(Path::new(guest)), tool, "{guest}");
        }
        assert_eq!(tree.resolve(Path::new("/escape")), None);
        assert_eq!(tree.resolve(Path::new("/loop")), None);
        assert!(tree.is_dir(Path::new("/bin")) && !tree.is_dir(Path::new("/above")));
        let path = OsStr::new("relative:/nowhere:/bin");
        assert_eq!(tree.find_program(OsStr::new("tool"), path), Some("/bin/tool".into()));
        assert_eq!(tree.find_program(OsStr::new("data"), path), None, "it is not executable");
    }
}
