//! Guest path → the place it names below a root directory, symbolic links and `..` never leading out of it.
//!
//! openat2(2) does it in one call (Linux 5.6). The component walk answers on older kernels, and tells how far a path
//! that does not exist goes. Nobody changes the tree while its mounts are made, so the walk needs no guard against races.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{Mode, SFlag, fstat},
};

use crate::sys::open_in_root;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// What a guest path names.
#[derive(Debug)]
pub(crate) enum Place {
    /// It exists: a descriptor opened with `O_PATH`.
    Found(OwnedFd),
    /// It does not.
    Missing(Missing),
}

/// How far a path goes that names nothing.
#[derive(Debug)]
pub(crate) struct Missing {
    /// The last directory on the way that exists, opened with `O_PATH`.
    pub(crate) ancestor: OwnedFd,
    /// Its path from the root, free of symbolic links, without a leading slash.
    pub(crate) ancestor_path: PathBuf,
    /// What would have to be made below it: plain names only, at least one.
    pub(crate) rest: PathBuf,
}

/// Resolves `path` below `root`.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path) -> nix::Result<Place> {
    match open_in_root(root, path) {
        Ok(fd) => Ok(Place::Found(fd)),
        // ENOENT: find out how far it goes. The others: no openat2 here (old kernel, or a filter), or a rename it met.
        Err(Errno::ENOENT | Errno::ENOSYS | Errno::EPERM | Errno::EAGAIN) => walk(root, path),
        Err(error) => Err(error),
    }
}

/// Resolves `path` and fails with `ENOENT` if it names nothing.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    match resolve(root, path)? {
        Place::Found(fd) => Ok(fd),
        Place::Missing(_) => Err(Errno::ENOENT),
    }
}

fn walk(root: BorrowedFd<'_>, path: &Path) -> nix::Result<Place> {
    let mut todo: VecDeque<OsString> = names(path);
    let mut way: Vec<(OwnedFd, OsString)> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            match way.pop() {
                Some((fd, _)) if !is(&fd, SFlag::S_IFDIR)? => return Err(Errno::ENOTDIR),
                _ => continue,
            }
        }
        let here = way.last().map_or(root, |(fd, _)| fd.as_fd());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(here, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => {
                todo.push_front(name);
                return Ok(Place::Missing(Missing {
                    ancestor: here.try_clone_to_owned().map_err(|_| Errno::EMFILE)?,
                    ancestor_path: way.iter().map(|(_, name)| name).collect(),
                    rest: without_parents(&todo),
                }));
            }
            Err(error) => return Err(error),
        };
        if is(&fd, SFlag::S_IFLNK)? {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            let target = readlinkat(&fd, OsStr::new(""))?;
            if target.as_bytes().starts_with(b"/") {
                way.clear();
            }
            for name in names(Path::new(&target)).into_iter().rev() {
                todo.push_front(name);
            }
        } else {
            way.push((fd, name));
        }
    }
    match way.pop() {
        Some((fd, _)) => Ok(Place::Found(fd)),
        None => Ok(Place::Found(root.try_clone_to_owned().map_err(|_| Errno::EMFILE)?)),
    }
}

fn is(fd: &OwnedFd, kind: SFlag) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == kind)
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What is still to be made: nothing of it exists, so no link can change what `..` means.
fn without_parents(names: &VecDeque<OsString>) -> PathBuf {
    let mut path = PathBuf::new();
    for name in names {
        if name == ".." {
            path.pop();
        } else {
            path.push(name);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::{
            fd::{AsFd, OwnedFd},
            unix::fs::symlink,
        },
        path::Path,
    };

    use nix::{errno::Errno, sys::stat::fstat};

    use super::{Place, walk};
    use crate::sys::{open_in_root, open_place};

    /// The walk and the kernel agree on every path of up to four of these names.
    #[test]
    fn the_walk_is_what_the_kernel_does() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b/c")).expect("mkdir");
        File::create(root.join("a/file")).expect("create");
        File::create(root.join("file")).expect("create");
        // Outside, where no path may lead.
        File::create(dir.path().join("outside")).expect("create");
        let links = [
            ("abs", "/a/b"),
            ("a/rel", "../a"),
            ("up", "../../../../a"),
            ("a/b/up", "../../../../../outside"),
            ("loop", "loop"),
            ("dangling", "/a/none/x"),
            ("chain", "up/rel/b"),
            ("tofile", "a/file"),
            ("slash", "/"),
        ];
        for (link, target) in links {
            symlink(target, root.join(link)).expect("symlink");
        }
        let names = [
            "a", "b", "c", "rel", "up", "abs", "chain", "loop", "dangling", "tofile", "file", "slash", "none", "..",
            "outside",
        ];
        let place = open_place(&root).expect("open");
        if open_in_root(place.as_fd(), Path::new("/a")).err() == Some(Errno::ENOSYS) {
            harness::skip::because("this kernel has no openat2");
            return;
        }
        let inode = |fd: &OwnedFd| fstat(fd).expect("fstat").st_ino;
        let mut paths: Vec<String> = vec![String::new()];
        let mut compared = 0;
        for _ in 0..4 {
            paths = paths.iter().flat_map(|path| names.map(|name| format!("{path}/{name}"))).collect();
            for path in &paths {
                let kernel = open_in_root(place.as_fd(), Path::new(path)).map(|fd| inode(&fd));
                let ours = match walk(place.as_fd(), Path::new(path)) {
                    Ok(Place::Found(fd)) => Ok(inode(&fd)),
                    Ok(Place::Missing(_)) => Err(Errno::ENOENT),
                    Err(error) => Err(error),
                };
                assert_eq!(ours, kernel, "{path}");
                compared += 1;
            }
        }
        assert_eq!(compared, 15 + 15 * 15 + 15 * 15 * 15 + 15 * 15 * 15 * 15);
    }

    #[test]
    fn what_is_missing_is_told_from_where_it_would_be() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("mkdir");
        symlink("/a/b/new/er", dir.path().join("link")).expect("symlink");
        let place = open_place(dir.path()).expect("open");
        let missing = |path: &str| match walk(place.as_fd(), Path::new(path)) {
            Ok(Place::Missing(missing)) => (missing.ancestor_path, missing.rest),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(missing("/x"), ("".into(), "x".into()));
        assert_eq!(missing("/a/b/x/y"), ("a/b".into(), "x/y".into()));
        assert_eq!(missing("/a/../a/b/x/../y"), ("a/b".into(), "y".into()));
        assert_eq!(missing("/link/z"), ("a/b".into(), "new/er/z".into()));
    }
}
