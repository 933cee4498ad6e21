//! What a guest may do to a file, by the credentials that it believes to have and the owner and mode that it is shown.
//!
//! Two directions. A guest that has become somebody (su, a daemon's own user) is refused what that user may not, though the
//! host would let it. And where the disk's permissions forbid its owner what a guest may do (a directory of mode 0555 in
//! which root goes on making files), they are opened when that happens; the ledger remembers what the guest gave.

use core::ffi::CStr;

use coracle_paths::PATH_MAX;

use crate::{
    Credentials, Errno, Guest, Rules,
    credentials::{Caps, Ids, cap},
    errno::EPERM,
    identity::MAX_GROUPS,
    owners::{Facts, S_IFREG, S_ISGID, S_ISUID, S_ISVTX},
    permit::S_IFDIR,
};

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;

/// Whether a group counts as one of the caller's.
pub(crate) fn in_group<G: Guest>(guest: &G, who: &Credentials, gid: u32) -> bool {
    if who.group.files == gid {
        return true;
    }
    let mut groups = [0; MAX_GROUPS];
    let count = guest.groups(&mut groups).min(MAX_GROUPS);
    groups[..count].contains(&gid)
}

/// Whether `who` may read, write or execute a file that it is shown so.
pub(crate) fn may<G: Guest>(guest: &G, who: &Credentials, shown: &Facts, want: u32) -> Result<(), Errno> {
    if who.can(cap::DAC_OVERRIDE) && (shown.is(S_IFDIR) || want & EXECUTE == 0 || shown.mode & 0o111 != 0) {
        return Ok(());
    }
    let granted = if who.user.files == shown.uid {
        shown.mode >> 6
    } else if in_group(guest, who, shown.gid) {
        shown.mode >> 3
    } else {
        shown.mode
    };
    if want & !granted & 7 == 0 { Ok(()) } else { Err(Errno::EACCES) }
}

/// Credentials as access(2) takes them: the real ids count.
pub(crate) fn real(who: &Credentials) -> Credentials {
    let own = |ids: Ids| Ids { files: ids.real, ..ids };
    let effective = if who.user.real == 0 { who.caps.permitted } else { 0 };
    Credentials { user: own(who.user), group: own(who.group), caps: Caps { effective, ..who.caps }, ..*who }
}

/// Calls `each` with every directory of the view that leads to host path `path`, from the tree's or bind's own root on, and
/// with the last component if `last`.
fn walk(
    rules: &Rules<'_>,
    path: &[u8],
    last: bool,
    mut each: impl FnMut(&CStr) -> Result<(), Errno>,
) -> Result<Option<usize>, Errno> {
    let mut guest = [0; PATH_MAX];
    let Some(place) = rules.view.to_guest_as(path, false, &mut guest) else { return Ok(None) };
    let mut buffer = [0; PATH_MAX];
    buffer
        .get_mut(..path.len())
        .filter(|_| path.len() + 1 < PATH_MAX)
        .ok_or(Errno::ENAMETOOLONG)?
        .copy_from_slice(path);
    let start = rules.view.host_root(place.bind).len();
    let mut at = start;
    while at < path.len() {
        buffer[at] = 0;
        if let Ok(prefix) = CStr::from_bytes_until_nul(&buffer[..=at]) {
            each(if prefix.is_empty() { c"/" } else { prefix })?;
        }
        buffer[at] = path[at];
        let name = at + path[at..].iter().take_while(|byte| **byte == b'/').count();
        at = name + path[name..].iter().position(|byte| *byte == b'/').unwrap_or(path.len() - name);
    }
    if last {
        buffer[path.len()] = 0;
        if let Ok(whole) = CStr::from_bytes_until_nul(&buffer[..=path.len()]) {
            each(whole)?;
        }
    }
    Ok(place.bind)
}

/// Whether `who` may search every directory on the way to host path `path`. Whoever has the capability may.
pub(crate) fn may_reach<G: Guest>(rules: &Rules<'_>, guest: &G, who: &Credentials, path: &CStr) -> Result<(), Errno> {
    if who.can(cap::DAC_OVERRIDE) {
        return Ok(());
    }
    let search = |directory: &CStr| match guest.stat(directory, false) {
        Ok(facts) if facts.is(S_IFDIR) => may(guest, who, &rules.shown(&facts), EXECUTE),
        _ => Ok(()),
    };
    walk(rules, path.to_bytes(), false, search).map(drop)
}

