//! Looking into the unpacked image before an engine has entered it: guest paths resolved as the guest would.
//!
//! For a handful of look-ups per start. The tree is the caller's own and nobody changes it meanwhile, so a walk by names is
//! enough; the engines, whose guests do change things, resolve by `engines/paths`.

use std::{
    ffi::{CString, OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// An unpacked image.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    root: &'a Path,
    /// What an overlay has changed of it.
    upper: Option<&'a Path>,
}

/// A directory, or whatever else: among the changes, and below them.
#[derive(Debug, Clone, Default)]
struct Place {
    upper: Option<PathBuf>,
    lower: Option<PathBuf>,
}

impl Place {
    /// What a name in this directory means; none if nothing has it.
    fn child(&self, name: &OsStr) -> Option<Self> {
        let look = |dir: &Option<PathBuf>| {
            let path = dir.as_ref()?.join(name);
            fs::symlink_metadata(&path).ok().map(|meta| (path, meta))
        };
        let lower = look(&self.lower);
        let Some((path, meta)) = look(&self.upper) else { return Some(Self { upper: None, lower: Some(lower?.0) }) };
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            // The mark of what was removed.
            return None;
        }
        let joins = meta.is_dir() && !is_opaque(&path);
        let lower = lower.filter(|(_, below)| joins && below.is_dir()).map(|(path, _)| path);
        Some(Self { upper: Some(path), lower })
    }

    fn host(self) -> Option<PathBuf> {
        self.upper.or(self.lower)
    }
}

/// Whether a directory among an overlay's changes hides the one below.
fn is_opaque(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut value = [0_u8; 2];
    // SAFETY: path and name end with NUL, and the buffer is writable for the length given (getxattr(2)).
    let len = unsafe {
        libc::lgetxattr(path.as_ptr(), c"user.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    len == 1 && value[0] == b'y'
}

impl<'a> Tree<'a> {
    /// The tree in this host directory.
    #[must_use]
    pub fn new(root: &'a Path) -> Self {
        Self { root, upper: None }
    }

    /// The tree in this host directory, with an overlay's changes, if there are any.
    #[must_use]
    pub fn with_changes(root: &'a Path, upper: &'a Path) -> Self {
        Self { root, upper: Some(upper) }
    }

    /// The host path of an existing guest path, links followed inside the tree; none if it does not exist.
    #[must_use]
    pub fn resolve(&self, guest: &Path) -> Option<PathBuf> {
        let mut pending = parts(guest);
        let upper = self.upper.filter(|upper| upper.is_dir());
        let root = || Place { upper: upper.map(Path::to_owned), lower: Some(self.root.to_owned()) };
        let mut trail = vec![root()];
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let place = trail.last()?.child(&part)?;
            let host = place.upper.as_ref().or(place.lower.as_ref())?;
            match fs::read_link(host) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.is_absolute() {
                        trail = vec![root()];
                    }
                    pending.extend(parts(&target));
                }
                // EINVAL: it exists and is no symbolic link.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => trail.push(place),
                Err(_) => return None,
            }
        }
        trail.pop()?.host()
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
        let upper = root.join("no-changes");
        let tree = Tree::with_changes(root, &upper);
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
    #[test]
    fn changes_lie_over_the_tree() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
        for path in ["lower/etc", "lower/var/old", "upper/etc", "upper/var/new", "upper/opt"] {
            fs::create_dir_all(dir.path().join(path)).expect("it is empty");
        }
        for (path, text) in [("lower/etc/passwd", "image"), ("lower/etc/group", "image"), ("upper/etc/passwd", "own")] {
            fs::write(dir.path().join(path), text).expect("it is writable");
        }
        symlink("/etc", upper.join("opt/link")).expect("the name is free");
        let tree = Tree::with_changes(&lower, &upper);
        let read = |path: &str| tree.read(Path::new(path)).ok();
        assert_eq!(read("/opt/link/passwd").as_deref(), Some(&b"own"[..]));
        assert_eq!(read("/opt/../etc/group").as_deref(), Some(&b"image"[..]));
        assert!(tree.is_dir(Path::new("/var/old")) && tree.is_dir(Path::new("/var/new")));
        assert_eq!(tree.resolve(Path::new("/")), Some(upper.clone()));
        assert_eq!(Tree::with_changes(&lower, &dir.path().join("none")).resolve(Path::new("/")), Some(lower.clone()));
        let path = CString::new(upper.join("var").as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: both names end with NUL, and the value is as long as said.
        let set = unsafe { libc::setxattr(path.as_ptr(), c"user.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0) };
        assert!(set != 0 || !tree.is_dir(Path::new("/var/old")), "what is opaque hides what is below");
        let whiteout = CString::new(upper.join("etc/group").as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: the path ends with NUL. Kernels before 5.8 refuse it to ordinary users.
        let made = unsafe { libc::mknod(whiteout.as_ptr(), libc::S_IFCHR, 0) };
        assert!(made != 0 || read("/etc/group").is_none(), "what was removed is not there");
    }
}
