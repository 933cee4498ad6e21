//! What a call on a path, or on an open file, means to a guest that takes itself for somebody else than the host does.
//!
//! Called when the path has been translated and the place permits it.

use core::ffi::CStr;

use crate::{
    Abi, After, Call, Errno, Guest, Outside, Row, Rules, Scratch,
    credentials::{KEEP, cap},
    enter::{STATX_MTIME, Verdict},
    errno::{EBADF, EPERM},
    identity::Width,
    leave::Layout,
    meaning::{AT_EACCESS, Intent, O_ACCMODE, O_CREAT, O_EXCL, O_PATH, O_TMPFILE, O_TRUNC, RENAME_EXCHANGE},
    owners::{Facts, S_IFBLK, S_IFCHR, S_IFREG, change_mode, change_owner, host_node},
    permit::{S_IFDIR, S_IFMT},
    rights::{self, EXECUTE, READ, WRITE, may, may_change_above, may_reach},
};

/// What becomes of a call.
pub(crate) enum Part {
    /// It is made, and then this is done.
    Make(After),
    /// It is answered so.
    Answer(i64),
    /// It is made with this path instead.
    Elsewhere(&'static CStr),
}

const DONE: Part = Part::Make(After::Nothing);

/// The file that a path names.
pub(crate) struct Named<'p> {
    pub(crate) host: &'p CStr,
    /// It is a link in `/proc` that stands for what it leads to.
    pub(crate) follow: bool,
    /// Number of the argument.
    pub(crate) arg: u8,
}

impl Named<'_> {
    /// The kernel knows best what a process may do in `/proc`, and a relative path is one that only it can follow.
    fn is_the_kernels(&self) -> bool {
        let path = self.host.to_bytes();
        path.starts_with(b"/proc/") || path.first() != Some(&b'/')
    }
}

/// Judges a call with one path.
pub(crate) fn on_path<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    intent: Intent,
    named: &Named<'_>,
) -> Result<Part, Errno> {
    let who = guest.credentials();
    let Named { host, follow, arg } = *named;
    let stat = || guest.stat(host, follow);
    let kernels = named.is_the_kernels();
    let reach = || if kernels { Ok(()) } else { may_reach(rules, guest, &who, host) };
    let check = |facts: &Facts, want: u32| {
        if kernels { Ok(()) } else { may(guest, &who, &rules.shown(facts), want) }
    };
    match intent {
        Intent::Read => {
            reach()?;
            if row.name == "chdir" && !who.can(cap::DAC_OVERRIDE) {
                check(&stat()?, EXECUTE)?;
            }
            Ok(Part::Make(After::stat(row.name, call)))
        }
        Intent::Owner => {
            reach()?;
            let ids = owner_ids(row, call, arg + 1);
            change_owner(rules, guest, (host, follow, false), ids)?;
            Ok(Part::Answer(0))
        }
        Intent::Mode => {
            reach()?;
            change_mode(rules, guest, (host, follow), number(call.arg(arg + 1)))?;
            Ok(Part::Answer(0))
        }
        Intent::Access(mode) => {
            let effective = row.name == "faccessat2" && call.arg(3) & AT_EACCESS != 0;
            let who = if effective { who } else { rights::real(&who) };
            let want = number(call.arg(mode));
            if want & !7 != 0 || kernels {
                return Ok(DONE);
            }
            may_reach(rules, guest, &who, host)?;
            let facts = stat()?;
            may(guest, &who, &rules.shown(&facts), want)?;
            // What is not ours, the host may refuse.
            Ok(if facts.uid == rules.identity.host_uid { Part::Answer(0) } else { DONE })
        }
        Intent::Open(flags) => open(rules, guest, call.arg(flags), named),
        Intent::Write => open(rules, guest, 1 | O_CREAT | O_TRUNC, named),
        Intent::Size => {
            reach()?;
            check(&stat()?, WRITE)?;
            Ok(DONE)
        }
        Intent::Attribute => {
            if who.can(cap::FOWNER) || kernels {
                return Ok(DONE);
            }
            reach()?;
            let facts = stat()?;
            let owns = rules.shown(&facts).uid == who.user.files;
            let sets_times = row.name.contains("utime");
            match check(&facts, WRITE) {
                _ if owns => {}
                Err(_) if sets_times && call.arg(arg + 1) != 0 => return Err(EPERM),
                Ok(()) if sets_times && call.arg(arg + 1) != 0 => return Err(EPERM),
                result => result?,
            }
            Ok(DONE)
        }
        Intent::Create => create(rules, guest, call, row, named),
        Intent::Remove => remove(rules, guest, named).map(Part::Make),
        Intent::Replace => Ok(DONE),
    }
}