/// Whether the caller may add names to a directory, or with `victim` take that one out of it.
fn may_change<G: Guest>(rules: &Rules<'_>, guest: &G, directory: &CStr, victim: Option<&Facts>) -> Result<(), Errno> {
    let who = guest.credentials();
    let above = rules.shown(&guest.stat(directory, false)?);
    may(guest, &who, &above, WRITE | EXECUTE)?;
    let own = |facts: &Facts| who.user.files == facts.uid;
    match victim.map(|facts| rules.shown(facts)) {
        Some(victim) if above.mode & S_ISVTX != 0 && !own(&above) && !own(&victim) && !who.can(cap::FOWNER) => {
            Err(EPERM)
        }
        _ => Ok(()),
    }
}

/// As [`may_change`], of the directory that holds host path `path`. The room for its name is no part of the callers' stack.
#[inline(never)]
pub(crate) fn may_change_above<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    path: &CStr,
    victim: Option<&Facts>,
) -> Result<(), Errno> {
    let mut buffer = [0; PATH_MAX];
    match directory_of(path, &mut buffer) {
        Some(directory) => may_change(rules, guest, directory, victim),
        None => Ok(()),
    }
}

/// The directory part of a host path, copied.
pub(crate) fn directory_of<'b>(path: &CStr, buffer: &'b mut [u8; PATH_MAX]) -> Option<&'b CStr> {
    let path = path.to_bytes();
    let name = path.iter().rposition(|byte| *byte != b'/')?;
    let slash = path[..=name].iter().rposition(|byte| *byte == b'/')?;
    let directory = if slash == 0 { b"/" } else { &path[..slash] };
    buffer.get_mut(..directory.len())?.copy_from_slice(directory);
    *buffer.get_mut(directory.len())? = 0;
    CStr::from_bytes_until_nul(&buffer[..=directory.len()]).ok()
}

/// The kernel has refused (`EACCES`) what host path `path` names: gives its owner on disk, who is the guest, the
/// permissions that it lacks on the way and there. Whether that changed anything, so that asking again makes sense.
pub fn unlock<G: Guest>(rules: &Rules<'_>, guest: &G, path: &[u8]) -> bool {
    let Some(ledger) = rules.ledger.filter(|_| rules.identity.pretends()) else { return false };
    let mut name = [0; PATH_MAX];
    let writable =
        rules.view.to_guest_as(path, false, &mut name).is_some_and(|place| !rules.view.read_only(place.bind));
    let mut changed = false;
    let mut open = |path: &CStr| {
        let Ok(facts) = guest.stat(path, false) else { return Err(Errno::ENOENT) };
        let full = if facts.is(S_IFDIR) { 0o700 } else { 0o600 };
        if facts.uid != rules.identity.host_uid || !facts.is(S_IFDIR) && !facts.is(S_IFREG) || facts.mode & full == full
        {
            return Ok(());
        }
        let shown = rules.shown(&facts);
        let shared = rules.mark_of(&facts).is_some() || ledger.get(facts.inode).is_some_and(|entry| entry.shared);
        let mode = u16::try_from(shown.mode & 0xffff).unwrap_or(0);
        if !shared && ledger.set_mode(facts.inode, Some(mode)).is_ok() {
            changed |= guest.set_mode(path, (facts.mode | full) & 0o7777).is_ok();
        }
        Ok(())
    };
    if writable {
        // What is missing ends it early.
        let _ = walk(rules, path, true, &mut open);
    }
    changed
}

/// Whether the caller may execute a file.
///
/// # Errors
/// `EACCES`.
pub fn may_execute<G: Guest>(rules: &Rules<'_>, guest: &G, path: &CStr, facts: &Facts) -> Result<(), Errno> {
    let who = guest.credentials();
    may_reach(rules, guest, &who, path)?;
    may(guest, &who, &rules.shown(facts), EXECUTE)
}

/// The caller's credentials once it executes a program, and whether the program is to mistrust its surroundings.
pub fn after_exec<G: Guest>(rules: &Rules<'_>, guest: &G, program: &Facts) -> (Credentials, bool) {
    let shown = rules.shown(program);
    let group = S_ISGID | 0o010;
    let set_user = (shown.mode & S_ISUID != 0).then_some(shown.uid);
    let set_group = (shown.mode & group == group).then_some(shown.gid);
    guest.credentials().after_exec(set_user, set_group)
}
