//! Control messages that tell who sends (`SCM_CREDENTIALS` of unix(7)), for guests that take themselves for somebody else:
//! the kernel gets the ids that it knows, and tells of a sender in the guest the ids that this believes to have.
//!
//! A guest that sends ids other than its own (root may) is judged here by what it believes to be; the receiver is told of
//! the sender's own then. The process id is the kernel's to judge.

use super::shown_credentials;
use crate::{Abi, Errno, Guest, Rules, credentials::cap, errno::EPERM};

const SOL_SOCKET: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// Size of `struct ucred`: process, user, group.
const UCRED: usize = 12;

/// Bytes of a `size_t`, to which control messages are aligned.
pub(crate) fn word(abi: Abi) -> usize {
    match abi {
        Abi::X86_64 => 8,
        Abi::I386 => 4,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A number of `width` bytes.
pub(crate) fn number_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(found) = bytes.get(at..at + width) {
        number[..width].copy_from_slice(found);
    }
    u64::from_ne_bytes(number)
}

/// Where the next `struct ucred` from the message at `at` on lies in these control messages, and where the message after
/// it begins.
fn next(control: &[u8], mut at: usize, word: usize) -> Option<(usize, usize)> {
    let header = word + 8;
    loop {
        let left = control.len().checked_sub(at).filter(|left| *left >= header)?;
        let len = usize::try_from(number_at(control, at, word)).ok().filter(|len| (header..=left).contains(len))?;
        let kind = (u32_at(control, at + word), u32_at(control, at + word + 4));
        let (data, end) = (at + header, at + len.next_multiple_of(word));
        if kind == (SOL_SOCKET, SCM_CREDENTIALS) && len >= header + UCRED {
            return Some((data, end));
        }
        at = end;
    }
}

/// Gives every message of credentials the host's ids; whether there is one.
///
/// # Errors
/// `EPERM` if the guest may not send these.
pub(crate) fn to_host<G: Guest>(rules: &Rules<'_>, guest: &G, control: &mut [u8], word: usize) -> Result<bool, Errno> {
    let (mut at, mut found) = (0, false);
    while let Some((data, end)) = next(control, at, word) {
        let who = guest.credentials();
        let (uid, gid) = (u32_at(control, data + 4), u32_at(control, data + 8));
        let own_user = [who.user.real, who.user.effective, who.user.saved].contains(&uid);
        let own_group = [who.group.real, who.group.effective, who.group.saved].contains(&gid);
        if !(own_user || who.can(cap::SETUID)) || !(own_group || who.can(cap::SETGID)) {
            return Err(EPERM);
        }
        control[data + 4..data + 8].copy_from_slice(&rules.identity.host_uid.to_ne_bytes());
        control[data + 8..data + UCRED].copy_from_slice(&rules.identity.host_gid.to_ne_bytes());
        (at, found) = (end, true);
    }
    Ok(found)
}

/// Shows the ids in every message of credentials that has come; `address` is where the guest has them.
pub(crate) fn to_guest<G: Guest>(rules: &Rules<'_>, guest: &G, control: &[u8], word: usize, address: u64) {
    let mut at = 0;
    while let Some((data, end)) = next(control, at, word) {
        let mut told = [0; UCRED];
        told.copy_from_slice(&control[data..data + UCRED]);
        shown_credentials(rules, guest, &mut told);
        // The message has come, whether it can be written to or not.
        let _ = guest.write(address + data as u64, &told);
        at = end;
    }
}
