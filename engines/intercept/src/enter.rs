//! What happens when a guest enters a system call.

use coracle_paths::Found;

use crate::{
    After, Call, Errno, Guest, Rules, Scratch, birth,
    cow::{AGAIN, Cow, TRIES},
    errno::{EOPNOTSUPP, ETXTBSY},
    exec, identity, listing,
    meaning::{
        AT_EMPTY_PATH, Dir, FILE_FLAGS, Intent, Last, Meaning, O_ACCMODE, O_CREAT, O_EXCL, O_PATH, O_TRUNC, Outside,
        PathArg, Row, Special,
    },
    openat2, pairs,
    permit::{permit, permit_descriptor},
    places, prctl,
    pretend::{self, Named, Part},
    rights::unlock,
    sockets::{self, Gives, Whose},
    table,
    translate::translate,
};

/// What the transport is to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is made as it is.
    Pass,
    /// It is not made; this is its result.
    Answer(i64),
    /// It is made as the [`Call`] now says, with what [`Scratch::lent`] holds lent to the guest; `after` tells what
    /// [`crate::leave`] does with the result. A transport outside the process may make it itself, as `outside` says.
    Make {
        /// For [`crate::leave`].
        after: After,
        /// See [`Outside`].
        outside: Outside,
    },
    /// It starts the program whose host path is the first of [`Scratch::lent`] and whose guest path is
    /// [`Scratch::program`]: the transport loads it by the guest's own loader. Arguments and environment are these
    /// arguments of the call.
    Execute {
        /// Which argument is argv; envp is the next.
        argv: u8,
        /// The descriptor from which it was named.
        descriptor: Option<i32>,
        /// The descriptor itself is the program (fexecve).
        itself: bool,
    },
}

/// Finds the meaning of a call.
pub fn enter<G: Guest>(rules: &Rules<'_>, guest: &G, call: &mut Call, scratch: &mut Scratch) -> Verdict {
    let Some(row) = table::row_of(call.abi, call.number) else { return Verdict::Pass };
    if !rules.wants(row) {
        return Verdict::Pass;
    }
    let given = *call;
    let mut verdict = by_meaning(rules, guest, call, row, scratch);
    for _ in 0..TRIES {
        if verdict != Err(AGAIN) {
            break;
        }
        *call = given;
        verdict = by_meaning(rules, guest, call, row, scratch);
    }
    if verdict == Err(AGAIN) {
        verdict = Err(Errno::ELOOP);
    }
    if verdict == Err(Errno::EACCES) {
        let Scratch { buffers, .. } = scratch;
        if unlock(rules, guest, buffers.stopped_at()) {
            *call = given;
            verdict = by_meaning(rules, guest, call, row, scratch);
        }
    }
    verdict.unwrap_or_else(|errno| Verdict::Answer(-i64::from(errno.0)))
}

fn by_meaning<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    for lent in &mut scratch.lent {
        lent.clear();
    }
    match row.meaning {
        Meaning::Paths(args) => enter_paths(rules, guest, call, row, args, scratch),
        Meaning::Special(special) => enter_special(rules, guest, call, row, special, scratch),
        Meaning::Refused(errno) => Err(errno),
    }
}

pub(crate) const STATX_MTIME: u64 = 0x40;

