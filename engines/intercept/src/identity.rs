//! Whom a guest takes itself for, where the host knows it by another id: the calls that ask, and those that change it.
//!
//! None of them reaches the kernel. The transport keeps each thread's [`Credentials`] and supplementary groups, as the
//! kernel keeps them per thread; the rules are [`crate::credentials`]'s.

use crate::{
    Abi, Call, Credentials, Errno, Guest, Scratch,
    credentials::{self, cap},
    enter::Verdict,
    errno::{EPERM, ESRCH},
    meaning::Person,
};

/// The ids that a guest starts with, and those that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// User id on the host.
    pub host_uid: u32,
    /// Group id on the host.
    pub host_gid: u32,
}

impl Identity {
    /// Whether the guest is told other ids than the kernel's.
    #[must_use]
    pub fn pretends(&self) -> bool {
        self.uid != self.host_uid || self.gid != self.host_gid
    }

    /// The owner that the guest sees of a file that the host says is `uid`'s.
    #[must_use]
    pub fn shown_uid(&self, uid: u32) -> u32 {
        if uid == self.host_uid { self.uid } else { uid }
    }

    /// The group that the guest sees of a file that the host says is `gid`'s.
    #[must_use]
    pub fn shown_gid(&self, gid: u32) -> u32 {
        if gid == self.host_gid { self.gid } else { gid }
    }
}

/// As many supplementary groups as a thread may have here (the kernel allows 65536).
pub const MAX_GROUPS: usize = 1024;

/// The overflow id that 16-bit calls show of larger ones.
const OVERFLOW: u16 = 65534;

/// An id in the width of the call: 16 bits in the oldest calls of 32-bit x86.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Width {
    pub(crate) narrow: bool,
}

impl Width {
    #[expect(clippy::cast_possible_truncation, reason = "the kernel takes an id from the lower bits of its register")]
    pub(crate) fn take(self, arg: u64) -> u32 {
        match arg as u32 {
            id if !self.narrow => id,
            id if id & 0xffff == 0xffff => credentials::KEEP,
            id => id & 0xffff,
        }
    }

    fn show(self, id: u32) -> i64 {
        if self.narrow { i64::from(u16::try_from(id).unwrap_or(OVERFLOW)) } else { i64::from(id) }
    }

    fn size(self) -> usize {
        if self.narrow { 2 } else { 4 }
    }

    fn write<G: Guest>(self, guest: &G, address: u64, id: u32) -> Result<(), Errno> {
        if self.narrow {
            guest.write(address, &u16::try_from(id).unwrap_or(OVERFLOW).to_ne_bytes())
        } else {
            guest.write(address, &id.to_ne_bytes())
        }
    }
}

/// Answers a call about ids, groups and capabilities; `name` is its name in the table.
pub(crate) fn person<G: Guest>(
    guest: &G,
    call: &Call,
    what: Person,
    name: &str,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let width = Width { narrow: call.abi == Abi::I386 && !name.ends_with("32") };
    let now = guest.credentials();
    let id = |arg: u8| width.take(call.arg(arg));
    let ids = || [id(0), id(1), id(2)];
    let become_ = |new: Result<Credentials, Errno>| {
        guest.set_credentials(&new?);
        Ok(0)
    };
    let write = |ids: credentials::Ids| {
        for (arg, id) in [(0, ids.real), (1, ids.effective), (2, ids.saved)] {
            width.write(guest, call.arg(arg), id)?;
        }
        Ok(0)
    };
    let answer = match what {
        Person::Uid => Ok(width.show(now.user.real)),
        Person::Euid => Ok(width.show(now.user.effective)),
        Person::Gid => Ok(width.show(now.group.real)),
        Person::Egid => Ok(width.show(now.group.effective)),
        Person::ResUid => write(now.user),
        Person::ResGid => write(now.group),
        Person::SetUid => become_(now.set_uid(id(0))),
        Person::SetGid => become_(now.set_gid(id(0))),
        Person::SetReUid => become_(now.set_reuid(id(0), id(1))),
        Person::SetReGid => become_(now.set_regid(id(0), id(1))),
        Person::SetResUid => become_(now.set_resuid(ids())),
        Person::SetResGid => become_(now.set_resgid(ids())),
        Person::SetFsUid => {
            guest.set_credentials(&now.set_fsuid(id(0)));
            Ok(width.show(now.user.files))
        }
        Person::SetFsGid => {
            guest.set_credentials(&now.set_fsgid(id(0)));
            Ok(width.show(now.group.files))
        }
        Person::Groups => groups(guest, call, width),
        Person::SetGroups => set_groups(guest, call, width, scratch),
        Person::CapGet => cap_get(guest, call),
        Person::CapSet => cap_set(guest, call),
        Person::Prctl => match prctl(&now, call) {
            Some(Asked::Answer(answer)) => Ok(answer),
            Some(Asked::Become(new)) => become_(Ok(new)),
            Some(Asked::Refuse(errno)) => Err(errno),
            None => return Ok(Verdict::Pass),
        },
    };
    answer.map(Verdict::Answer)
}

