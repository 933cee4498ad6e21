//! What a call is about to do to the files that its paths lead to, for a transport that keeps a record of a run.
//!
//! Asked after [`crate::enter`] has said that the call is to be made, and before it is: then the paths that it lends are
//! those that the call will reach.

use crate::{
    Call, Guest,
    meaning::{Intent, Meaning, O_ACCMODE, O_PATH, O_TMPFILE, O_TRUNC, Row, Special},
    table,
};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is asked for, or what is known of it is asked for or changed.
    Look,
    /// It is opened for reading.
    Open,
    /// Its content is changed, or may be from now on under another name; or it is removed or replaced.
    Change,
    /// It gets the name that the call's other path is.
    Move,
}

/// Where a call tells which socket it wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Address of the `struct sockaddr`.
    pub address: u64,
    /// Its length.
    pub len: i32,
}

/// What a call does to what its first and its second path lead to.
pub fn acts<G: Guest>(guest: &G, call: &Call) -> [Option<Act>; 2] {
    let Some(row) = table::row_of(call.abi, call.number) else { return [None, None] };
    match row.meaning {
        Meaning::Paths(args) => {
            let mut acts = args.iter().map(|arg| act(call, row, arg.intent));
            [acts.next(), acts.next()]
        }
        Meaning::Special(Special::Openat2) => {
            let mut flags = [0; 8];
            let flags = guest.read(call.arg(2), &mut flags).map_or(O_PATH, |()| u64::from_ne_bytes(flags));
            [Some(opens(flags)), None]
        }
        Meaning::Special(Special::Readlink | Special::Readlinkat | Special::Chroot | Special::FanotifyMark) => {
            [Some(Act::Look), None]
        }
        _ => [None, None],
    }
}

/// The socket that a call is to reach.
#[must_use]
pub fn reach(call: &Call) -> Option<Reach> {
    let row = table::row_of(call.abi, call.number)?;
    let (address, len) = match row.meaning {
        Meaning::Special(Special::Connect) => (1, 2),
        Meaning::Special(Special::Sendto) => (4, 5),
        _ => return None,
    };
    Some(Reach { address: call.arg(address), len: call.int(len) }).filter(|reach| reach.address != 0)
}

fn act(call: &Call, row: &Row, intent: Intent) -> Act {
    match intent {
        Intent::Open(flags) => opens(call.arg(flags)),
        // By its other name it could be changed without another word.
        Intent::Read if row.name.starts_with("link") => Act::Change,
        Intent::Remove if row.name.starts_with("rename") => Act::Move,
        Intent::Write | Intent::Size | Intent::Remove | Intent::Replace => Act::Change,
        Intent::Read | Intent::Attribute | Intent::Owner | Intent::Mode | Intent::Create | Intent::Access(_) => {
            Act::Look
        }
    }
}

fn opens(flags: u64) -> Act {
    if flags & O_PATH != 0 || flags & O_TMPFILE != 0 {
        Act::Look
    } else if flags & (O_ACCMODE | O_TRUNC) != 0 {
        Act::Change
    } else {
        Act::Open
    }
}
