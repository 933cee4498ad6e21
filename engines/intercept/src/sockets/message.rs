//! Addresses in message headers, and who sends: sendmsg, recvmsg and their plural forms.
//!
//! A header that is sent is copied, with a pointer to the translated name; the guest's own stays as it is. A name that is
//! received is translated in place. Of several messages, those before the first that must be translated are sent as they
//! are, and that one alone: the kernel may send fewer than asked for too, and programs ask again for the rest.

use coracle_paths::PATH_MAX;

use super::{Gives, Whose, control, host_address, show_address};
use crate::{
    Abi, Call, Errno, Guest, Rules, Scratch,
    enter::Verdict,
    leave::{After, Left},
    meaning::Outside,
};

/// `struct msghdr` and `struct mmsghdr` of one interface.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Bytes of a pointer; the name's length stands behind its pointer.
    pointer: usize,
    header: usize,
    /// Of one element of an array; the result's length stands behind the header.
    element: usize,
    /// The number of sendmsg(2).
    sendmsg: u64,
}

const WIDE: Shape = Shape { pointer: 8, header: 56, element: 64, sendmsg: 46 };
const NARROW: Shape = Shape { pointer: 4, header: 28, element: 32, sendmsg: 370 };

impl Shape {
    fn of(abi: Abi) -> Self {
        match abi {
            Abi::X86_64 => WIDE,
            Abi::I386 => NARROW,
        }
    }

    /// A name's address and length.
    fn name(self, header: &[u8]) -> (u64, i32) {
        let mut name = [0; 8];
        name[..self.pointer].copy_from_slice(&header[..self.pointer]);
        let len = &header[self.pointer..self.pointer + 4];
        (u64::from_ne_bytes(name), i32::from_ne_bytes([len[0], len[1], len[2], len[3]]))
    }

    /// Where the control messages' address stands in a header; their length follows it.
    fn control_at(self) -> usize {
        4 * self.pointer
    }

    /// The control messages' address and length.
    fn control(self, header: &[u8]) -> (u64, usize) {
        let at = self.control_at();
        let len = control::number_at(header, at + self.pointer, self.pointer);
        (control::number_at(header, at, self.pointer), usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn length_at(self, header: u64) -> u64 {
        header + self.pointer as u64
    }

    /// Where the element is, and where its result.
    fn element(self, array: u64, at: usize) -> (u64, u64) {
        let header = array.saturating_add((at * self.element) as u64);
        (header, header.saturating_add(self.header as u64))
    }
}

/// As many elements of an array as the kernel takes at once.
const MANY: usize = 1024;

/// sendmsg(2): the header is argument 1.
pub(crate) fn send<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let after = After::Nothing;
    Ok(if lend(rules, guest, call, call.arg(1), scratch)? {
        Verdict::Make { after, outside: Outside::No }
    } else {
        Verdict::Pass
    })
}

/// Lends a copy of a header whose name must be translated.
fn lend<G: Guest>(rules: &Rules<'_>, guest: &G, call: &Call, at: u64, scratch: &mut Scratch) -> Result<bool, Errno> {
    let shape = Shape::of(call.abi);
    let mut header = [0; WIDE.header];
    let header = &mut header[..shape.header];
    // An unreadable header is the kernel's to refuse.
    if guest.read(at, header).is_err() {
        return Ok(false);
    }
    let (name, len) = shape.name(header);
    let address = match name {
        0 => None,
        name => host_address(rules, guest, call.int(0), name, len, Gives::Peer, scratch)?,
    };
    let Scratch { path, lent, .. } = scratch;
    let end = credentials(rules, guest, call.abi, header, path)?;
    if address.is_none() && end.is_none() {
        return Ok(false);
    }
    if let Some(address) = &address {
        let len = u32::try_from(address.len).unwrap_or(0);
        header[shape.pointer..shape.pointer + 4].copy_from_slice(&len.to_ne_bytes());
        lent[0].set_pointed_to(address.bytes())?;
    }
    let whole = end.unwrap_or(shape.header);
    path[..shape.header].copy_from_slice(header);
    lent[1].set_pointing(1, &path[..whole], if address.is_some() { shape.pointer } else { 0 })?;
    if end.is_some() {
        lent[1].point_within(shape.control_at(), shape.header, shape.pointer);
    }
    Ok(true)
}

/// Puts the control messages of a header behind the place of a header in `room`, with the host's ids in those that tell
/// of the sender; their end, or none if they may stay as they are.
fn credentials<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    abi: Abi,
    header: &[u8],
    room: &mut [u8; PATH_MAX],
) -> Result<Option<usize>, Errno> {
    let shape = Shape::of(abi);
    let (at, len) = shape.control(header);
    let end = shape.header.saturating_add(len);
    if !rules.identity.pretends() || at == 0 || len == 0 {
        return Ok(None);
    }
    // What is longer, or unreadable, is the kernel's to judge.
    let Some(messages) = room.get_mut(shape.header..end) else { return Ok(None) };
    if guest.read(at, messages).is_err() {
        return Ok(None);
    }
    Ok(control::to_host(rules, guest, messages, control::word(abi))?.then_some(end))
}