/// getgroups(2).
fn groups<G: Guest>(guest: &G, call: &Call, width: Width) -> Result<i64, Errno> {
    let room = usize::try_from(call.int(0)).map_err(|_| Errno::EINVAL)?;
    let mut groups = [0; MAX_GROUPS];
    let count = guest.groups(&mut groups).min(MAX_GROUPS);
    if room > 0 {
        if count > room {
            return Err(Errno::EINVAL);
        }
        for (at, group) in groups[..count].iter().enumerate() {
            width.write(guest, call.arg(1) + (at * width.size()) as u64, *group)?;
        }
    }
    Ok(i64::try_from(count).unwrap_or(0))
}

/// setgroups(2).
fn set_groups<G: Guest>(guest: &G, call: &Call, width: Width, scratch: &mut Scratch) -> Result<i64, Errno> {
    if !guest.credentials().can(cap::SETGID) {
        return Err(EPERM);
    }
    let count = usize::try_from(call.int(0)).ok().filter(|count| *count <= MAX_GROUPS).ok_or(Errno::EINVAL)?;
    let bytes = &mut scratch.text[..count * width.size()];
    guest.read(call.arg(1), bytes)?;
    let mut groups = [0; MAX_GROUPS];
    for (group, bytes) in groups.iter_mut().zip(bytes.chunks_exact(width.size())) {
        let mut id = [0; 4];
        id[..bytes.len()].copy_from_slice(bytes);
        *group = width.take(u32::from_le_bytes(id).into());
        if *group == credentials::KEEP {
            return Err(Errno::EINVAL);
        }
    }
    // As the kernel keeps them.
    groups[..count].sort_unstable();
    guest.set_groups(&groups[..count]);
    Ok(0)
}

/// Versions of `struct __user_cap_header_struct`, and how many words of each set they carry.
fn cap_words(version: u32) -> Option<usize> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    }
}

/// The header: how many words, and whose. An unknown version is told the newest one.
fn cap_header<G: Guest>(guest: &G, call: &Call) -> Result<(usize, i32), Errno> {
    let mut header = [0; 8];
    guest.read(call.arg(0), &mut header)?;
    let (version, pid) = header.split_at(4);
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap_or([0; 4]));
    match cap_words(word(version)) {
        Some(words) => Ok((words, word(pid).cast_signed())),
        None => {
            guest.write(call.arg(0), &0x2008_0522_u32.to_ne_bytes())?;
            Err(Errno::EINVAL)
        }
    }
}

/// capget(2).
fn cap_get<G: Guest>(guest: &G, call: &Call) -> Result<i64, Errno> {
    let (words, pid) = match cap_header(guest, call) {
        Err(Errno::EINVAL) if call.arg(1) == 0 => return Ok(0),
        header => header?,
    };
    let caller = guest.caller();
    let caps = match u32::try_from(pid).map_err(|_| Errno::EINVAL)? {
        0 => guest.credentials().caps,
        pid if pid == caller.tid => guest.credentials().caps,
        pid => guest.credentials_of(pid).ok_or(ESRCH)?.caps,
    };
    if call.arg(1) == 0 {
        return Ok(0);
    }
    let mut data = [0; 24];
    for (at, set) in [caps.effective, caps.permitted, caps.inheritable].iter().enumerate() {
        for (half, bytes) in set.to_le_bytes().chunks_exact(4).enumerate() {
            let at = half * 12 + at * 4;
            data[at..at + 4].copy_from_slice(bytes);
        }
    }
    guest.write(call.arg(1), &data[..words * 12])?;
    Ok(0)
}