/// open(2) and creat(2).
fn open<G: Guest>(rules: &Rules<'_>, guest: &G, flags: u64, named: &Named<'_>) -> Result<Part, Errno> {
    let who = guest.credentials();
    let makes = flags & O_CREAT != 0;
    let able = who.can(cap::DAC_OVERRIDE);
    let devices = rules.ledger.is_some_and(|ledger| ledger.has_devices());
    if named.is_the_kernels() || flags & O_PATH != 0 || able && !makes && !devices {
        return Ok(DONE);
    }
    may_reach(rules, guest, &who, named.host)?;
    if flags & O_TMPFILE == O_TMPFILE {
        return Ok(DONE);
    }
    match guest.stat(named.host, named.follow) {
        Err(Errno::ENOENT) if makes => {
            may_change_above(rules, guest, named.host, None)?;
            Ok(Part::Make(After::Opened { arg: named.arg }))
        }
        Err(errno) => Err(errno),
        Ok(_) if makes && flags & O_EXCL != 0 => Ok(DONE),
        Ok(facts) => {
            let shown = rules.shown(&facts);
            let mut want = match flags & O_ACCMODE {
                0 => READ,
                1 => WRITE,
                _ => READ | WRITE,
            };
            if flags & O_TRUNC != 0 {
                want |= WRITE;
            }
            if shown.is(S_IFDIR) && want & WRITE != 0 {
                // Refused whoever asks.
                return Ok(DONE);
            }
            may(guest, &who, &shown, want)?;
            let made = (shown.is(S_IFCHR) || shown.is(S_IFBLK)) && facts.is(S_IFREG);
            if made { host_node(shown.mode, shown.device).map(Part::Elsewhere) } else { Ok(DONE) }
        }
    }
}

/// mkdir(2), mknod(2), symlink(2).
fn create<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    named: &Named<'_>,
) -> Result<Part, Errno> {
    if named.is_the_kernels() || guest.stat(named.host, false).is_ok() {
        return Ok(DONE);
    }
    let who = guest.credentials();
    may_reach(rules, guest, &who, named.host)?;
    may_change_above(rules, guest, named.host, None)?;
    let mut device = None;
    if row.name.starts_with("mknod") {
        let (mode, node) = (number(call.arg(named.arg + 1)), number(call.arg(named.arg + 2)));
        let kind = mode & S_IFMT;
        if kind == S_IFCHR || kind == S_IFBLK {
            // An overlay's whiteout is nobody's privilege.
            if !who.can(cap::MKNOD) && (kind, node) != (S_IFCHR, 0) {
                return Err(EPERM);
            }
            device = Some((kind, node));
            call.args[usize::from(named.arg) + 1] = u64::from(S_IFREG | mode & 0o1777);
            call.args[usize::from(named.arg) + 2] = 0;
        }
    }
    Ok(Part::Make(After::Made { arg: named.arg, device }))
}

/// unlink(2), rmdir(2), and the old name of rename(2): whether the name may go, and what to forget with it.
pub(crate) fn remove<G: Guest>(rules: &Rules<'_>, guest: &G, named: &Named<'_>) -> Result<After, Errno> {
    let able = guest.credentials().can(cap::DAC_OVERRIDE);
    if named.is_the_kernels() || able && rules.ledger.is_none_or(|ledger| ledger.is_empty()) {
        return Ok(After::Nothing);
    }
    may_reach(rules, guest, &guest.credentials(), named.host)?;
    let facts = guest.stat(named.host, false)?;
    if !able {
        may_change_above(rules, guest, named.host, Some(&facts))?;
    }
    let last = facts.is(S_IFDIR) || facts.links <= 1;
    let known = rules.ledger.is_some_and(|ledger| ledger.get(facts.inode).is_some());
    Ok(if last && known { After::Gone(facts.inode) } else { After::Nothing })
}

/// Judges link(2) and rename(2), whose paths have been lent.
pub(crate) fn on_pair<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    row: &Row,
    scratch: &Scratch,
) -> Result<After, Errno> {
    let named = |at: usize| {
        let lent = &scratch.lent[at];
        lent.path().map(|host| Named { host, follow: false, arg: lent.arg })
    };
    let (old, new) = (named(0), named(1));
    let Some(new) = new else { return Ok(After::Nothing) };
    let renames = row.name.starts_with("rename");
    if renames && let Some(old) = &old {
        remove(rules, guest, old)?;
    }
    match remove(rules, guest, &new) {
        Err(Errno::ENOENT) => {}
        gone if renames && !(row.name == "renameat2" && call.arg(4) & RENAME_EXCHANGE != 0) => return gone,
        other => return other.map(|_| After::Nothing),
    }
    if !new.is_the_kernels() {
        may_change_above(rules, guest, new.host, None)?;
    }
    Ok(After::Nothing)
}

