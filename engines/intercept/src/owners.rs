//! Owners, modes and devices that a pretended root gives to files: recorded in the ledger, shown by every stat.
//!
//! On disk a file stays the host user's, and its permissions are what the guest last gave it, but for the set-user-ID and
//! set-group-ID bits, which would let others on the host become the user: those are kept in the ledger alone. Where the
//! disk's permissions forbid what a guest may do, [`crate::rights`] opens them then, and the ledger goes on showing the
//! guest's.

use core::ffi::CStr;

use coracle_view::{FileId, Mark};

use crate::{
    Errno, Guest, Rules,
    credentials::{KEEP, cap},
    errno::{ENOSPC, EPERM},
    leave::Layout,
    ledger::{Entry, Full, Inode},
    permit::{S_IFDIR, S_IFMT},
    rights,
};

pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;
pub(crate) const S_IFBLK: u32 = 0o060_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
pub(crate) const S_ISUID: u32 = 0o4000;
pub(crate) const S_ISGID: u32 = 0o2000;
pub(crate) const S_ISVTX: u32 = 0o1000;
const S_IXGRP: u32 = 0o010;

/// What stat(2) tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which file it is.
    pub inode: Inode,
    /// `st_mode`.
    pub mode: u32,
    /// `st_nlink`.
    pub links: u64,
    /// `st_uid`.
    pub uid: u32,
    /// `st_gid`.
    pub gid: u32,
    /// `st_rdev` in the kernel's 32-bit form.
    pub device: u32,
    /// `st_mtim`, by which a shared file is known.
    pub modified: (i64, u32),
}

fn full(_: Full) -> Errno {
    ENOSPC
}

impl Facts {
    pub(crate) fn is(&self, kind: u32) -> bool {
        self.mode & S_IFMT == kind
    }

    /// With what the ledger says instead of what the host says.
    fn with(self, entry: &Entry) -> Self {
        let (uid, gid) = entry.owner.unwrap_or((self.uid, self.gid));
        let mode = entry.mode.map_or(self.mode, u32::from);
        Self { uid, gid, mode, device: entry.device.unwrap_or(self.device), ..self }
    }
}

impl Rules<'_> {
    /// What is known of a file that the view shares.
    pub(crate) fn mark_of(&self, facts: &Facts) -> Option<Mark> {
        let Inode { device, number } = facts.inode;
        self.marks?.find(&FileId { device, inode: number, mtime: facts.modified })
    }

    /// A file as the guest sees it.
    #[must_use]
    pub fn shown(&self, facts: &Facts) -> Facts {
        let mut own = *facts;
        let pretends = self.identity.pretends();
        if pretends {
            (own.uid, own.gid) = (self.identity.shown_uid(facts.uid), self.identity.shown_gid(facts.gid));
        }
        if let Some(mark) = self.mark_of(facts) {
            own.mode = S_IFREG | u32::from(mark.mode & 0o7777);
            own.links = mark.links.into();
            (own.uid, own.gid) = mark.owner.filter(|_| pretends).unwrap_or((own.uid, own.gid));
        }
        let entry = self.ledger.filter(|_| pretends).and_then(|ledger| ledger.get(facts.inode));
        entry.map_or(own, |entry| own.with(&entry))
    }

    /// Shows a file's owner, mode and device in a structure as the kernel filled it. `host` is the path that it was
    /// asked by, if there is one: what `/proc` has of a guest's process belongs to whom that process is.
    pub fn show<G: Guest>(&self, guest: &G, host: Option<&CStr>, structure: &mut [u8], layout: Layout) {
        let Some(facts) = layout.read(structure) else { return };
        let mut shown = self.shown(&facts);
        if self.identity.pretends()
            && facts.uid == self.identity.host_uid
            && let Some(pid) = host.and_then(process_of)
            && let Some(whose) = guest.credentials_of(pid)
        {
            (shown.uid, shown.gid) = (whose.user.effective, whose.group.effective);
        }
        layout.write(structure, &shown);
    }
}

