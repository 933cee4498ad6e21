//! openat2(2): flags that the kernel is strict about, and what of the walk its caller forbids.
//!
//! The walk is ours, so what forbids it is checked there ([`Bounds`]), and the kernel is given a plain `struct open_how`. It
//! judges the flags before it looks at the path, and so do we.

use coracle_paths::{Bounds, Found};

use crate::{
    Call, Errno, Guest, Outside, Rules, Scratch,
    cow::Cow,
    enter::{Verdict, writes},
    errno::{E2BIG, ETXTBSY},
    leave::After,
    meaning::{Dir, Intent, Last, O_ACCMODE, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE, O_TRUNC, PathArg},
    permit::permit,
    places,
    pretend::{self, Named, Part},
    table,
    translate::translate_within,
};

/// Size of the first `struct open_how`: flags, mode, resolve.
const SIZE: usize = 24;
/// The kernel takes no larger one.
const LARGEST: u64 = 4096;

const RESOLVE_CACHED: u64 = 32;
const RESOLVE_ALL: u64 = 63;

const O_CLOEXEC: u64 = 0o2_000_000;
/// Every flag that open(2) knows.
const FLAGS: u64 = O_ACCMODE
    | O_CREAT
    | crate::meaning::O_EXCL
    | 0o400 // O_NOCTTY
    | O_TRUNC
    | 0o2000 // O_APPEND
    | 0o4000 // O_NONBLOCK
    | 0o4_010_000 // O_SYNC
    | 0o20_000 // FASYNC
    | 0o40_000 // O_DIRECT
    | 0o100_000 // O_LARGEFILE
    | O_DIRECTORY
    | O_NOFOLLOW
    | 0o1_000_000 // O_NOATIME
    | O_CLOEXEC
    | O_PATH
    | O_TMPFILE;

pub(crate) fn enter<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let size = call.arg(3);
    if size < SIZE as u64 {
        return Err(Errno::EINVAL);
    }
    if size > LARGEST {
        return Err(E2BIG);
    }
    let mut how = [0; SIZE];
    guest.read(call.arg(2), &mut how)?;
    check_rest(guest, call.arg(2) + SIZE as u64, size - SIZE as u64)?;
    let word = |at: usize| u64::from_ne_bytes(how[at..at + 8].try_into().unwrap_or([0; 8]));
    let (flags, mode, ways) = (word(0), word(8), word(16));
    check_flags(flags, mode, ways)?;
    let Scratch { buffers, path, base, text, lent, .. } = &mut *scratch;
    let len = guest.read_string(call.arg(1), path)?;
    let mut from = *call;
    from.args[2] = flags;
    let arg = PathArg { dir: Dir::Fd(0), arg: 1, last: Last::Open(2), intent: Intent::Open(2) };
    let bounds = Bounds(ways & !RESOLVE_CACHED);
    let memory = (buffers, &mut base[..], &mut text[..]);
    let Some(place) = translate_within(rules, guest, &from, &arg, &path[..len], bounds, memory)? else {
        return Ok(Verdict::Pass);
    };
    permit(rules, guest, &from, arg.intent, &place)?;
    if place.found != Found::Missing && writes(&from, arg.intent) && guest.is_running(place.host) {
        return Err(ETXTBSY);
    }
    let mut after = After::Nothing;
    let row = table::row_of(call.abi, call.number);
    if let Some(len) = places::shown_file(rules, guest, &from, arg.intent, &place, text) {
        lent[0].set(1, &text[..=len])?;
    } else {
        lent[0].set_place(guest, 1, &place)?;
        if rules.identity.pretends()
            && let (Some(row), Some(host)) = (row, lent[0].path())
        {
            let named = Named { host, follow: place.magic.is_some(), arg: 1 };
            match pretend::on_path(rules, guest, &mut from, row, arg.intent, &named)? {
                Part::Make(then) => after = then,
                Part::Answer(answer) => return Ok(Verdict::Answer(answer)),
                Part::Elsewhere(path) => lent[0].set(1, path.to_bytes_with_nul())?,
            }
        }
    }
    if let Some(row) = row
        && let Some(cow) = Cow::of(rules, guest, row)
        && let Some(len) = cow.protect(&mut from, (&arg, &place), lent[0].bytes(), (&mut *text, &mut *base))?
    {
        lent[0].set(1, &text[..len])?;
    }
    how[..8].copy_from_slice(&from.args[2].to_ne_bytes());
    // What of the walk the guest forbade has been seen to; the host path is the host's.
    how[16..].copy_from_slice(&(ways & RESOLVE_CACHED).to_ne_bytes());
    lent[1].set(2, &how)?;
    call.args[3] = SIZE as u64;
    Ok(Verdict::Make { after, outside: Outside::No })
}

/// A larger structure is as good if what we do not know of it is zero.
fn check_rest<G: Guest>(guest: &G, mut at: u64, mut left: u64) -> Result<(), Errno> {
    let mut chunk = [0; 64];
    while left > 0 {
        let part = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        guest.read(at, &mut chunk[..part])?;
        if chunk[..part].iter().any(|byte| *byte != 0) {
            return Err(E2BIG);
        }
        at += part as u64;
        left -= part as u64;
    }
    Ok(())
}

fn check_flags(flags: u64, mode: u64, ways: u64) -> Result<(), Errno> {
    let scopes = Bounds::BENEATH.0 | Bounds::IN_ROOT.0;
    // O_TMPFILE is two bits, and both must be there.
    let temporary = flags & O_TMPFILE != 0;
    let makes = flags & O_CREAT != 0 || temporary;
    let wrong = flags & !FLAGS != 0
        || ways & !RESOLVE_ALL != 0
        || ways & scopes == scopes
        || mode & !(if makes { 0o7777 } else { 0 }) != 0
        || temporary && (flags & (O_DIRECTORY | O_CREAT) != O_DIRECTORY || flags & O_ACCMODE == 0)
        || flags & O_PATH != 0 && flags & !(O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC) != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}
