//! Read-only places: whether a call may do there what it wants, with the errors in the kernel's order.

use coracle_paths::{Found, Resolved};

use crate::{
    Call, Errno, Guest, Rules,
    errno::{EBUSY, EROFS},
    meaning::{Intent, O_ACCMODE, O_CREAT, O_EXCL, O_PATH, O_TMPFILE, O_TRUNC, W_OK},
};

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// Answers `Ok` if the kernel shall decide.
pub(crate) fn permit<G: Guest>(guest: &G, call: &Call, intent: Intent, place: &Resolved<'_>) -> Result<(), Errno> {
    if place.mount_point && matches!(intent, Intent::Remove | Intent::Replace) {
        return Err(if place.read_only { EROFS } else { EBUSY });
    }
    if !place.read_only {
        return Ok(());
    }
    let kind = || {
        if place.found == Found::Missing {
            return Err(Errno::ENOENT);
        }
        // A link in `/proc` stands for the open file behind it.
        guest.mode(place.host, place.magic.is_some()).map(|mode| mode & S_IFMT)
    };
    match intent {
        Intent::Read => Ok(()),
        Intent::Open(arg) => permit_open(call.arg(arg), kind),
        Intent::Write => permit_open(1 | O_CREAT | O_TRUNC, kind),
        Intent::Remove | Intent::Replace => Err(EROFS),
        // The kernel finds out what is there, or is not.
        Intent::Attribute | Intent::Owner if kind().is_err() => Ok(()),
        Intent::Attribute | Intent::Owner => Err(EROFS),
        Intent::Create if kind().is_ok() => Ok(()),
        Intent::Create => Err(EROFS),
        Intent::Access(arg) if call.arg(arg) & W_OK == 0 => Ok(()),
        Intent::Access(_) => match kind() {
            Ok(S_IFREG | S_IFDIR | S_IFLNK) => Err(EROFS),
            _ => Ok(()),
        },
    }
}

/// open(2) in a read-only place.
pub(crate) fn permit_open(flags: u64, kind: impl Fn() -> Result<u32, Errno>) -> Result<(), Errno> {
    if flags & O_PATH != 0 {
        return Ok(());
    }
    let temporary = flags & O_TMPFILE != 0;
    let writes = flags & O_ACCMODE != 0 || flags & O_TRUNC != 0 || temporary;
    if !writes && flags & O_CREAT == 0 {
        return Ok(());
    }
    match kind() {
        // EEXIST, EISDIR and ELOOP are the kernel's to say.
        Ok(_) if flags & O_CREAT != 0 && flags & O_EXCL != 0 => Ok(()),
        Ok(S_IFDIR) if temporary => Err(EROFS),
        Ok(S_IFREG) if writes => Err(EROFS),
        Ok(_) => Ok(()),
        Err(_) if flags & O_CREAT != 0 => Err(EROFS),
        Err(_) => Ok(()),
    }
}

/// A change of attributes through a descriptor, which may have been opened for reading only.
pub(crate) fn permit_descriptor<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    descriptor: Option<i32>,
    text: &mut [u8],
    place: &mut [u8],
) -> Result<(), Errno> {
    // What is no file with a name in the view is no matter of ours; a bad descriptor is the kernel's to say.
    let Ok(len) = guest.place(descriptor, text) else { return Ok(()) };
    match rules.view.to_guest(&text[..len], place) {
        Some(found) if rules.view.read_only(found.bind) => Err(EROFS),
        _ => Ok(()),
    }
}
