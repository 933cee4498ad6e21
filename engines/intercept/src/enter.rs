//! What happens when a guest enters a system call.

use core::ffi::CStr;

use coracle_paths::{Found, PATH_MAX};

use crate::{
    After, Call, Errno, Guest, Rules, Scratch,
    errno::{EPERM, EXDEV},
    leave::Layout,
    meaning::{
        AT_EMPTY_PATH, CLONE_NEWNS, CLONE_NEWUSER, Dir, Intent, Last, Meaning, O_CREAT, Outside, PathArg, Row, Special,
    },
    permit::{permit, permit_descriptor},
    places, sockets, table,
    translate::{Start, start, translate},
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
    },
}

/// Finds the meaning of a call.
pub fn enter<G: Guest>(rules: &Rules<'_>, guest: &G, call: &mut Call, scratch: &mut Scratch) -> Verdict {
    let Some(row) = table::row_of(call.abi, call.number) else { return Verdict::Pass };
    if !rules.wants(row) {
        return Verdict::Pass;
    }
    for lent in &mut scratch.lent {
        lent.clear();
    }
    let verdict = match row.meaning {
        Meaning::Paths(args) => enter_paths(rules, guest, call, row, args, scratch),
        Meaning::Special(special) => enter_special(rules, guest, call, special, scratch),
        Meaning::Refused(errno) => Err(errno),
    };
    verdict.unwrap_or_else(|errno| Verdict::Answer(-i64::from(errno.0)))
}

fn enter_paths<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    row: &Row,
    args: &[PathArg],
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let mut outside = row.outside;
    let mut first_place = None;
    let mut pretended = false;
    for (at, arg) in args.iter().enumerate() {
        let Scratch { buffers, path, base, text, lent } = &mut *scratch;
        if call.arg(arg.arg) == 0 && may_be_null(row) {
            // The descriptor itself is meant.
            outside = Outside::No;
            pretended |= descriptor_itself(rules, guest, call, arg, text, base)?;
            continue;
        }
        let len = guest.read_string(call.arg(arg.arg), path)?;
        let path = &path[..len];
        if path.is_empty() && takes_empty(call, arg) {
            outside = Outside::No;
            pretended |= descriptor_itself(rules, guest, call, arg, text, base)?;
            continue;
        }
        let Some(place) = translate(rules, guest, call, arg, path, (buffers, base, text))? else {
            outside = Outside::No;
            continue;
        };
        if at > 0 && first_place.is_some_and(|bind| bind != place.bind) {
            return Err(EXDEV);
        }
        first_place = Some(place.bind);
        permit(guest, call, arg.intent, &place)?;
        if place.found == Found::Missing && needs_existence(call, arg.intent) {
            return Err(Errno::ENOENT);
        }
        if place.at_base || place.is_long() {
            outside = Outside::No;
        }
        if place.magic.is_some_and(|magic| magic.pid == 0) {
            // `/proc/self` itself: whoever makes the call is meant.
            outside = Outside::No;
        }
        if arg.intent == Intent::Owner && rules.identity.pretends() {
            guest.mode(place.host, place.magic.is_some())?;
            pretended = true;
        }
        if place.is_long() {
            return Err(Errno::ENAMETOOLONG);
        }
        lent[at].set(arg.arg, place.host.to_bytes_with_nul())?;
    }
    if pretended {
        return Ok(Verdict::Answer(0));
    }
    let after = if rules.identity.pretends() { After::owner(row.name, call) } else { After::Nothing };
    if outside == Outside::No && after == After::Nothing && scratch.lent.iter().all(|lent| lent.bytes().is_empty()) {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Make { after, outside })
}

