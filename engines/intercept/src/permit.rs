//! Read-only places: whether a call may do there what it wants, with the errors in the kernel's order.

use core::ffi::CStr;

use coracle_paths::{Ending, Found, PATH_MAX, Resolved};

use crate::{
    Call, Errno, Guest, Rules,
    errno::{EBUSY, EISDIR, ENOTEMPTY, EROFS},
    meaning::{AT_REMOVEDIR, Intent, O_ACCMODE, O_CREAT, O_EXCL, O_PATH, O_TMPFILE, O_TRUNC, W_OK},
    owners::{S_IFLNK, S_IFREG},
    table,
    translate::{LINK, link_of},
};

pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;

/// Where a name is kept: the directory that holds a bind's mount point is not in that bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) bind: Option<usize>,
    pub(crate) read_only: bool,
}

impl Home {
    /// Of the last component of a path in `Last::Parent`.
    pub(crate) fn of(rules: &Rules<'_>, place: &Resolved<'_>) -> Self {
        if !place.mount_point || place.ending != Ending::Name {
            return Self { bind: place.behind.unwrap_or(place.bind), read_only: place.read_only };
        }
        let slash = place.guest.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let bind = rules.view.mount_of(&place.guest[..slash]);
        Self { bind, read_only: rules.view.read_only(bind) }
    }
}

/// Whether the name is, or holds, a mount point that only the view knows of.
pub(crate) fn is_mounted(rules: &Rules<'_>, place: &Resolved<'_>) -> bool {
    place.mount_point || !place.deep && rules.view.mounts_below(place.guest)
}