/// capset(2).
fn cap_set<G: Guest>(guest: &G, call: &Call) -> Result<i64, Errno> {
    let (words, pid) = cap_header(guest, call)?;
    if pid != 0 && pid.cast_unsigned() != guest.caller().tid {
        return Err(EPERM);
    }
    let mut data = [0; 24];
    guest.read(call.arg(1), &mut data[..words * 12])?;
    let set = |at: usize| {
        let half = |half: usize| {
            let at = half * 12 + at * 4;
            u64::from(u32::from_ne_bytes(data[at..at + 4].try_into().unwrap_or([0; 4])))
        };
        (half(0) | half(1) << 32) & ((1 << (cap::LAST + 1)) - 1)
    };
    guest.set_credentials(&guest.credentials().set_caps(set(0), set(1), set(2))?);
    Ok(0)
}

/// What prctl(2) says about credentials.
enum Asked {
    Answer(i64),
    Become(Credentials),
    Refuse(Errno),
}

impl From<Result<Credentials, Errno>> for Asked {
    fn from(new: Result<Credentials, Errno>) -> Self {
        match new {
            Ok(new) => Self::Become(new),
            Err(errno) => Self::Refuse(errno),
        }
    }
}

/// `None`: it is about something else.
fn prctl(now: &Credentials, call: &Call) -> Option<Asked> {
    const SET_KEEPCAPS: i32 = 8;
    const SET_NO_NEW_PRIVS: i32 = 38;
    let flag = |bits: u32, flag: u32| i64::from(bits & flag != 0);
    let number = u32::try_from(call.arg(1)).unwrap_or(u32::MAX);
    Some(match call.int(0) {
        7 => Asked::Answer(flag(now.secure_bits, credentials::KEEP_CAPS)),
        SET_KEEPCAPS if number > 1 => Asked::Refuse(Errno::EINVAL),
        SET_KEEPCAPS => {
            let others = now.secure_bits & !credentials::KEEP_CAPS;
            Asked::Become(Credentials { secure_bits: others | (number * credentials::KEEP_CAPS), ..*now })
        }
        23 if number > cap::LAST => Asked::Refuse(Errno::EINVAL),
        23 => Asked::Answer(i64::from(now.caps.bounding >> number & 1 != 0)),
        24 => now.drop_bound(number).into(),
        27 => Asked::Answer(i64::from(now.secure_bits)),
        28 => now.set_secure_bits(number).into(),
        SET_NO_NEW_PRIVS if call.args[1..5] != [1, 0, 0, 0] => Asked::Refuse(Errno::EINVAL),
        SET_NO_NEW_PRIVS => Asked::Become(Credentials { no_new_privileges: true, ..*now }),
        39 => Asked::Answer(i64::from(now.no_new_privileges)),
        47 => ambient(now, number, call.arg(2)),
        _ => return None,
    })
}

/// prctl(2), `PR_CAP_AMBIENT`.
fn ambient(now: &Credentials, what: u32, capability: u64) -> Asked {
    let caps = now.caps;
    let with = |ambient| Asked::Become(Credentials { caps: credentials::Caps { ambient, ..caps }, ..*now });
    match (what, u32::try_from(capability)) {
        (4, Ok(0)) => with(0),
        (4, _) => Asked::Refuse(Errno::EINVAL),
        (1..=3, Ok(number)) if number <= cap::LAST => {
            let bit = 1 << number;
            match what {
                1 => Asked::Answer(i64::from(caps.ambient & bit != 0)),
                2 if caps.permitted & caps.inheritable & bit == 0 => Asked::Refuse(EPERM),
                2 => with(caps.ambient | bit),
                _ => with(caps.ambient & !bit),
            }
        }
        _ => Asked::Refuse(Errno::EINVAL),
    }
}