/// Whether the call fails if there is nothing: then the kernel need not be asked.
fn needs_existence(call: &Call, intent: Intent) -> bool {
    match intent {
        Intent::Read | Intent::Attribute | Intent::Owner | Intent::Access(_) | Intent::Remove => true,
        Intent::Open(flags) => call.arg(flags) & O_CREAT == 0,
        Intent::Write | Intent::Create | Intent::Replace => false,
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

/// The call means the descriptor that its directory argument holds; whether it is only pretended.
fn descriptor_itself<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: &PathArg,
    text: &mut [u8],
    place: &mut [u8],
) -> Result<bool, Errno> {
    let descriptor = match arg.dir {
        Dir::Fd(dir) => Some(call.int(dir)).filter(|fd| *fd >= 0),
        Dir::Cwd => None,
    };
    match arg.intent {
        Intent::Attribute => permit_descriptor(rules, guest, descriptor, text, place)?,
        Intent::Owner => {
            permit_descriptor(rules, guest, descriptor, text, place)?;
            return Ok(rules.identity.pretends());
        }
        _ => {}
    }
    Ok(false)
}

fn enter_special<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    special: Special,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    match special {
        Special::Openat2 => enter_openat2(rules, guest, call, scratch),
        Special::Fstat => Ok(Verdict::Make { after: After::owner("fstat", call), outside: Outside::No }),
        Special::Readlink => places::readlink(rules, guest, call, 0, scratch),
        Special::Readlinkat => places::readlink(rules, guest, call, 1, scratch),
        Special::Getcwd => places::getcwd(rules, guest, call, scratch),
        Special::Chroot => places::chroot(rules, guest, call, scratch),
        Special::DescriptorAttribute => {
            permit_descriptor(rules, guest, Some(call.int(0)), &mut scratch.text, &mut scratch.base)?;
            Ok(Verdict::Pass)
        }
        Special::DescriptorOwner => {
            permit_descriptor(rules, guest, Some(call.int(0)), &mut scratch.text, &mut scratch.base)?;
            Ok(if rules.identity.pretends() { Verdict::Answer(0) } else { Verdict::Pass })
        }
        Special::Execve => enter_exec(rules, guest, call, 0, scratch),
        Special::Execveat => enter_exec(rules, guest, call, 1, scratch),
        Special::Bind => sockets::give_address(rules, guest, call, [1, 2], Intent::Create, scratch),
        Special::Connect => sockets::give_address(rules, guest, call, [1, 2], Intent::Read, scratch),
        Special::Sendto => sockets::give_address(rules, guest, call, [4, 5], Intent::Read, scratch),
        Special::SocketName => sockets::take_address(guest, call.arg(1), call.arg(2)),
        Special::Recvfrom => sockets::take_address(guest, call.arg(4), call.arg(5)),
        Special::Socketcall => sockets::socketcall(rules, guest, call, scratch),
        Special::FanotifyMark => enter_fanotify(rules, guest, call, scratch),
        // In a user or mount namespace of its own a guest could lay its files out anew, which no rule here would see.
        Special::Unshare if call.arg(0) & (CLONE_NEWNS | CLONE_NEWUSER) != 0 => Err(EPERM),
        Special::Unshare => Ok(Verdict::Pass),
        Special::Uname => Ok(Verdict::Make { after: After::NodeName { at: call.arg(0) }, outside: Outside::No }),
        Special::Id(id) => Ok(Verdict::Answer(i64::from(rules.identity.id(id)))),
        Special::Ids(id) => rules.identity.write_ids(guest, call, id).map(Verdict::Answer),
        // Only root may become anybody; others may become what they are, which the kernel allows or not.
        Special::SetIds if rules.identity.uid == 0 => Ok(Verdict::Answer(0)),
        Special::SetIds => Err(EPERM),
    }
}

/// Only in the native interface: a `struct open_how` says how.
fn enter_openat2<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    const RESOLVE_NO_SYMLINKS: u64 = 4;
    const RESOLVE_BENEATH: u64 = 8;
    const RESOLVE_IN_ROOT: u64 = 16;
    const RESOLVE_CACHED: u64 = 32;
    // flags, mode and resolve, then what newer kernels may add.
    let mut how = [0; 64];
    let size = usize::try_from(call.arg(3)).unwrap_or(usize::MAX);
    let Some(how) = how.get_mut(..size).filter(|how| how.len() >= 24) else { return Ok(Verdict::Pass) };
    guest.read(call.arg(2), how)?;
    let word = |at: usize| u64::from_ne_bytes(how[at..at + 8].try_into().unwrap_or([0; 8]));
    let (flags, ways) = (word(0), word(16));
    let Scratch { buffers, path, base, text, lent } = &mut *scratch;
    let len = guest.read_string(call.arg(1), path)?;
    let mut from = Call { number: call.number, abi: call.abi, args: call.args };
    from.args[2] = flags;
    let arg = PathArg { dir: Dir::Fd(0), arg: 1, last: Last::Open(2), intent: Intent::Open(2) };
    let beneath = ways & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0;
    if beneath && ways & RESOLVE_BENEATH != 0 && path.first() == Some(&b'/') {
        return Err(EXDEV);
    }
    let mut fence = [0; PATH_MAX];
    let mut fence_len = 0;
    if beneath {
        match start(rules, guest, &from, Dir::Fd(0), &mut fence, text)? {
            Start::Guest { len, .. } => fence_len = len,
            Start::Unseen => return Ok(Verdict::Pass),
        }
    }
    let fence = &fence[..fence_len];
    let place = if ways & RESOLVE_IN_ROOT != 0 {
        let request = coracle_paths::Request {
            root: fence,
            base: coracle_paths::Base { guest: fence, deleted: false },
            path: &path[..len],
            last: crate::translate::open_tail(flags),
        };
        coracle_paths::resolve(&rules.view, guest, &request, buffers)?
    } else {
        match translate(rules, guest, &from, &arg, &path[..len], (buffers, base, text))? {
            Some(place) => place,
            None => return Ok(Verdict::Pass),
        }
    };
    if ways & RESOLVE_BENEATH != 0 && fence != b"/" {
        let inside = place.guest.strip_prefix(fence).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if !inside {
            return Err(EXDEV);
        }
    }
    if ways & RESOLVE_NO_SYMLINKS != 0 && !place.guest.ends_with(trim_dots(&path[..len])) {
        return Err(Errno::ELOOP);
    }
    permit(guest, &from, arg.intent, &place)?;
    if place.is_long() {
        return Err(Errno::ENAMETOOLONG);
    }
    lent[0].set(1, place.host.to_bytes_with_nul())?;
    // What of the walk the guest forbade has been seen to; the host path is the host's.
    how[16..24].copy_from_slice(&(ways & RESOLVE_CACHED).to_ne_bytes());
    lent[1].set(2, how)?;
    Ok(Verdict::Make { after: After::Nothing, outside: Outside::No })
}

