//! System calls that nix does not wrap, and errors in the form the engine reports.
//!
//! Everything newer than Linux 3.10 is called by number and may answer `ENOSYS`; callers then take the older way.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use coracle_api::RunError;
use nix::{fcntl::OFlag, sys::stat::Mode};

/// Turns a system call's answer into the engine's error, naming the step.
pub(crate) trait Step<T> {
    /// `what` reads like `mount /proc in the container`.
    fn step<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, RunError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, RunError> {
        self.map_err(|error| RunError::step(what(), error.into()))
    }
}

/// A path that means exactly this descriptor's file, for calls that take paths only.
pub(crate) fn fd_path(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Opens a path as a place (`O_PATH`), following symbolic links.
pub(crate) fn open_place(path: &std::path::Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Sets attributes (`MOUNT_ATTR_…`) of the mount at `place` and of all below it. Linux 5.12.
pub(crate) fn mount_setattr_recursive(place: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated literal; `attributes` is initialised, outlives the call and its true size is
    // passed; the kernel only reads both.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            place.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes one of this process's `/proc` files in a single write, as the kernel wants maps written.
pub(crate) fn write_proc(path: &str, text: &str) -> io::Result<()> {
    use io::Write as _;
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Opens `path` below `root` as a place, every symbolic link read as if `root` were `/`.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &std::path::Path) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}