/// The process that a host path in `/proc` is about.
fn process_of(host: &CStr) -> Option<u32> {
    let rest = host.to_bytes().strip_prefix(b"/proc/")?;
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    if rest[end..].starts_with(b"/fd/") {
        // Not the link, but what it leads to.
        return None;
    }
    core::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// chown(2) and its kin: `uid` and `gid` as given, [`KEEP`] for "as it is". By `descriptor`, what has no name of its own is
/// told yes and forgotten.
pub(crate) fn change_owner<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (host, follow, descriptor): (&CStr, bool, bool),
    (uid, gid): (u32, u32),
) -> Result<(), Errno> {
    let facts = guest.stat(host, follow)?;
    let shown = rules.shown(&facts);
    let who = guest.credentials();
    let owns = who.user.files == shown.uid;
    let may_give = uid == KEEP || owns && uid == shown.uid;
    let may_group = gid == KEEP || owns && (gid == shown.gid || rights::in_group(guest, &who, gid));
    if !(who.can(cap::CHOWN) || may_give && may_group) {
        return Err(EPERM);
    }
    let nameless = facts.links == 0 || facts.is(S_IFIFO) || facts.is(S_IFSOCK);
    let Some(ledger) = rules.ledger.filter(|_| !(descriptor && nameless)) else { return Ok(()) };
    let uid = if uid == KEEP { shown.uid } else { uid };
    let gid = if gid == KEEP { shown.gid } else { gid };
    if (uid, gid) != (shown.uid, shown.gid) {
        ledger.set_owner(facts.inode, uid, gid).map_err(full)?;
    }
    // Whoever gives a program away, gives away its bits.
    if !shown.is(S_IFDIR) && shown.mode & (S_ISUID | S_ISGID) != 0 {
        let group = if shown.mode & S_IXGRP != 0 { S_ISGID } else { 0 };
        set_mode(rules, guest, (host, &facts), shown.mode & !(S_ISUID | group))?;
    }
    Ok(())
}

/// chmod(2) and its kin.
pub(crate) fn change_mode<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (host, follow): (&CStr, bool),
    mode: u32,
) -> Result<(), Errno> {
    let facts = guest.stat(host, follow)?;
    if facts.is(S_IFLNK) {
        return Err(crate::errno::EOPNOTSUPP);
    }
    let shown = rules.shown(&facts);
    let who = guest.credentials();
    if who.user.files != shown.uid && !who.can(cap::FOWNER) {
        return Err(EPERM);
    }
    let mut mode = shown.mode & S_IFMT | mode & 0o7777;
    if mode & S_ISGID != 0 && !who.can(cap::FSETID) && !rights::in_group(guest, &who, shown.gid) {
        mode &= !S_ISGID;
    }
    set_mode(rules, guest, (host, &facts), mode)
}

/// Puts on disk what may be there of a mode, and the rest into the ledger.
fn set_mode<G: Guest>(rules: &Rules<'_>, guest: &G, (host, facts): (&CStr, &Facts), mode: u32) -> Result<(), Errno> {
    let Some(ledger) = rules.ledger else { return Ok(()) };
    let entry = ledger.get(facts.inode).unwrap_or_default();
    let whole = u16::try_from(mode & 0xffff).unwrap_or(0);
    if entry.device.is_some() || entry.shared || rules.mark_of(facts).is_some() {
        // The disk's is its own matter.
        return ledger.set_mode(facts.inode, Some(whole)).map_err(full);
    }
    let disk = facts.mode & S_IFMT | mode & 0o1777;
    if disk != facts.mode {
        guest.set_mode(host, disk & 0o7777)?;
    }
    ledger.set_mode(facts.inode, (disk != mode).then_some(whole)).map_err(full)
}

/// What was just made at `host`: its owner is whoever made it, or what its directory says. `device`: it is to be one,
/// of this kind and number.
pub(crate) fn made<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (host, follow): (&CStr, bool),
    directory: Option<&CStr>,
    device: Option<(u32, u32)>,
) -> Result<(), Errno> {
    let Some(ledger) = rules.ledger else { return Ok(()) };
    let facts = guest.stat(host, follow)?;
    // What an earlier file of this number was, that was removed behind our back.
    ledger.remove(facts.inode);
    let who = guest.credentials();
    let own = rules.shown(&facts);
    let (uid, mut gid, mut mode) = (who.user.files, who.group.files, facts.mode);
    if let Some(directory) = directory.filter(|_| !ledger.is_empty())
        && let Ok(above) = guest.stat(directory, false)
        && let above = rules.shown(&above)
        && above.mode & S_ISGID != 0
    {
        gid = above.gid;
        if facts.is(S_IFDIR) {
            mode |= S_ISGID;
        }
    }
    if (uid, gid) != (own.uid, own.gid) {
        ledger.set_owner(facts.inode, uid, gid).map_err(full)?;
    }
    if let Some((kind, number)) = device {
        let mode = u16::try_from(kind | facts.mode & 0o1777).unwrap_or(0);
        return ledger.set_device(facts.inode, mode, number).map_err(full);
    }
    if mode & (S_ISUID | S_ISGID) != 0 && facts.links > 0 {
        set_mode(rules, guest, (host, &facts), mode)
    } else {
        Ok(())
    }
}