/// A relative path without a leading `./`, an absolute one without its slash: what a walk without links must end in.
fn trim_dots(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

/// execve(2) and execveat(2): `arg` is the path's argument.
fn enter_exec<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: u8,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { buffers, path, base, text, lent } = &mut *scratch;
    let dir = if arg == 0 { Dir::Cwd } else { Dir::Fd(0) };
    let last = if arg == 0 { Last::Follow } else { Last::NoFollowIf(4, crate::meaning::AT_SYMLINK_NOFOLLOW) };
    let words = PathArg { dir, arg, last, intent: Intent::Read };
    let len = guest.read_string(call.arg(arg), path)?;
    let name = if len == 0 && takes_empty(call, &words) {
        // fexecve(3): the open file is the program, by whatever name it has.
        let len = descriptor_link(call.int(0), path);
        &path[..len]
    } else {
        &path[..len]
    };
    let Some(place) = translate(rules, guest, call, &words, name, (buffers, base, text))? else {
        return Err(Errno::ENOENT);
    };
    if place.is_long() {
        return Err(Errno::ENAMETOOLONG);
    }
    lent[0].set(arg, place.host.to_bytes_with_nul())?;
    lent[1].set(arg, place.guest)?;
    Ok(Verdict::Execute { argv: arg + 1 })
}

/// Writes `/proc/self/fd/N`.
fn descriptor_link(descriptor: i32, path: &mut [u8]) -> usize {
    let prefix = b"/proc/self/fd/";
    path[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = descriptor.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let end = prefix.len() + digits.len() - at;
    path[prefix.len()..end].copy_from_slice(&digits[at..]);
    end
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
    let Scratch { buffers, path, base, text, lent } = &mut *scratch;
    let len = guest.read_string(call.arg(arg.arg), path)?;
    if let Some(place) = translate(rules, guest, call, &arg, &path[..len], (buffers, base, text))? {
        lent[0].set(arg.arg, place.host.to_bytes_with_nul())?;
        return Ok(Verdict::Make { after: After::Nothing, outside: Outside::No });
    }
    Ok(Verdict::Pass)
}

impl Scratch {
    /// The guest path of the program that [`Verdict::Execute`] starts.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        self.lent[1].bytes()
    }

    /// Resolves a guest path that the transport itself found (an interpreter's), relative to the caller's working
    /// directory; the host path is then the first of [`Scratch::lent`], the guest path [`Scratch::program`].
    ///
    /// # Errors
    /// As the kernel's.
    pub fn find<G: Guest>(&mut self, rules: &Rules<'_>, guest: &G, name: &[u8]) -> Result<&CStr, Errno> {
        let Self { buffers, base, text, lent, .. } = self;
        let call = Call { abi: crate::Abi::X86_64, number: 0, args: [0; 6] };
        let arg = PathArg { dir: Dir::Cwd, arg: 0, last: Last::Follow, intent: Intent::Read };
        let place = translate(rules, guest, &call, &arg, name, (buffers, base, text))?.ok_or(Errno::ENOENT)?;
        if place.is_long() {
            return Err(Errno::ENAMETOOLONG);
        }
        lent[0].set(0, place.host.to_bytes_with_nul())?;
        lent[1].set(0, place.guest)?;
        lent[0].path().ok_or(Errno::ENOENT)
    }
}

impl After {
    /// The owner in this call's result is to be shown as the guest's own.
    fn owner(name: &str, call: &Call) -> Self {
        let (at, layout) = match (name, call.abi) {
            ("stat" | "lstat" | "fstat", crate::Abi::X86_64) => (1, Layout::Stat),
            ("newfstatat", _) => (2, Layout::Stat),
            ("stat64" | "lstat64" | "fstat64", _) => (1, Layout::Stat64),
            ("fstatat64", _) => (2, Layout::Stat64),
            ("statx", _) => (4, Layout::Statx),
            _ => return Self::Nothing,
        };
        Self::Owner { at: call.arg(at), layout }
    }
}
