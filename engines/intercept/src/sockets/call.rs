//! The one socket call of older 32-bit programs: the real arguments are an array in memory.
//!
//! What gives an address to the kernel is made as the call of its own that Linux has since 4.3.

use super::{Gives, Whose, give_address, message, peer_credentials, take_address};
use crate::{Call, Errno, Guest, Rules, Scratch, enter::Verdict};

/// socketcall(2).
pub(crate) fn socketcall<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Some(inner) = INNER.iter().find(|inner| inner.selector == call.int(0)) else { return Ok(Verdict::Pass) };
    let mut words = [0; 24];
    let words = &mut words[..4 * inner.count];
    guest.read(call.arg(1), words)?;
    let mut args = [0; 6];
    for (arg, word) in args.iter_mut().zip(words.chunks_exact(4)) {
        *arg = u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut direct = Call { abi: call.abi, number: inner.number, args };
    let socket = direct.int(0);
    let verdict = match inner.does {
        Does::Give(gives, [at, length]) if direct.arg(at) != 0 => {
            give_address(rules, guest, &mut direct, [at, length], gives, scratch)?
        }
        Does::Give(..) => Verdict::Pass,
        // What the kernel writes goes to the same places, whichever call asks.
        Does::TakeOwn => return Ok(take_address(guest, Whose::Own(socket), direct.arg(1), direct.arg(2))),
        Does::TakePeer([at, length]) => {
            return Ok(take_address(guest, Whose::Peer(socket), direct.arg(at), direct.arg(length)));
        }
        Does::Credentials => return Ok(peer_credentials(rules, &direct)),
        Does::Receive => return Ok(message::receive(rules, guest, &direct)),
        Does::ReceiveMany => return Ok(message::receive_many(rules, guest, &direct)),
        Does::Send => message::send(rules, guest, &direct, scratch)?,
        Does::SendMany => message::send_many(rules, guest, &mut direct, scratch)?,
    };
    if verdict != Verdict::Pass {
        *call = direct;
    }
    Ok(verdict)
}

/// A call that socketcall(2) makes.
struct Inner {
    selector: i32,
    /// Its own number on i386.
    number: u64,
    /// How many arguments it has.
    count: usize,
    does: Does,
}

/// What it does with addresses; the arguments are an address and its length.
#[derive(Clone, Copy)]
enum Does {
    Give(Gives, [u8; 2]),
    TakeOwn,
    TakePeer([u8; 2]),
    Credentials,
    Send,
    Receive,
    SendMany,
    ReceiveMany,
}

#[rustfmt::skip] // one call, one line
static INNER: [Inner; 13] = [
    Inner { selector: 2, number: 361, count: 3, does: Does::Give(Gives::Own, [1, 2]) },   // bind
    Inner { selector: 3, number: 362, count: 3, does: Does::Give(Gives::Peer, [1, 2]) },  // connect
    Inner { selector: 5, number: 364, count: 3, does: Does::TakePeer([1, 2]) },           // accept
    Inner { selector: 6, number: 367, count: 3, does: Does::TakeOwn },                    // getsockname
    Inner { selector: 7, number: 368, count: 3, does: Does::TakePeer([1, 2]) },           // getpeername
    Inner { selector: 11, number: 369, count: 6, does: Does::Give(Gives::Peer, [4, 5]) }, // sendto
    Inner { selector: 12, number: 371, count: 6, does: Does::TakePeer([4, 5]) },          // recvfrom
    Inner { selector: 15, number: 365, count: 5, does: Does::Credentials },               // getsockopt
    Inner { selector: 16, number: 370, count: 3, does: Does::Send },                      // sendmsg
    Inner { selector: 17, number: 372, count: 3, does: Does::Receive },                   // recvmsg
    Inner { selector: 18, number: 364, count: 4, does: Does::TakePeer([1, 2]) },          // accept4
    Inner { selector: 19, number: 337, count: 5, does: Does::ReceiveMany },               // recvmmsg
    Inner { selector: 20, number: 345, count: 4, does: Does::SendMany },                  // sendmmsg
];