/// The host's own node for a device that the guest made, if it is one that everybody may have.
pub(crate) fn host_node(mode: u32, number: u32) -> Result<&'static CStr, Errno> {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00);
    match (mode & S_IFMT, major, minor) {
        (S_IFCHR, 1, 3) => Ok(c"/dev/null"),
        (S_IFCHR, 1, 5) => Ok(c"/dev/zero"),
        (S_IFCHR, 1, 7) => Ok(c"/dev/full"),
        (S_IFCHR, 1, 8) => Ok(c"/dev/random"),
        (S_IFCHR, 1, 9) => Ok(c"/dev/urandom"),
        (S_IFCHR, 5, 0) => Ok(c"/dev/tty"),
        (S_IFCHR, 5, 2) => Ok(c"/dev/ptmx"),
        // What Docker's device rules say of all others.
        _ => Err(EPERM),
    }
}

impl Layout {
    /// How many bytes of the structure matter.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Stat | Self::Statx => 144,
            Self::Stat64 => 96,
            Self::Stat32 => 64,
        }
    }

    /// What the kernel wrote.
    #[must_use]
    pub fn read(self, structure: &[u8]) -> Option<Facts> {
        let structure = structure.get(..self.size())?;
        let half = |at: usize| u32::from(u16::from_ne_bytes([structure[at], structure[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let narrow = |at: usize| i64::from(word(at).cast_signed());
        let wide = |at: usize| long(at).cast_signed();
        let inode = |device: u64, number: u64| Inode { device, number };
        let (inode, links, [mode, uid, gid, device], modified) = match self {
            Self::Stat => {
                let ids = [word(24), word(28), word(32), word(40)];
                (inode(long(0), long(8)), long(16), ids, (wide(88), word(96)))
            }
            Self::Stat64 => {
                let ids = [word(16), word(24), word(28), word(32)];
                (inode(long(0), long(88)), word(20).into(), ids, (narrow(72), word(76)))
            }
            Self::Stat32 => {
                let ids = [half(8), half(12), half(14), word(16)];
                (inode(word(0).into(), word(4).into()), half(10).into(), ids, (narrow(40), word(44)))
            }
            Self::Statx => {
                let device = |at: usize| join(word(at), word(at + 4));
                let ids = [half(28), word(20), word(24), device(128)];
                (inode(device(136).into(), long(32)), word(16).into(), ids, (wide(112), word(120)))
            }
        };
        Some(Facts { inode, mode, links, uid, gid, device, modified })
    }

    /// Writes owner, mode, links and device.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "modes have 16 bits, links as many as the kernel wrote; ids that have more are checked"
    )]
    fn write(self, structure: &mut [u8], facts: &Facts) {
        let mut put = |at: usize, bytes: &[u8]| structure[at..at + bytes.len()].copy_from_slice(bytes);
        let (mode, uid, gid) = (facts.mode.to_ne_bytes(), facts.uid.to_ne_bytes(), facts.gid.to_ne_bytes());
        let narrow = |id: u32| u16::try_from(id).unwrap_or(65534).to_ne_bytes();
        match self {
            Self::Stat => {
                put(16, &facts.links.to_ne_bytes());
                put(24, &mode);
                put(28, &uid);
                put(32, &gid);
                put(40, &u64::from(facts.device).to_ne_bytes());
            }
            Self::Stat64 => {
                put(20, &(facts.links as u32).to_ne_bytes());
                put(16, &mode);
                put(24, &uid);
                put(28, &gid);
                put(32, &u64::from(facts.device).to_ne_bytes());
            }
            Self::Stat32 => {
                put(8, &(facts.mode as u16).to_ne_bytes());
                put(10, &(facts.links as u16).to_ne_bytes());
                put(12, &narrow(facts.uid));
                put(14, &narrow(facts.gid));
                put(16, &facts.device.to_ne_bytes());
            }
            Self::Statx => {
                put(16, &(facts.links as u32).to_ne_bytes());
                put(20, &uid);
                put(24, &gid);
                put(28, &(facts.mode as u16).to_ne_bytes());
                put(128, &(facts.device >> 8 & 0xfff).to_ne_bytes());
                put(132, &(facts.device & 0xff | facts.device >> 12 & 0xf_ff00).to_ne_bytes());
            }
        }
    }
}

/// A device number of its two halves, in the kernel's 32-bit form.
fn join(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
