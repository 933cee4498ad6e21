//! Places whose host path is longer than the kernel takes, or tells: reached through descriptors, piece by piece.
//!
//! The tree's own path comes on top of the guest's, so a guest's path of ordinary length can be too long for the host; and
//! a directory entered step by step may have no path at all that the kernel could write down.

use std::{
    ffi::{CStr, CString},
    fs,
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use coracle_intercept::Errno;
use coracle_paths::{Ancestor, PATH_MAX, nearest_named};

use crate::peer::last_errno;

/// Calls `call` with a path of the same file that the kernel takes; as it is, if that is short enough.
pub(crate) fn with_short<T>(path: &CStr, call: impl FnOnce(&CStr) -> Result<T, Errno>) -> Result<T, Errno> {
    let mut rest = path.to_bytes();
    if rest.len() < PATH_MAX {
        return call(path);
    }
    let mut dir = open(libc::AT_FDCWD, c"/")?;
    while rest.len() + 40 >= PATH_MAX {
        rest = &rest[rest.iter().take_while(|byte| **byte == b'/').count()..];
        let room = &rest[..rest.len().min(PATH_MAX - 1)];
        let slash = room.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let part = CString::new(&rest[..slash]).map_err(|_| Errno::ENOENT)?;
        dir = open(dir.as_raw_fd(), &part)?;
        rest = &rest[slash..];
    }
    let mut short = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    short.extend_from_slice(rest);
    call(&CString::new(short).map_err(|_| Errno::ENOENT)?)
}

/// An `O_PATH` descriptor.
pub(crate) fn open(dir: i32, path: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: a NUL-terminated path and a descriptor, or AT_FDCWD.
    let fd = unsafe { libc::openat(dir, path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel calls an open directory.
fn name_of(dir: &OwnedFd, text: &mut [u8]) -> Result<usize, Errno> {
    let mut link = [0; 32];
    let _ = write!(&mut link[..31], "/proc/self/fd/{}", dir.as_raw_fd());
    // SAFETY: a NUL-terminated path, and a buffer that is writable for the length given.
    let len = unsafe { libc::readlink(link.as_ptr().cast(), text.as_mut_ptr().cast(), text.len()) };
    usize::try_from(len).map_err(|_| last_errno())
}

/// See [`coracle_paths::Host::ancestor`].
pub(crate) fn ancestor(link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
    let above = |dir: &OwnedFd, count: u32| {
        let path = CString::new("../".repeat(count as usize)).map_err(|_| Errno::ENOENT)?;
        open(dir.as_raw_fd(), &path)
    };
    nearest_named(open(libc::AT_FDCWD, link)?, above, name_of, text)
}

/// The whole path of the directory at `link`: that of [`ancestor`], and the names below it as their parents list them.
pub(crate) fn whole_place(link: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
    let above = ancestor(link, text)?;
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut len = above.len;
    let mut dir = open(libc::AT_FDCWD, link)?;
    for _ in 0..above.levels {
        let parent = open(dir.as_raw_fd(), c"..")?;
        let name = name_in(&parent, &dir)?;
        len += name.len() + 1;
        if len >= text.len() {
            return Err(Errno::ENAMETOOLONG);
        }
        names.push(name);
        dir = parent;
    }
    let mut at = above.len;
    for name in names.iter().rev() {
        text[at] = b'/';
        text[at + 1..=at + name.len()].copy_from_slice(name);
        at += name.len() + 1;
    }
    Ok(len)
}

/// What `parent` calls `child`. A removed directory has no name.
fn name_in(parent: &OwnedFd, child: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let errno = |error: std::io::Error| {
        Errno(error.raw_os_error().and_then(|error| u16::try_from(error).ok()).unwrap_or(Errno::ENOENT.0))
    };
    let meta = |fd: i32| fs::metadata(format!("/proc/self/fd/{fd}")).map_err(errno);
    let wanted = meta(child.as_raw_fd())?;
    let listing = fs::read_dir(format!("/proc/self/fd/{}", parent.as_raw_fd())).map_err(errno)?;
    listing
        .flatten()
        .find(|entry| entry.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino())))
        .map(|entry| entry.file_name().as_bytes().to_vec())
        .ok_or(Errno::ENOENT)
}

/// Whether a `/proc` link leads to the very file that is called `name`.
pub(crate) fn leads_to(link: &CStr, name: &[u8]) -> bool {
    let same = |link: &Path, name: &Path| {
        let (there, here) = (fs::metadata(link).ok()?, fs::symlink_metadata(name).ok()?);
        Some((there.dev(), there.ino()) == (here.dev(), here.ino()))
    };
    let path = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes));
    same(path(link.to_bytes()), path(name)).unwrap_or(false)
}
