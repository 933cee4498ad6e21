//! The tracer's part in copy-on-write: it breaks links, and holds files for calls that must reach just them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ffi::CStr,
    io::Write,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use coracle_api::RunError;
use coracle_intercept::{
    Errno, File, FileId,
    errno::{EROFS, LATER},
};
use coracle_view::{Asked, Turn, Unshared, View, ViewError};

use crate::{
    copying::{Copies, State},
    peer::last_errno,
};

/// The view of a run, if its guest has one, and what became of its files in this run.
#[derive(Debug, Default)]
pub(crate) struct CopyOnWrite<'v> {
    view: Option<&'v View>,
    /// What the call at hand is to reach, until [`take_pin`](Self::take_pin).
    pin: RefCell<Option<OwnedFd>>,
    /// Shared inode to the number of its last copy.
    copies: RefCell<HashMap<u64, u64>>,
    /// Copies of large files.
    copies_made: Copies,
    /// How often names were changed.
    turns: Cell<u64>,
    /// How often when the call that now ends was entered.
    before: Cell<u64>,
}

impl<'v> CopyOnWrite<'v> {
    pub(crate) fn new(view: Option<&'v View>) -> Self {
        Self { view, ..Self::default() }
    }

    /// Copies that take their time.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies_made
    }

    /// The descriptor behind a path that [`pin`](Self::pin) wrote: to be held until the call has been made.
    pub(crate) fn take_pin(&self) -> Option<OwnedFd> {
        self.pin.take()
    }

    /// Keeps names as they are while a call that changes some is made.
    pub(crate) fn turn(&self) -> Option<Turn<'v>> {
        self.turns.set(self.turns.get() + 1);
        self.view.map(View::turn)
    }

    /// How often names were changed, for [`look_back`](Self::look_back).
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// The call that now ends was entered when names had been changed so often.
    pub(crate) fn look_back(&self, turns: u64) {
        self.before.set(turns);
    }

    /// Whether names have been changed since that call was entered.
    pub(crate) fn has_changed(&self) -> bool {
        self.turns.get() != self.before.get()
    }

    pub(crate) fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno> {
        let view = self.view.ok_or(Errno::EINVAL)?;
        let done = match self.copies_made.find(view, host, shared, mode) {
            State::Ready(aside) => view.unshare_by(&aside, host, shared),
            State::Failed(errno) => return Err(errno),
            State::Running => return Err(LATER),
            State::None => view.unshare(host, shared, mode),
        };
        match done {
            Ok(Unshared::Copied(new)) => {
                self.turns.set(self.turns.get() + 1);
                self.copies.borrow_mut().insert(shared.inode, new.inode);
                Ok(Some(new))
            }
            Ok(Unshared::Meanwhile) => Ok(None),
            Err(errno) => Err(Errno(u16::try_from(errno as i32).unwrap_or(5))),
        }
    }

    /// chmod(2), but never of a shared file that got the name since somebody looked: `EROFS`.
    pub(crate) fn set_mode(&self, host: &CStr, mode: u32) -> Result<(), Errno> {
        let Some(view) = self.view else { return chmod(host, mode) };
        let fd = open_path(host, 0)?;
        if view.marks().find(&stat(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?.id).is_some() {
            return Err(EROFS);
        }
        let mut link = [0; 48];
        write_link(&fd, &mut link)?;
        chmod(CStr::from_bytes_until_nul(&link).map_err(|_| EROFS)?, mode)
    }

    pub(crate) fn successor(&self, shared: &FileId) -> Option<u64> {
        self.copies.borrow().get(&shared.inode).copied()
    }

    pub(crate) fn pin(&self, host: &CStr, path: &mut [u8]) -> Result<(File, usize), Errno> {
        let fd = open_path(host, libc::O_NOFOLLOW)?;
        let file = stat(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
        let len = write_link(&fd, path)?;
        self.pin.replace(Some(fd));
        Ok((file, len))
    }
}

fn open_path(host: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(host.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes the path by which any process of this user reaches our descriptor, with its NUL; the length counts that.
fn write_link(fd: &OwnedFd, path: &mut [u8]) -> Result<usize, Errno> {
    let size = path.len();
    let mut rest = path;
    write!(rest, "/proc/{}/fd/{}\0", std::process::id(), fd.as_raw_fd()).map_err(|_| Errno::ENAMETOOLONG)?;
    Ok(size - rest.len())
}

fn chmod(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: a NUL-terminated path.
    if unsafe { libc::chmod(path.as_ptr(), mode) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// What fstatat(2) says.
pub(crate) fn stat(dir: i32, path: &CStr, flags: i32) -> Result<File, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a NUL-terminated path; fstatat writes one struct stat, which is read only when it succeeded.
    let stat = unsafe {
        if libc::fstatat(dir, path.as_ptr(), stat.as_mut_ptr(), flags) != 0 {
            return Err(last_errno());
        }
        stat.assume_init()
    };
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let id = FileId { device: stat.st_dev, inode: stat.st_ino, mtime: (stat.st_mtime, nanoseconds) };
    Ok(File { id, mode: stat.st_mode })
}

/// Opens the run's view, and makes it if there is none.
pub(crate) fn open(asked: &Asked<'_>) -> Result<View, RunError> {
    View::open(asked).map_err(|error| {
        let source = match &error {
            ViewError::Step { errno, .. } => std::io::Error::from(*errno),
            _ => std::io::ErrorKind::InvalidInput.into(),
        };
        RunError::Step { what: format!("make a copy-on-write view: {error}"), source, advice: None }
    })
}
