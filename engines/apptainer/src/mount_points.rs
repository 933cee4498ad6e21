//! Mount points in a tree of the guest's own: with `--writable` the runtime makes none, so they are made here, as Docker
//! makes them in a container's upper layer.
//!
//! The tree is the guest's, and its links are followed inside it only: openat2(2) with `RESOLVE_IN_ROOT`.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

use coracle_api::{LaunchSpec, RunError};

use crate::arguments::is_there;

/// Makes what the tree lacks.
pub(crate) fn make(spec: &LaunchSpec) -> Result<(), RunError> {
    let failed = |path: &Path, error: io::Error| {
        RunError::step(format!("make the mount point {} in {}", path.display(), spec.root.display()), error)
    };
    let tree = fs::File::open(&spec.root).map_err(|error| failed(Path::new("/"), error))?;
    let tree = OwnedFd::from(tree);
    let system = ["/proc", "/sys", "/dev", "/etc/resolv.conf"].map(Path::new);
    let kinds = [true, true, true, false];
    for (path, directory) in system.into_iter().zip(kinds) {
        one(&tree, path, directory).map_err(|error| failed(path, error))?;
    }
    for bind in spec.binds.iter().filter(|bind| is_there(bind)) {
        one(&tree, &bind.guest, bind.host.is_dir()).map_err(|error| failed(&bind.guest, error))?;
    }
    if spec.make_cwd {
        one(&tree, &spec.cwd, true).map_err(|error| failed(&spec.cwd, error))?;
    }
    Ok(())
}

/// Makes `path` in `tree`, and its parents, if it is not there.
fn one(tree: &OwnedFd, path: &Path, directory: bool) -> io::Result<()> {
    let names: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut known = std::path::PathBuf::from("/");
    let mut parent = inside(tree, &known)?;
    for (at, name) in names.iter().enumerate() {
        known.push(name);
        if let Ok(found) = inside(tree, &known) {
            parent = found;
            continue;
        }
        let name = c_string(name.as_bytes())?;
        let last = at + 1 == names.len();
        // SAFETY: an open directory and a NUL-terminated name; both calls read nothing else.
        let made = unsafe {
            if last && !directory {
                libc::mknodat(parent.as_raw_fd(), name.as_ptr(), libc::S_IFREG | 0o644, 0)
            } else {
                libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755)
            }
        };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        parent = inside(tree, &known)?;
    }
    Ok(())
}

/// Opens a guest path in the tree (`O_PATH`).
fn inside(tree: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero open_how is valid; the fields are set below.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC).unsigned_abs());
    how.resolve = libc::RESOLVE_IN_ROOT;
    // SAFETY: openat2 reads the path and as many bytes of `how` as the last argument says.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, tree.as_raw_fd(), path.as_ptr(), &raw const how, size_of_val(&how)) };
    match i32::try_from(fd) {
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in a path"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("in")).unwrap();
        let tree = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        one(&tree, Path::new("/in/a/b"), true).unwrap();
        one(&tree, Path::new("/in/a/b"), true).unwrap();
        one(&tree, Path::new("/in/a/file"), false).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
        assert!(dir.path().join("real/a/file").is_file());
        assert!(one(&tree, Path::new("/out/x"), true).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