fn enter_paths<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    args: &[PathArg],
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    if let [from, to] = args {
        return pairs::enter(rules, guest, call, row, (from, to), scratch);
    }
    if row.name.starts_with("symlink") && guest.read_string(call.arg(0), &mut scratch.path)? == 0 {
        // The kernel reads the text first, and takes no empty one.
        return Err(Errno::ENOENT);
    }
    let mut outside = row.outside;
    let mut after = After::Nothing;
    for (at, arg) in args.iter().enumerate() {
        let Scratch { buffers, path, base, text, lent, .. } = &mut *scratch;
        if call.arg(arg.arg) == 0 && may_be_null(row) {
            // The descriptor itself is meant.
            return descriptor_itself(rules, guest, call, row, arg, scratch);
        }
        let len = guest.read_string(call.arg(arg.arg), path)?;
        let path = &path[..len];
        if path.is_empty() && takes_empty(call, arg) {
            return descriptor_itself(rules, guest, call, row, arg, scratch);
        }
        let Some(place) = translate(rules, guest, call, arg, path, (buffers, base, text))? else {
            outside = Outside::No;
            continue;
        };
        permit(rules, guest, call, arg.intent, &place)?;
        if place.found == Found::Missing && needs_existence(call, arg.intent) {
            return Err(Errno::ENOENT);
        }
        if place.found != Found::Missing && writes(call, arg.intent) && guest.is_running(place.host) {
            // The kernel would say so of a program that it started itself.
            return Err(ETXTBSY);
        }
        if place.at_base || place.is_long() {
            outside = Outside::No;
        }
        if place.host.to_bytes().starts_with(b"/proc/") {
            // What is there, and what one may do with it, depends on who asks.
            outside = Outside::No;
        }
        if let Some(len) = places::shown_file(rules, guest, call, arg.intent, &place, text) {
            lent[at].set(arg.arg, &text[..=len])?;
            continue;
        }
        let follow = place.magic.is_some();
        lent[at].set_place(guest, arg.arg, &place)?;
        if rules.identity.pretends()
            && let Some(host) = lent[at].path()
        {
            let named = Named { host, follow, arg: arg.arg };
            match pretend::on_path(rules, guest, call, row, arg.intent, &named)? {
                Part::Make(then) => after = then,
                Part::Answer(answer) => return Ok(Verdict::Answer(answer)),
                Part::Elsewhere(path) => {
                    lent[at].set(arg.arg, path.to_bytes_with_nul())?;
                    continue;
                }
            }
        } else if rules.shows_files() {
            after = After::stat(row.name, call);
        }
        if let Some(cow) = Cow::of(rules, guest, row)
            && let Some(len) = cow.protect(call, (arg, &place), lent[at].bytes(), (text, base))?
        {
            lent[at].set(arg.arg, &text[..len])?;
        }
    }
    if rules.marks.is_some() && row.name == "statx" {
        // By which a file is known; newer kernels tell it only if it is asked for.
        call.args[3] |= STATX_MTIME;
    }
    if outside == Outside::No && after == After::Nothing && scratch.lent.iter().all(|lent| lent.bytes().is_empty()) {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Make { after, outside })
}

/// Whether the call fails if there is nothing: then the kernel need not be asked.
fn needs_existence(call: &Call, intent: Intent) -> bool {
    match intent {
        Intent::Read | Intent::Attribute | Intent::Size | Intent::Owner | Intent::Mode => true,
        Intent::Access(_) | Intent::Remove => true,
        Intent::Open(flags) => call.arg(flags) & O_CREAT == 0,
        Intent::Write | Intent::Create | Intent::Replace => false,
    }
}

/// Whether the call writes to a file that exists.
pub(crate) fn writes(call: &Call, intent: Intent) -> bool {
    match intent {
        Intent::Open(flags) => {
            let flags = call.arg(flags);
            let new = flags & O_CREAT != 0 && flags & O_EXCL != 0;
            flags & (O_ACCMODE | O_TRUNC) != 0 && flags & O_PATH == 0 && !new
        }
        Intent::Write | Intent::Size => true,
        _ => false,
    }
}

/// Whether the call takes a null path for "the descriptor itself".
fn may_be_null(row: &Row) -> bool {
    matches!(row.name, "utimensat" | "utimensat_time64" | "futimesat" | "statx" | "newfstatat")
}

/// Whether the call has `AT_EMPTY_PATH` set, in the argument where its other flags are.
fn takes_empty(call: &Call, arg: &PathArg) -> bool {
    match arg.last {
        Last::FollowIf(flags, _) | Last::NoFollowIf(flags, _) => call.arg(flags) & AT_EMPTY_PATH != 0,
        _ => false,
    }
}

/// The call means the descriptor that its directory argument holds.
fn descriptor_itself<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    arg: &PathArg,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let descriptor = match arg.dir {
        Dir::Fd(dir) => Some(call.int(dir)).filter(|fd| *fd >= 0),
        Dir::Cwd => None,
    };
    on_descriptor(rules, guest, call, row, (arg, descriptor), scratch)
}

/// The call means an open file, or with `None` the working directory; what it gives stands behind argument `arg`.
fn on_descriptor<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    (arg, descriptor): (&PathArg, Option<i32>),
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let changes = matches!(arg.intent, Intent::Attribute | Intent::Owner | Intent::Mode);
    if changes {
        permit_descriptor(rules, guest, descriptor, &mut scratch.text, &mut scratch.base)?;
    }
    let verdict = pretend::on_descriptor(rules, guest, call, row, arg.intent, (descriptor, arg.arg, scratch))?;
    let Scratch { text, base, lent, .. } = scratch;
    if changes
        && verdict == Verdict::Pass
        && let Some(cow) = Cow::of(rules, guest, row)
        && let Some(descriptor) = descriptor
        && let Some(len) = cow.protect_descriptor(call, arg, descriptor, (text, base))?
    {
        lent[0].set(arg.arg, &text[..len])?;
        return Ok(Verdict::Make { after: After::Nothing, outside: Outside::No });
    }
    Ok(verdict)
}

/// A call whose first argument is a descriptor, which may have been opened for reading only.
fn by_descriptor<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    intent: Intent,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let file = PathArg { dir: Dir::Fd(0), arg: 0, last: Last::Follow, intent };
    on_descriptor(rules, guest, call, row, (&file, Some(call.int(0))), scratch)
}

