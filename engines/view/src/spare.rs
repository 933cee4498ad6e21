//! Spare views: one that nobody needs any more, and in which nothing was changed, is kept beside the shared tree for
//! the next.
//!
//! Making a view takes a call or two for each file, and so does removing one; to look whether one is still as it was made
//! takes the names of its directories and little more. A spare view lies beside the tree, under the name [`SPARE`], and
//! changes hands by one rename.
//!
//! Rules: what is not exactly as a maker leaves it is no spare view, whatever the reason. A file is as it was if its
//! name means the tree's own inode, which nobody changes; a directory, if mode, owner and time are as the maker would
//! set them and the same names are in it.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, fstat, fstatat},
};

use crate::{
    ViewError,
    error::errno,
    make::{directory_mode, has_xattrs},
    truths::Truths,
    view::{Asked, MARKS, ORIGIN, TMP, VIEW, origin, read_truths},
};

/// Its name, beside the tree.
pub const SPARE: &str = "spare";
/// In it, beside what is in every view: which directory the tree was.
const OF: &str = "of";

/// Keeps a view as the spare one of its tree, if nothing in it was changed and there is none yet; whoever calls sees to it
/// that nobody is in the view. `false`: it is as it was, of no use to others.
///
/// # Errors
/// [`ViewError::Step`].
pub fn spare(asked: &Asked<'_>) -> Result<bool, ViewError> {
    let Some(place) = place(asked) else { return Ok(false) };
    let view = asked.changes.join(VIEW);
    let truths = read_truths(asked)?;
    let truths = truths.as_deref().and_then(Truths::read);
    let failed = |error: std::io::Error| ViewError::step("look at", &view)(errno(&error));
    if place.symlink_metadata().is_ok()
        || !fs::read(view.join(ORIGIN))
            .is_ok_and(|found| Ok(found) == origin(asked.tree, truths.as_ref()).map_err(|_| ()))
        || fs::read_dir(view.join(TMP)).map_err(failed)?.next().is_some()
    {
        return Ok(false);
    }
    let step = |errno| ViewError::step("look at", &view)(errno);
    let open = |path: &Path| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(AT_FDCWD, path, flags, Mode::empty())
    };
    let (tree, root) = (open(asked.tree).map_err(step)?, open(&view.join("root")).map_err(step)?);
    let of = fstat(&tree).map_err(step)?;
    if !is_untouched(tree, root, truths.as_ref()).map_err(step)? {
        return Ok(false);
    }
    for entry in fs::read_dir(&view).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        // What engines write for one container.
        if ![MARKS, ORIGIN, TMP, "root"].map(OsStr::new).contains(&name.as_os_str()) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    fs::write(view.join(OF), of_line(of.st_dev, of.st_ino)).map_err(failed)?;
    // Never over another one: that directory is not empty.
    Ok(fs::rename(&view, &place).is_ok())
}

/// Takes the spare view, if there is one of this very tree.
pub(crate) fn take(asked: &Asked<'_>, origin: &[u8], view: &Path) -> bool {
    let Some(place) = place(asked) else { return false };
    let Ok(tree) = fs::metadata(asked.tree) else { return false };
    let is = |name: &str, what: &[u8]| fs::read(place.join(name)).is_ok_and(|found| found == what);
    if !is(ORIGIN, origin) || !is(OF, of_line(tree.dev(), tree.ino()).as_bytes()) {
        return false;
    }
    // Of two who take it at once one has it.
    fs::rename(&place, view).is_ok()
}

/// Only a tree that an image was unpacked to has a place beside it.
fn place(asked: &Asked<'_>) -> Option<PathBuf> {
    asked.truths.and(Some(asked.tree.with_file_name(SPARE)))
}

fn of_line(device: u64, inode: u64) -> String {
    format!("{device} {inode}\n")
}

struct Name {
    inode: u64,
    kind: Option<Type>,
}

/// Compares two open directories and all below; the second is a view of the first.
fn is_untouched(tree: OwnedFd, view: OwnedFd, truths: Option<&Truths<'_>>) -> Result<bool, Errno> {
    let mut open = vec![(tree, view, Vec::new())];
    while let Some((tree, view, path)) = open.pop() {
        let (was, is) = (fstat(&tree)?, fstat(&view)?);
        if !same_directory(truths, &path, &was, &is) || has_xattrs(tree.as_fd()) || has_xattrs(view.as_fd()) {
            return Ok(false);
        }
        let ((tree, names), (view, mut found)) = (names(tree)?, names(view)?);
        for (name, Name { inode, kind }) in names {
            let there = found.remove(&name);
            match (kind, there) {
                (Some(Type::File), Some(there)) if there.kind == kind && there.inode == inode => {}
                (Some(Type::Symlink), Some(there)) if there.kind == kind => {
                    if readlinkat(tree.as_fd(), &*name)? != readlinkat(view.as_fd(), &*name)?
                        || !same_link(tree.as_fd(), view.as_fd(), &name)?
                    {
                        return Ok(false);
                    }
                }
                (Some(Type::Directory), Some(there)) if there.kind == kind => {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let inner = |dir: &Dir| openat(dir, &*name, flags, Mode::empty());
                    let mut path = path.clone();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name.to_bytes());
                    open.push((inner(&tree)?, inner(&view)?, path));
                }
                // Pipes, copies, what was removed, and file systems that tell no kinds.
                _ => return Ok(false),
            }
        }
        if !found.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_directory(truths: Option<&Truths<'_>>, path: &[u8], was: &FileStat, is: &FileStat) -> bool {
    let mode = directory_mode(truths, path, was);
    is.st_dev == was.st_dev
        && is.st_mode & 0o7777 == mode
        && (is.st_uid, is.st_gid) == (was.st_uid, was.st_gid)
        && (is.st_mtime, is.st_mtime_nsec) == (was.st_mtime, was.st_mtime_nsec)
}

fn same_link(tree: BorrowedFd<'_>, view: BorrowedFd<'_>, name: &CString) -> Result<bool, Errno> {
    let stat = |dir| fstatat(dir, &**name, AtFlags::AT_SYMLINK_NOFOLLOW);
    let (was, is) = (stat(tree)?, stat(view)?);
    let essence = |stat: &FileStat| (stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec, stat.st_nlink);
    Ok(essence(&was) == essence(&is))
}

/// A directory with its names, and what each is.
fn names(dir: OwnedFd) -> Result<(Dir, HashMap<CString, Name>), Errno> {
    let mut dir = Dir::from_fd(dir)?;
    let mut names = HashMap::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.insert(entry.file_name().to_owned(), Name { inode: entry.ino(), kind: entry.file_type() });
        }
    }
    Ok((dir, names))
}