/// What was made in the place of a sendmmsg(2), after as many messages as [`Scratch::sent`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Where the length of the one message goes that sendmsg(2) has sent; `None`: so many were to be sent by a sendmmsg(2).
    one: Result<u64, u32>,
    /// How many follow.
    left: u32,
}

/// sendmmsg(2): argument 1 is the array, argument 2 how many. Messages whose names are translated go one by one, those
/// between them together.
pub(crate) fn send_many<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let shape = Shape::of(call.abi);
    let count = usize::try_from(call.arg(2) & 0xffff_ffff).unwrap_or(MANY).min(MANY);
    let first = usize::try_from(scratch.sent).unwrap_or(MANY).min(count);
    let make = |one, left| {
        let left = u32::try_from(left).unwrap_or(0);
        Ok(Verdict::Make { after: After::Sent(Sent { one, left }), outside: Outside::No })
    };
    for at in first..count {
        let (header, result_at) = shape.element(call.arg(1), at);
        match lend(rules, guest, call, header, scratch) {
            Ok(false) => {}
            Ok(true) if at == first => {
                // The header is lent; what follows are sendmsg's flags.
                call.number = shape.sendmsg;
                call.args[2] = call.args[3];
                return make(Ok(result_at), count - at - 1);
            }
            // The kernel tells of none that it has sent when it tells of an error.
            Err(_) if at == first && at > 0 => return Ok(Verdict::Answer(scratch.sent.into())),
            Err(errno) if at == first => return Err(errno),
            // Those before it first; it comes again.
            Ok(true) | Err(_) => {
                for lent in &mut scratch.lent {
                    lent.clear();
                }
                call.args[1] = shape.element(call.arg(1), first).0;
                call.args[2] = (at - first) as u64;
                return make(Err(u32::try_from(at - first).unwrap_or(0)), count - at);
            }
        }
    }
    if first == 0 {
        return Ok(Verdict::Pass);
    }
    call.args[1] = shape.element(call.arg(1), first).0;
    call.args[2] = (count - first) as u64;
    make(Err(u32::try_from(count - first).unwrap_or(0)), 0)
}

/// A piece of a sendmmsg(2) was made.
pub(crate) fn sent<G: Guest>(guest: &G, piece: Sent, result: i64, scratch: &mut Scratch) -> Left {
    let made = u32::try_from(result).unwrap_or(u32::MAX);
    let (now, whole) = match piece.one {
        Ok(result_at) => match guest.write(result_at, &made.to_ne_bytes()) {
            Ok(()) => (1, true),
            Err(errno) if scratch.sent == 0 => return Left::Result(-i64::from(errno.0)),
            Err(_) => (0, false),
        },
        Err(asked) => (made, made == asked),
    };
    scratch.sent += now;
    if whole && piece.left > 0 { Left::Again } else { Left::Result(scratch.sent.into()) }
}

