//! Socket addresses on their way between guest and kernel: names in the file system, and ports.
//!
//! A name of the Unix family is a path ([`unix`]); a port may have another number on the host ([`ports`]). Addresses stand
//! in arguments (bind, connect, sendto…), in message headers ([`message`]) and, on 32 bits, in arguments in memory
//! ([`call`]). What is not ours to change is left to the kernel, and with it all errors of arguments.

pub(crate) mod call;
mod control;
pub(crate) mod message;
pub(crate) mod ports;
mod unix;

use core::ffi::CStr;

use coracle_paths::PATH_MAX;

use crate::{
    Call, Errno, Guest, Rules, Scratch,
    enter::Verdict,
    errno::{EBADF, ENOTSOCK},
    leave::After,
    meaning::{Intent, Outside, SO_PEERCRED},
    pretend::descriptor_path,
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Where the path begins in `struct sockaddr_un`.
const PATH_AT: usize = 2;
/// Bytes of its path.
const PATH_ROOM: usize = 108;
/// `struct sockaddr_un`, and the longest address that is looked into.
const UNIX_SIZE: usize = PATH_AT + PATH_ROOM;

/// An address as the kernel is to have it.
#[derive(Debug)]
struct Address {
    bytes: [u8; UNIX_SIZE],
    len: usize,
}

impl Address {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the guest wants of an address that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// To have it.
    Own,
    /// To reach it.
    Peer,
}

impl Gives {
    fn intent(self) -> Intent {
        match self {
            Self::Own => Intent::Create,
            Self::Peer => Intent::Read,
        }
    }
}

/// An address goes from the guest to the kernel: these arguments are it and its length.
pub(crate) fn give_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    [at, length]: [u8; 2],
    gives: Gives,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let socket = call.int(0);
    let own = gives == Gives::Own && rules.identity.pretends();
    let after = if own { After::Bound { at, length } } else { After::Nothing };
    let Some(address) = host_address(rules, guest, socket, call.arg(at), call.int(length), gives, scratch)? else {
        return Ok(if own { Verdict::Make { after, outside: Outside::No } } else { Verdict::Pass });
    };
    scratch.lent[0].set(at, address.bytes())?;
    call.args[usize::from(length)] = address.len as u64;
    Ok(Verdict::Make { after, outside: Outside::No })
}

/// The host path of a socket that was just bound to the address at `address`, as the kernel got it.
pub(crate) fn bound_path<'p, G: Guest>(
    guest: &G,
    address: u64,
    length: u64,
    path: &'p mut [u8; PATH_MAX],
) -> Option<&'p CStr> {
    let mut given = [0; UNIX_SIZE];
    let length = usize::try_from(length).ok()?.min(UNIX_SIZE);
    guest.read(address, &mut given[..length]).ok()?;
    let name = given.get(PATH_AT..length)?;
    let is_path = given.starts_with(&AF_UNIX.to_ne_bytes()) && name.first().is_some_and(|first| *first != 0);
    let mut end = 0;
    if is_path && name[0] != b'/' {
        let mut room = [0; 48];
        let cwd = descriptor_path(guest.caller().tid, None, &mut room).to_bytes();
        path[..cwd.len()].copy_from_slice(cwd);
        path[cwd.len()] = b'/';
        end = cwd.len() + 1;
    }
    path[end..end + name.len()].copy_from_slice(name);
    path[end + name.len()] = 0;
    CStr::from_bytes_until_nul(path).ok().filter(|_| is_path)
}

/// Translates an address that the guest gives; `None` if the kernel shall have it as it is.
fn host_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    socket: i32,
    address: u64,
    len: i32,
    gives: Gives,
    scratch: &mut Scratch,
) -> Result<Option<Address>, Errno> {
    let Some(len) = usize::try_from(len).ok().filter(|len| *len > PATH_AT) else { return Ok(None) };
    let mut given = Address { bytes: [0; UNIX_SIZE], len: len.min(UNIX_SIZE) };
    guest.read(address, &mut given.bytes[..given.len])?;
    match u16::from_ne_bytes([given.bytes[0], given.bytes[1]]) {
        // An abstract name begins with a NUL; a length beyond the structure's is the kernel's to refuse.
        AF_UNIX if len <= UNIX_SIZE && given.bytes[PATH_AT] != 0 => {
            unix::host_name(rules, guest, &given, gives, scratch)
                .map_err(|errno| no_socket(guest, socket).unwrap_or(errno))
        }
        AF_INET | AF_INET6 if len <= UNIX_SIZE => Ok(ports::to_host(rules, guest, socket, given, gives)),
        _ => Ok(None),
    }
}

