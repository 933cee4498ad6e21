//! Paths below an open directory, however long: the kernel takes 4095 bytes at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

/// A path that the kernel takes whole.
const LONGEST: usize = 4000;

/// A directory and a path below it that the kernel takes.
pub(crate) enum Place<'a> {
    Here(BorrowedFd<'a>),
    Deeper(OwnedFd),
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(dir) => *dir,
            Self::Deeper(dir) => dir.as_fd(),
        }
    }
}

/// Splits off what the kernel would not take, by opening directories on the way. An empty path becomes `.`.
pub(crate) fn place<'d, 'p>(root: BorrowedFd<'d>, path: &'p [u8]) -> Result<(Place<'d>, &'p [u8]), Errno> {
    let mut place = Place::Here(root);
    let mut rest = path;
    while rest.len() > LONGEST {
        let at = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        place = Place::Deeper(openat(&place, &rest[..at], flags, Mode::empty())?);
        rest = &rest[at + 1..];
    }
    Ok((place, if rest.is_empty() { b"." } else { rest }))
}

/// Opens a directory below `root`.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let (place, rest) = place(root, path)?;
    openat(place, rest, flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}