/// recvmsg(2): the header is argument 1.
pub(crate) fn receive<G: Guest>(rules: &Rules<'_>, guest: &G, call: &Call) -> Verdict {
    let name = wanted(guest, call, call.arg(1));
    if wants_control(rules, guest, call.abi, call.arg(1)) {
        let room = name.map_or(0, |(_, room)| room);
        let after = After::Message { socket: call.int(0), header: call.arg(1), room };
        return Verdict::Make { after, outside: Outside::No };
    }
    match name {
        Some((at, room)) => {
            let length_at = Shape::of(call.abi).length_at(call.arg(1));
            let after = After::Address { whose: Whose::Peer(call.int(0)), at, length_at, room };
            Verdict::Make { after, outside: Outside::No }
        }
        None => Verdict::Pass,
    }
}

/// Whether control messages may come whose ids the guest knows otherwise.
fn wants_control<G: Guest>(rules: &Rules<'_>, guest: &G, abi: Abi, at: u64) -> bool {
    let mut header = [0; WIDE.header];
    let header = &mut header[..Shape::of(abi).header];
    rules.identity.pretends() && guest.read(at, header).is_ok() && {
        let (address, len) = Shape::of(abi).control(header);
        address != 0 && len > 0
    }
}

/// Where a header wants a name, and how much of it.
fn wanted<G: Guest>(guest: &G, call: &Call, at: u64) -> Option<(u64, u32)> {
    let shape = Shape::of(call.abi);
    let mut start = [0; 12];
    let start = &mut start[..shape.pointer + 4];
    guest.read(at, start).ok()?;
    let (name, room) = shape.name(start);
    // The kernel takes no more than a `struct sockaddr_storage`.
    u32::try_from(room).ok().filter(|room| name != 0 && *room > 0).map(|room| (name, room.min(128)))
}

/// recvmmsg(2): argument 1 is the array, argument 2 how many. All names are taken to have as much room as the least.
pub(crate) fn receive_many<G: Guest>(rules: &Rules<'_>, guest: &G, call: &Call) -> Verdict {
    let shape = Shape::of(call.abi);
    let count = usize::try_from(call.arg(2) & 0xffff_ffff).unwrap_or(MANY).min(MANY);
    let headers = (0..count).map(|at| shape.element(call.arg(1), at).0);
    let rooms = headers.clone().filter_map(|at| wanted(guest, call, at));
    let room = rooms.map(|(_, room)| room).min();
    let controls = || headers.clone().any(|at| wants_control(rules, guest, call.abi, at));
    match room.or_else(|| controls().then_some(0)) {
        Some(room) => {
            let after = After::Received { socket: call.int(0), array: call.arg(1), room };
            Verdict::Make { after, outside: Outside::No }
        }
        None => Verdict::Pass,
    }
}

/// Shows the names in the first `count` headers of an array.
pub(crate) fn show_many<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    abi: Abi,
    (socket, array, room): (i32, u64, u32),
    count: i64,
    scratch: &mut Scratch,
) {
    for at in 0..usize::try_from(count).unwrap_or(0).min(MANY) {
        let (header, _) = Shape::of(abi).element(array, at);
        show(rules, guest, abi, (socket, header, room), scratch);
    }
}

/// Shows the name in a header of a message that has come, if there was room for one, and who sent it.
pub(crate) fn show<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    abi: Abi,
    (socket, at, room): (i32, u64, u32),
    scratch: &mut Scratch,
) {
    let shape = Shape::of(abi);
    let mut header = [0; WIDE.header];
    let header = &mut header[..shape.header];
    if guest.read(at, header).is_err() {
        return;
    }
    let (name, _) = shape.name(header);
    if name != 0 && room > 0 {
        // The message has come: an address that became unreadable meanwhile stays as it is.
        let _ = show_address(rules, guest, Whose::Peer(socket), (name, shape.length_at(at), room), scratch);
    }
    let (address, len) = shape.control(header);
    if rules.identity.pretends()
        && address != 0
        && let Some(messages) = scratch.path.get_mut(..len)
        && guest.read(address, messages).is_ok()
    {
        control::to_guest(rules, guest, messages, control::word(abi), address);
    }
}
