//! Calls that the tracer makes in a guest's stead.
//!
//! Whether a file exists, what it is, that it is to be removed: the answer depends on host paths and numbers alone, and the
//! tracer has the same credentials. Made here, such a call costs one stop instead of two. What depends on the process
//! (descriptors, umask, working directory, limits) never comes here: the table says so. Names are changed here whatever the
//! guest's word size, so that none changes while the tracer breaks a link (see [`coracle_view::View::turn`]).

use std::mem::MaybeUninit;

use coracle_intercept::{
    Abi, After, Call, Errno, Guest, Left, Lent, Outside, Rules, Scratch, errno::ENOSYS, leave, leave_layout, table,
    unlock,
};

use crate::{peer::Peer, peer::last_errno};

/// Room for the largest result: `struct statx`.
const ROOM: usize = 256;
const STAT: usize = size_of::<libc::stat>();

/// Whether the call can be made here: 32-bit structures are not ours, but numbers are numbers.
pub(crate) fn can_make(call: &Call, outside: Outside) -> bool {
    match call.abi {
        Abi::X86_64 => outside != Outside::No,
        Abi::I386 => outside == Outside::Plain && number(call).is_some(),
    }
}

/// Our own number of the call.
fn number(call: &Call) -> Option<i64> {
    match call.abi {
        Abi::X86_64 => i64::try_from(call.number).ok(),
        Abi::I386 => table::row_of(Abi::I386, call.number)?.number(Abi::X86_64).map(i64::from),
    }
}

/// Makes the call, which was `before`; its result for the guest, an error as a negative number.
pub(crate) fn make(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    call: &Call,
    (outside, after): (Outside, After),
    (before, scratch): (&Call, &mut Scratch),
) -> Left {
    let answer = try_make(rules, peer, call, outside, scratch);
    if answer == Err(Errno::EACCES) {
        let opened = scratch.lent().iter().filter_map(Lent::path).any(|path| unlock(rules, peer, path.to_bytes()));
        if opened {
            return Left::Again;
        }
    }
    let answer = answer.unwrap_or_else(|errno| -i64::from(errno.0));
    match after {
        After::Nothing | After::Owner { .. } => Left::Result(answer),
        after => leave(rules, peer, (before, call), after, answer, scratch),
    }
}

fn try_make(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    call: &Call,
    outside: Outside,
    scratch: &Scratch,
) -> Result<i64, Errno> {
    let mut result = MaybeUninit::<[u8; ROOM]>::zeroed();
    let mut args = call.args;
    for lent in scratch.lent() {
        if let Some(arg) = lent.arg()
            && !lent.bytes().is_empty()
        {
            args[arg] = lent.bytes().as_ptr() as u64;
        }
    }
    let written = match outside {
        Outside::No => return Err(ENOSYS),
        Outside::Plain => None,
        Outside::Fixed(arg, size) => Some((arg, usize::from(size))),
        Outside::Stat(arg) => Some((arg, STAT)),
        Outside::Statx(arg) => Some((arg, ROOM)),
    };
    if let Some((arg, _)) = written {
        args[usize::from(arg)] = result.as_mut_ptr() as u64;
    }
    let [a, b, c, d, e, f] = args;
    let number = number(call).ok_or(ENOSYS)?;
    // SAFETY: the table marks only calls whose pointers are paths and one result. The paths are NUL-terminated and owned by
    // `scratch`; the result has room for the largest that the table knows (the assertion). Every other argument is a number.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer < 0 {
        return Err(last_errno());
    }
    if let Some((arg, size)) = written {
        assert!(size <= ROOM, "a result fits");
        // SAFETY: it was zeroed, and integers of any value are valid bytes.
        let result = unsafe { result.assume_init_mut() };
        if rules.shows_files()
            && let Some(layout) = leave_layout(outside)
        {
            rules.show(peer, scratch.lent()[0].path(), result, layout);
        }
        peer.write(call.arg(arg), &result[..size])?;
    }
    Ok(answer)
}
