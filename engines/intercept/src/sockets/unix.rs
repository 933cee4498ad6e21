//! Names of the Unix family: paths of at most 108 bytes, where host paths are longer than the guest's.
//!
//! A relative name that means the same to the kernel goes through as it is, so that the kernel itself shows it to peers as
//! it was bound. Any other is replaced; the transport finds a short way where the host path does not fit, and remembers
//! what the guest called the socket ([`Guest::socket_to_bind`]).

use coracle_paths::PATH_MAX;

use super::{AF_UNIX, Address, Gives, PATH_AT, PATH_ROOM, UNIX_SIZE};
use crate::{
    Call, Errno, Guest, Rules, Scratch,
    meaning::{Dir, Last, PathArg},
    permit::permit,
    translate::translate,
};

/// The host's name for a name that the guest gives; `None`: the same.
pub(super) fn host_name<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    given: &Address,
    gives: Gives,
    scratch: &mut Scratch,
) -> Result<Option<Address>, Errno> {
    let name = until_nul(&given.bytes[PATH_AT..given.len]);
    let Scratch { buffers, base, text, .. } = scratch;
    text.fill(0);
    let last = if gives == Gives::Own { Last::Parent } else { Last::Follow };
    let words = PathArg { dir: Dir::Cwd, arg: 0, last, intent: gives.intent() };
    let call = Call { abi: crate::Abi::X86_64, number: 0, args: [0; 6] };
    let Some(place) = translate(rules, guest, &call, &words, name, (buffers, base, text))? else { return Ok(None) };
    permit(rules, guest, &call, words.intent, &place)?;
    if place.at_base {
        return Ok(None);
    }
    let host = place.host.to_bytes();
    // `text` holds the working directory's host path.
    if let Some(dir) = host.strip_suffix(name).and_then(|dir| dir.strip_suffix(b"/"))
        && name[0] != b'/'
        && text.starts_with(dir)
        && text[dir.len()] == 0
    {
        return Ok(None);
    }
    let mut made = Address { bytes: [0; UNIX_SIZE], len: 0 };
    made.bytes[..PATH_AT].copy_from_slice(&AF_UNIX.to_ne_bytes());
    let room = &mut made.bytes[PATH_AT..];
    let len = match gives {
        Gives::Own => guest.socket_to_bind(place.host, name, room)?,
        Gives::Peer if host.len() <= PATH_ROOM => {
            room[..host.len()].copy_from_slice(host);
            host.len()
        }
        Gives::Peer => guest.socket_to_reach(place.host, room)?,
    };
    // The NUL, if there is room for it.
    made.len = (PATH_AT + len + 1).min(UNIX_SIZE);
    Ok(Some(made))
}

/// The guest's name for one that the kernel told, of which `told` came whole or cut; `None`: it stays.
pub(super) fn guest_name<'s, G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    told: &[u8],
    full: usize,
    scratch: &'s mut Scratch,
) -> Option<&'s [u8]> {
    if told.first() != Some(&b'/') {
        // Unnamed, abstract, or bound as a relative name.
        return None;
    }
    let name = until_nul(told);
    let Scratch { base, text, .. } = scratch;
    // The kernel counts the NUL.
    if let Some(len) = guest.socket_bound(name, full.saturating_sub(1), base) {
        return base.get(..len.min(PATH_ROOM));
    }
    if name.len() + 1 < full {
        // Cut, and of nobody whom we know.
        return None;
    }
    text[..name.len()].copy_from_slice(name);
    let place = rules.view.to_guest(&text[..name.len()], &mut base[..PATH_MAX - 1])?;
    base.get(..place.len.min(PATH_ROOM))
}

fn until_nul(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
}
