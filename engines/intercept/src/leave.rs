//! What happens when a guest leaves a system call whose result shows the host.

use coracle_paths::PATH_MAX;

use crate::{
    Call, Guest, Outside, Rules, Scratch, cow,
    listing::{self, Shape},
    sockets::{self, Whose},
};

/// What is to be done with the result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// A socket address may hold a host path; `room` is the size of the guest's buffer.
    Address {
        /// Whose it is.
        whose: Whose,
        /// Where the address is.
        at: u64,
        /// Where its length is.
        length_at: u64,
        /// How much of it fits.
        room: u32,
    },
    /// As many messages as the result says have come, each perhaps with an address.
    Received {
        /// By this descriptor.
        socket: i32,
        /// The array of `struct mmsghdr`.
        array: u64,
        /// How much of each address fits.
        room: u32,
    },
    /// One message was sent in the place of several: its length goes here.
    SentOne {
        /// `msg_len` of its `struct mmsghdr`.
        result_at: u64,
    },
    /// A directory's first entries have come, and those that only the view has follow them.
    Listing {
        /// The directory.
        descriptor: i32,
        /// The guest's buffer.
        at: u64,
        /// Bytes that were kept free in it.
        room: usize,
        /// How entries are laid out.
        shape: Shape,
    },
    /// A file's owner may be the guest's own.
    Owner {
        /// Where the structure is.
        at: u64,
        /// Which structure.
        layout: Layout,
    },
    /// The node has another name.
    NodeName {
        /// Where the `struct new_utsname` is.
        at: u64,
    },
}

/// A structure that holds a file's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `struct stat` of 64-bit x86.
    Stat,
    /// `struct stat64` of 32-bit x86.
    Stat64,
    /// `struct statx`.
    Statx,
}

impl Layout {
    /// Where the user id is; the group id follows it.
    #[must_use]
    pub fn owner(self) -> usize {
        match self {
            Self::Stat => 28,
            Self::Stat64 => 24,
            Self::Statx => 20,
        }
    }
}

/// Translates the result `result` of a call that was made; returns what the guest gets.
pub fn leave<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    after: After,
    result: i64,
    scratch: &mut Scratch,
) -> i64 {
    if result < 0 {
        return result;
    }
    match after {
        After::Nothing => {}
        After::Address { whose, at, length_at, room } => {
            // The call has been made: an address that became unreadable meanwhile stays as it is.
            let _ = sockets::show_address(rules, guest, whose, (at, length_at, room), scratch);
        }
        After::Received { socket, array, room } => {
            sockets::message::show_many(rules, guest, call.abi, (socket, array, room), result, scratch);
        }
        After::SentOne { result_at } => {
            let sent = u32::try_from(result).unwrap_or(u32::MAX);
            return guest.write(result_at, &sent.to_ne_bytes()).map_or_else(|errno| -i64::from(errno.0), |()| 1);
        }
        After::Listing { descriptor, at, room, shape } => {
            return result + listing::leave(rules, guest, (descriptor, at, room, shape), result, scratch);
        }
        After::Owner { at, layout } => {
            cow::show_at(rules, guest, at, layout);
            show_owner(rules, guest, at, layout);
        }
        After::NodeName { at } => show_node_name(rules, guest, at),
    }
    result
}

fn show_owner<G: Guest>(rules: &Rules<'_>, guest: &G, at: u64, layout: Layout) {
    let at = at + layout.owner() as u64;
    let mut ids = [0; 8];
    if guest.read(at, &mut ids).is_ok() {
        show_ids(rules, &mut ids);
        let _ = guest.write(at, &ids);
    }
}

/// Replaces a user id and the group id behind it by what the guest sees.
fn show_ids(rules: &Rules<'_>, ids: &mut [u8]) {
    let (user, group) = ids.split_at_mut(4);
    let id = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (uid, gid) = (id(user), id(group));
    user.copy_from_slice(&rules.identity.shown_uid(uid).to_ne_bytes());
    group[..4].copy_from_slice(&rules.identity.shown_gid(gid).to_ne_bytes());
}

impl Rules<'_> {
    /// Shows the owner in a structure that a transport filled itself.
    pub fn show_owner(&self, structure: &mut [u8], layout: Layout) {
        cow::show(self, structure, layout);
        if let Some(ids) = structure.get_mut(layout.owner()..layout.owner() + 8) {
            show_ids(self, ids);
        }
    }
}

fn show_node_name<G: Guest>(rules: &Rules<'_>, guest: &G, at: u64) {
    /// Length of each string in `struct new_utsname`; the node's name is the second.
    const FIELD: usize = 65;
    let Some(name) = rules.hostname else { return };
    let mut field = [0; FIELD];
    let len = name.len().min(FIELD - 1);
    field[..len].copy_from_slice(&name[..len]);
    let _ = guest.write(at + FIELD as u64, &field);
}

const _: () = assert!(PATH_MAX >= 108, "a socket's path fits a path buffer");

/// Where a structure that a transport filled itself holds the owner, if it does.
#[must_use]
pub fn leave_layout(outside: Outside) -> Option<Layout> {
    match outside {
        Outside::Stat(_) => Some(Layout::Stat),
        Outside::Statx(_) => Some(Layout::Statx),
        Outside::No | Outside::Plain | Outside::Fixed(..) => None,
    }
}