/// Answers `Ok` if the kernel shall decide.
pub(crate) fn permit<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    intent: Intent,
    place: &Resolved<'_>,
) -> Result<(), Errno> {
    if intent == Intent::Remove {
        return permit_remove(rules, guest, call, place);
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
    let slash = place.host.to_bytes().ends_with(b"/");
    match intent {
        // A rename's second name is judged with the first.
        Intent::Read | Intent::Remove | Intent::Replace => Ok(()),
        Intent::Open(arg) => permit_open(call.arg(arg), slash, kind).map_err(|errno| refuse(guest, place.host, errno)),
        Intent::Write => {
            permit_open(1 | O_CREAT | O_TRUNC, slash, kind).map_err(|errno| refuse(guest, place.host, errno))
        }
        // The kernel finds out what is there, or is not.
        Intent::Attribute | Intent::Owner | Intent::Mode if kind().is_err() => Ok(()),
        Intent::Attribute | Intent::Owner | Intent::Mode => Err(EROFS),
        Intent::Size => match kind() {
            Ok(S_IFREG) => Err(EROFS),
            _ => Ok(()),
        },
        // `.`, `..` and `/` are refused whatever is there.
        Intent::Create if place.ending != Ending::Name => Ok(()),
        Intent::Create => match name_mode(guest, place.host) {
            Err(Errno::ENOENT) if slash && !makes_directory(call) => Err(Errno::ENOENT),
            Err(Errno::ENOENT) => Err(refuse(guest, place.host, EROFS)),
            _ => Ok(()),
        },
        Intent::Access(arg) if call.arg(arg) & W_OK == 0 => Ok(()),
        Intent::Access(_) => match kind() {
            Ok(S_IFREG | S_IFDIR | S_IFLNK) => Err(EROFS),
            _ => Ok(()),
        },
    }
}

/// unlink(2) and rmdir(2).
fn permit_remove<G: Guest>(rules: &Rules<'_>, guest: &G, call: &Call, place: &Resolved<'_>) -> Result<(), Errno> {
    if place.ending != Ending::Name {
        return Ok(());
    }
    if Home::of(rules, place).read_only {
        return Err(refuse(guest, place.host, EROFS));
    }
    if place.at_base || !is_mounted(rules, place) {
        return Ok(());
    }
    let is_directory = guest.mode(place.host, false)? & S_IFMT == S_IFDIR;
    Err(match (removes_directory(call), is_directory) {
        (true, false) => Errno::ENOTDIR,
        (false, true) => EISDIR,
        (true, true) if !place.mount_point => ENOTEMPTY,
        _ => EBUSY,
    })
}

/// The mode of what has the name itself, whatever slashes follow it.
#[inline(never)]
pub(crate) fn name_mode<G: Guest>(guest: &G, host: &CStr) -> Result<u32, Errno> {
    let path = host.to_bytes();
    let len = path.len() - path.iter().rev().take_while(|byte| **byte == b'/').count();
    if len == path.len() || len == 0 || len >= PATH_MAX {
        return guest.mode(host, false);
    }
    let mut name = [0; PATH_MAX];
    name[..len].copy_from_slice(&path[..len]);
    guest.mode(CStr::from_bytes_until_nul(&name).unwrap_or(c"/"), false)
}

/// `errno`, unless the name is in no directory, or in one that cannot be searched: the kernel finds that first, and a walk
/// that met no link leaves it to the kernel.
#[inline(never)]
pub(crate) fn refuse<G: Guest>(guest: &G, host: &CStr, errno: Errno) -> Errno {
    let path = host.to_bytes();
    let name_end = path.len() - path.iter().rev().take_while(|byte| **byte == b'/').count();
    let name_start = path[..name_end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let mut dir = [0; PATH_MAX];
    if name_start == 0 || name_start + 1 >= PATH_MAX {
        return errno;
    }
    dir[..name_start].copy_from_slice(&path[..name_start]);
    dir[name_start] = b'.';
    let dir = CStr::from_bytes_until_nul(&dir).unwrap_or(c"/");
    match guest.mode(dir, false) {
        Err(found @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) => found,
        _ => errno,
    }
}

fn makes_directory(call: &Call) -> bool {
    table::row_of(call.abi, call.number).is_some_and(|row| row.name.starts_with("mkdir"))
}

fn removes_directory(call: &Call) -> bool {
    table::row_of(call.abi, call.number).is_some_and(|row| match row.name {
        "unlinkat" => call.arg(2) & AT_REMOVEDIR != 0,
        name => name == "rmdir",
    })
}

/// open(2) in a read-only place.
pub(crate) fn permit_open(flags: u64, slash: bool, kind: impl Fn() -> Result<u32, Errno>) -> Result<(), Errno> {
    if flags & O_PATH != 0 {
        return Ok(());
    }
    let temporary = flags & O_TMPFILE != 0;
    let writes = flags & O_ACCMODE != 0 || flags & O_TRUNC != 0 || temporary;
    if !writes && flags & O_CREAT == 0 {
        return Ok(());
    }
    if slash && flags & O_CREAT != 0 {
        // Refused (EISDIR) whatever is there.
        return Ok(());
    }
    match kind() {
        // EEXIST, EISDIR and ELOOP are the kernel's to say.
        Ok(_) if flags & O_CREAT != 0 && flags & O_EXCL != 0 => Ok(()),
        Ok(S_IFDIR) if temporary => Err(EROFS),
        Ok(S_IFREG) if writes && !temporary => Err(EROFS),
        Ok(_) => Ok(()),
        Err(Errno::ENOENT) if flags & O_CREAT != 0 => Err(EROFS),
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
    let len = match guest.place(descriptor, text) {
        Ok(len) => len,
        // Of a directory too deep to have a path, one above it tells.
        Err(Errno::ENAMETOOLONG) => match guest.ancestor(link_of(guest, descriptor, &mut [0; LINK]), text) {
            Ok(above) => above.len,
            Err(_) => return Ok(()),
        },
        Err(_) => return Ok(()),
    };
    match rules.view.to_guest(&text[..len], place) {
        Some(found) if rules.view.read_only(found.bind) => Err(EROFS),
        _ => Ok(()),
    }
}