/// The call means an open file (or with `None` the working directory), by its descriptor alone.
pub(crate) fn on_descriptor<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    intent: Intent,
    (descriptor, arg, scratch): (Option<i32>, u8, &mut Scratch),
) -> Result<Verdict, Errno> {
    let mut room = [0; 48];
    let host = descriptor_path(guest.caller().tid, descriptor, &mut room);
    let bad = |errno| if errno == Errno::ENOENT { EBADF } else { errno };
    match intent {
        Intent::Owner | Intent::Mode | Intent::Attribute if !rules.identity.pretends() => Ok(Verdict::Pass),
        Intent::Owner => {
            let ids = owner_ids(row, call, arg + 1);
            change_owner(rules, guest, (host, true, true), ids).map_err(bad)?;
            Ok(Verdict::Answer(0))
        }
        Intent::Mode => {
            change_mode(rules, guest, (host, true), number(call.arg(arg + 1))).map_err(bad)?;
            Ok(Verdict::Answer(0))
        }
        _ => {
            let after = After::stat(row.name, call);
            if after == After::Nothing || !rules.shows_files() {
                return Ok(Verdict::Pass);
            }
            if call.abi != Abi::X86_64 {
                return Ok(Verdict::Make { after, outside: Outside::No });
            }
            // The same by a path, which a tracer can ask by itself.
            let outside = match row.name {
                "statx" => {
                    if rules.marks.is_some() {
                        call.args[3] |= STATX_MTIME;
                    }
                    (call.args[0], call.args[2]) = (0, call.arg(2) & !(crate::meaning::AT_EMPTY_PATH | 0x100));
                    scratch.lent[0].set(1, host.to_bytes_with_nul())?;
                    Outside::Statx(4)
                }
                name => {
                    let at = if name == "fstat" { call.arg(1) } else { call.arg(2) };
                    (call.number, call.args) = (STAT, [0, at, 0, 0, 0, 0]);
                    scratch.lent[0].set(0, host.to_bytes_with_nul())?;
                    Outside::Stat(1)
                }
            };
            Ok(Verdict::Make { after: After::OfDescriptor, outside })
        }
    }
}

/// stat(2) of 64-bit x86.
const STAT: u64 = 4;

/// The path by which somebody else reaches a thread's open file or working directory.
pub(crate) fn descriptor_path(tid: u32, descriptor: Option<i32>, room: &mut [u8; 48]) -> &CStr {
    let mut at = 0;
    let mut put = |text: &[u8]| {
        room[at..at + text.len()].copy_from_slice(text);
        at += text.len();
    };
    let mut digits = [0; 10];
    put(b"/proc/");
    put(decimal(tid, &mut digits));
    match descriptor {
        None => put(b"/cwd\0"),
        Some(descriptor) => {
            put(b"/fd/");
            // A negative one is no descriptor, and nor is this.
            put(decimal(u32::try_from(descriptor).unwrap_or(u32::MAX), &mut digits));
            put(b"\0");
        }
    }
    CStr::from_bytes_until_nul(room).unwrap_or(c"/")
}

/// A number's digits.
pub(crate) fn decimal(number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

/// Owner and group that a call gives, from argument `first` on.
fn owner_ids(row: &Row, call: &Call, first: u8) -> (u32, u32) {
    let narrow = call.abi == Abi::I386 && matches!(row.name, "chown" | "lchown" | "fchown");
    let width = Width { narrow };
    let id = |arg: u8| width.take(call.arg(arg));
    debug_assert_eq!(KEEP, u32::MAX);
    (id(first), id(first + 1))
}

/// An argument as the kernel takes an `unsigned int`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel ignores the upper half")]
fn number(arg: u64) -> u32 {
    arg as u32
}

impl After {
    /// The owner in this call's result is to be shown as the guest knows it.
    pub(crate) fn stat(name: &str, call: &Call) -> Self {
        let (at, layout) = match (name, call.abi) {
            ("stat" | "lstat" | "fstat", Abi::X86_64) => (1, Layout::Stat),
            ("stat" | "lstat" | "fstat", Abi::I386) => (1, Layout::Stat32),
            ("newfstatat", _) => (2, Layout::Stat),
            ("stat64" | "lstat64" | "fstat64", _) => (1, Layout::Stat64),
            ("fstatat64", _) => (2, Layout::Stat64),
            ("statx", _) => (4, Layout::Statx),
            _ => return Self::Nothing,
        };
        Self::Owner { at: call.arg(at), layout }
    }
}