/// What the kernel says first if the descriptor is no socket.
fn no_socket<G: Guest>(guest: &G, descriptor: i32) -> Option<Errno> {
    let mut text = [0; 64];
    match guest.place(Some(descriptor), &mut text) {
        Ok(len) if text[..len.min(text.len())].starts_with(b"socket:") => None,
        Ok(_) => Some(ENOTSOCK),
        Err(_) => Some(EBADF),
    }
}

/// An address comes from the kernel to the guest, if the guest wants it.
pub(crate) fn take_address<G: Guest>(guest: &G, whose: Whose, at: u64, length_at: u64) -> Verdict {
    let mut length = [0; 4];
    if at == 0 || guest.read(length_at, &mut length).is_err() {
        return Verdict::Pass;
    }
    let after = After::Address { whose, at, length_at, room: u32::from_ne_bytes(length) };
    Verdict::Make { after, outside: Outside::No }
}

/// getsockopt(2): who the peer is believed to be.
pub(crate) fn peer_credentials(rules: &Rules<'_>, call: &Call) -> Verdict {
    const SOL_SOCKET: i32 = 1;
    if !rules.identity.pretends() || call.int(1) != SOL_SOCKET || call.arg(2) & 0xffff_ffff != u64::from(SO_PEERCRED) {
        return Verdict::Pass;
    }
    let after = After::PeerCredentials { at: call.arg(3), length_at: call.arg(4) };
    Verdict::Make { after, outside: Outside::No }
}

/// Shows the ids of a `struct ucred` as those that the process believes to have, or as the guest sees the host's.
pub(crate) fn show_credentials<G: Guest>(rules: &Rules<'_>, guest: &G, at: u64, length_at: u64) -> Result<(), Errno> {
    let (mut length, mut told) = ([0; 4], [0; 12]);
    guest.read(length_at, &mut length)?;
    if u32::from_ne_bytes(length) < 12 {
        return Ok(());
    }
    guest.read(at, &mut told)?;
    shown_credentials(rules, guest, &mut told);
    guest.write(at, &told)
}

/// A `struct ucred` as the guest is to see it.
fn shown_credentials<G: Guest>(rules: &Rules<'_>, guest: &G, told: &mut [u8; 12]) {
    let word = |at: usize| u32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
    let (uid, gid) = match guest.credentials_of(word(0)) {
        Some(known) => (known.user.effective, known.group.effective),
        None => (rules.identity.shown_uid(word(4)), rules.identity.shown_gid(word(8))),
    };
    told[4..8].copy_from_slice(&uid.to_ne_bytes());
    told[8..].copy_from_slice(&gid.to_ne_bytes());
}

/// Whose address comes from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of this socket itself.
    Own(i32),
    /// That of the other side of this socket.
    Peer(i32),
}

/// Shows an address that the kernel wrote as the guest's: `room` bytes of it fitted.
pub(crate) fn show_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    whose: Whose,
    (at, length_at, room): (u64, u64, u32),
    scratch: &mut Scratch,
) -> Result<(), Errno> {
    let mut length = [0; 4];
    guest.read(length_at, &mut length)?;
    let full = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0);
    let room = usize::try_from(room).unwrap_or(0);
    // With its NUL a full name is a byte longer than the structure.
    let mut given = [0; UNIX_SIZE + 1];
    let have = full.min(room).min(given.len());
    let given = &mut given[..have];
    guest.read(at, given)?;
    if have <= PATH_AT {
        return Ok(());
    }
    match u16::from_ne_bytes([given[0], given[1]]) {
        AF_UNIX => {
            let Some(name) = unix::guest_name(rules, guest, &given[PATH_AT..], full - PATH_AT, scratch) else {
                return Ok(());
            };
            let mut shown = [0; UNIX_SIZE + 1];
            shown[..PATH_AT].copy_from_slice(&AF_UNIX.to_ne_bytes());
            shown[PATH_AT..PATH_AT + name.len()].copy_from_slice(name);
            let new = PATH_AT + name.len() + 1;
            guest.write(at, &shown[..new.min(room)])?;
            guest.write(length_at, &u32::try_from(new).unwrap_or(0).to_ne_bytes())
        }
        AF_INET | AF_INET6 => match ports::to_guest(rules, guest, whose, given) {
            Some(port) => guest.write(at + 2, &port.to_be_bytes()),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}