/// ioctl(2) that changes flags of a file, for which any descriptor will do.
fn enter_file_flags<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    if !FILE_FLAGS.iter().any(|request| u64::from(*request) == call.arg(1) & 0xffff_ffff) {
        return Ok(Verdict::Pass);
    }
    let descriptor = call.int(0);
    permit_descriptor(rules, guest, Some(descriptor), &mut scratch.text, &mut scratch.base)?;
    let shared = table::row_of(call.abi, call.number)
        .and_then(|row| Cow::of(rules, guest, row))
        .is_some_and(|cow| cow.is_shared(descriptor));
    // A copy would not be behind this descriptor. Most file systems have no such flags, and programs can do without.
    if shared { Err(EOPNOTSUPP) } else { Ok(Verdict::Pass) }
}

fn enter_special<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    special: Special,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    match special {
        Special::Openat2 => openat2::enter(rules, guest, call, scratch),
        Special::Fstat => by_descriptor(rules, guest, call, row, Intent::Read, scratch),
        Special::Listing(entries) => listing::enter(rules, guest, call, entries, scratch),
        Special::Readlink => places::readlink(rules, guest, call, 0, scratch),
        Special::Readlinkat => places::readlink(rules, guest, call, 1, scratch),
        Special::Getcwd => places::getcwd(rules, guest, call, scratch),
        Special::Chroot => places::chroot(rules, guest, call, scratch),
        Special::DescriptorAttribute => by_descriptor(rules, guest, call, row, Intent::Attribute, scratch),
        Special::DescriptorOwner => by_descriptor(rules, guest, call, row, Intent::Owner, scratch),
        Special::DescriptorMode => by_descriptor(rules, guest, call, row, Intent::Mode, scratch),
        Special::FileFlags => enter_file_flags(rules, guest, call, scratch),
        Special::Execve => exec::execute(rules, guest, call, 0, scratch),
        Special::Execveat => exec::execute(rules, guest, call, 1, scratch),
        Special::Bind => sockets::give_address(rules, guest, call, [1, 2], Gives::Own, scratch),
        Special::Connect => sockets::give_address(rules, guest, call, [1, 2], Gives::Peer, scratch),
        Special::Sendto => sockets::give_address(rules, guest, call, [4, 5], Gives::Peer, scratch),
        Special::OwnName => Ok(sockets::take_address(guest, Whose::Own(call.int(0)), call.arg(1), call.arg(2))),
        Special::PeerName => Ok(sockets::take_address(guest, Whose::Peer(call.int(0)), call.arg(1), call.arg(2))),
        Special::Recvfrom => Ok(sockets::take_address(guest, Whose::Peer(call.int(0)), call.arg(4), call.arg(5))),
        Special::PeerCredentials => Ok(sockets::peer_credentials(rules, call)),
        Special::Sendmsg => sockets::message::send(rules, guest, call, scratch),
        Special::Recvmsg => Ok(sockets::message::receive(rules, guest, call)),
        Special::Sendmmsg => sockets::message::send_many(rules, guest, call, scratch),
        Special::Recvmmsg => Ok(sockets::message::receive_many(rules, guest, call)),
        Special::Socketcall => sockets::call::socketcall(rules, guest, call, scratch),
        Special::FanotifyMark => enter_fanotify(rules, guest, call, scratch),
        Special::Unshare => birth::unshare(call),
        Special::Clone => birth::clone(call),
        Special::Clone3 => birth::clone3(guest, call),
        Special::Uname => Ok(Verdict::Make { after: After::NodeName { at: call.arg(0) }, outside: Outside::No }),
        Special::Prctl => prctl::prctl(rules, guest, call, scratch),
        Special::Person(what) => identity::person(guest, call, what, row.name, scratch),
    }
}

/// Its mask is 64 bits wide: two arguments on 32-bit interfaces.
fn enter_fanotify<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    const FAN_MARK_DONT_FOLLOW: u64 = 4;
    let shift = u8::from(call.abi == crate::Abi::I386);
    let arg = PathArg {
        dir: Dir::Fd(3 + shift),
        arg: 4 + shift,
        last: Last::NoFollowIf(1, FAN_MARK_DONT_FOLLOW),
        intent: Intent::Read,
    };
    if call.arg(arg.arg) == 0 {
        return Ok(Verdict::Pass);
    }
    let Scratch { buffers, path, base, text, lent, .. } = &mut *scratch;
    let len = guest.read_string(call.arg(arg.arg), path)?;
    if let Some(place) = translate(rules, guest, call, &arg, &path[..len], (buffers, base, text))? {
        lent[0].set_place(guest, arg.arg, &place)?;
        return Ok(Verdict::Make { after: After::Nothing, outside: Outside::No });
    }
    Ok(Verdict::Pass)
}
