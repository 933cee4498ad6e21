//! What happens when a guest leaves a system call whose result shows the host.

use core::ffi::CStr;

use coracle_paths::PATH_MAX;

use crate::{
    Call, Errno, Guest, Outside, Rules, Scratch, cow,
    errno::{EBADF, EEXIST},
    ledger::Inode,
    listing::{self, Shape},
    meaning::Meaning,
    owners,
    pretend::descriptor_path,
    rights::{directory_of, unlock},
    sockets::{self, Whose, message::Sent},
    table::row_of,
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
    /// A message has come, perhaps with an address, and control messages that tell of its sender.
    Message {
        /// By this descriptor.
        socket: i32,
        /// Its `struct msghdr`.
        header: u64,
        /// How much of the address fits; 0: none is wanted.
        room: u32,
    },
    /// Some of several messages were sent.
    Sent(Sent),
    /// A `struct ucred` tells who a socket's peer is.
    PeerCredentials {
        /// Where it is.
        at: u64,
        /// Where its length is.
        length_at: u64,
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
    /// The result tells of a file, of whom the guest knows otherwise.
    Owner {
        /// Where the structure is.
        at: u64,
        /// Which structure.
        layout: Layout,
    },
    /// The call was asked of an open file by a path of the transport's: that there is none means that it is not open.
    OfDescriptor,
    /// Something was made at the path in this argument: it becomes the guest's, and a device if it is to be one.
    Made {
        /// The path's argument.
        arg: u8,
        /// Its kind and number.
        device: Option<(u32, u32)>,
    },
    /// A socket was bound to this address; if that is a path, it becomes the guest's.
    Bound {
        /// The address's argument.
        at: u8,
        /// Its length's.
        length: u8,
    },
    /// The file that the result holds open was made, at the path in this argument.
    Opened {
        /// The path's argument.
        arg: u8,
    },
    /// The last name of this file was removed.
    Gone(Inode),
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
    /// `struct stat` of 32-bit x86, whose ids have 16 bits.
    Stat32,
    /// `struct stat64` of 32-bit x86.
    Stat64,
    /// `struct statx`.
    Statx,
}

/// What becomes of a call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The guest gets this result.
    Result(i64),
    /// What stood in its way is gone: it is to be made once more, from its beginning.
    Again,
}

/// Translates the result `result` of `call`, which was made as `made` says.
pub fn leave<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (call, made): (&Call, &Call),
    after: After,
    result: i64,
    scratch: &mut Scratch,
) -> Left {
    if result < 0 && scratch.sent > 0 {
        // As the kernel does: what is wrong with the next message is told when it is sent again.
        return Left::Result(scratch.sent.into());
    }
    if result < 0 {
        return failed(rules, guest, (call, made), after, result, scratch);
    }
    match after {
        After::Nothing | After::OfDescriptor => {}
        After::Address { whose, at, length_at, room } => {
            // The call has been made: an address that became unreadable meanwhile stays as it is.
            let _ = sockets::show_address(rules, guest, whose, (at, length_at, room), scratch);
        }
        After::Message { socket, header, room } => {
            sockets::message::show(rules, guest, call.abi, (socket, header, room), scratch);
        }
        After::Received { socket, array, room } => {
            sockets::message::show_many(rules, guest, call.abi, (socket, array, room), result, scratch);
        }
        After::PeerCredentials { at, length_at } => {
            // As for addresses.
            let _ = sockets::show_credentials(rules, guest, at, length_at);
        }
        After::Sent(sent) => return sockets::message::sent(guest, sent, result, scratch),
        After::Listing { descriptor, at, room, shape } => {
            let more = listing::leave(rules, guest, (descriptor, at, room, shape), result, scratch);
            return Left::Result(result + more);
        }
        After::Owner { at, layout } => {
            let mut structure = [0; 256];
            let structure = &mut structure[..layout.size()];
            if guest.read(at, structure).is_ok() {
                rules.show(guest, None, structure, layout);
                let _ = guest.write(at, structure);
            }
        }
        After::NodeName { at } => show_node_name(rules, guest, at),
        After::Made { arg, device } => {
            if let Some(path) = lent_path(guest, made.arg(arg), &mut scratch.path) {
                // It may have been removed meanwhile, and then nobody asks whose it was.
                let _ = owners::made(rules, guest, (path, false), directory_of(path, &mut scratch.base), device);
            }
        }
        After::Bound { at, length } => {
            if let Some(path) = sockets::bound_path(guest, made.arg(at), made.arg(length), &mut scratch.path) {
                let _ = owners::made(rules, guest, (path, false), directory_of(path, &mut scratch.base), None);
            }
        }
        After::Opened { arg } => {
            let mut room = [0; 48];
            let file = descriptor_path(guest.caller().tid, i32::try_from(result).ok(), &mut room);
            let path = lent_path(guest, made.arg(arg), &mut scratch.path);
            let directory = path.and_then(|path| directory_of(path, &mut scratch.base));
            let _ = owners::made(rules, guest, (file, true), directory, None);
        }
        After::Gone(inode) => {
            if let Some(ledger) = rules.ledger {
                ledger.remove(inode);
            }
        }
    }
    Left::Result(result)
}

/// The path that was lent to the guest at this address.
fn lent_path<'p, G: Guest>(guest: &G, address: u64, path: &'p mut [u8]) -> Option<&'p CStr> {
    let len = guest.read_string(address, path).ok()?;
    CStr::from_bytes_with_nul(path.get(..=len)?).ok()
}

fn failed<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (call, made): (&Call, &Call),
    after: After,
    result: i64,
    scratch: &mut Scratch,
) -> Left {
    let refused = |errno: Errno| result == -i64::from(errno.0);
    if after == After::OfDescriptor && refused(Errno::ENOENT) {
        return Left::Result(-i64::from(EBADF.0));
    }
    let errno = Errno(u16::try_from(-result).unwrap_or(0));
    if matches!(errno, Errno::EACCES | EEXIST)
        && rules.marks.is_some()
        && let Some(arg) = (0..=1).find(|arg| made.arg(*arg) != call.arg(*arg))
        && let Some(path) = lent_path(guest, made.arg(arg), &mut scratch.path)
        && cow::lost_race(rules, guest, call, (path, errno))
    {
        return Left::Again;
    }
    if refused(Errno::EACCES)
        && rules.identity.pretends()
        && let Some(row) = row_of(call.abi, call.number)
        && let Meaning::Paths(args) = row.meaning
    {
        let mut changed = false;
        for arg in args.iter().map(|arg| arg.arg).filter(|arg| made.arg(*arg) != call.arg(*arg)) {
            if let Some(path) = lent_path(guest, made.arg(arg), &mut scratch.path) {
                changed |= unlock(rules, guest, path.to_bytes());
            }
        }
        if changed {
            return Left::Again;
        }
    }
    Left::Result(result)
}

fn show_node_name<G: Guest>(rules: &Rules<'_>, guest: &G, at: u64) {
    /// Length of each string in `struct new_utsname`; the node's name is the second, the release the third.
    const FIELD: usize = 65;
    for (number, name) in [(1, rules.hostname), (2, rules.kernel)] {
        let Some(name) = name else { continue };
        let mut field = [0; FIELD];
        let len = name.len().min(FIELD - 1);
        field[..len].copy_from_slice(&name[..len]);
        let _ = guest.write(at + number * FIELD as u64, &field);
    }
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
