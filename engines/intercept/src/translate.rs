//! A path argument on its way from guest to host.

use core::ffi::CStr;

use coracle_paths::{
    Anchor, Base, Bounds, Buffers, DELETED, Last as Tail, Manner, PATH_MAX, Request, Resolved, resolve_with,
};

use crate::{
    Call, Errno, Guest, Rules,
    errno::EBADF,
    meaning::{AT_FDCWD, Dir, Last, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, PathArg},
};

/// Bytes that the transport lends to the guest for one call, and the argument that then points to them.
#[derive(Debug)]
pub struct Lent {
    bytes: [u8; PATH_MAX],
    len: usize,
    pub(crate) arg: u8,
    pointer: usize,
    within: Option<Within>,
}

/// A pointer among lent bytes to another place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// Where it stands.
    pub at: usize,
    /// What it points to.
    pub to: usize,
    /// How many bytes it has.
    pub size: usize,
}

/// No argument.
const NO_ARG: u8 = u8::MAX;

impl Lent {
    const fn new() -> Self {
        Self { bytes: [0; PATH_MAX], len: 0, arg: NO_ARG, pointer: 0, within: None }
    }

    /// The bytes; a path ends with its NUL. Empty: nothing is lent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The bytes, for a transport that lends its own memory and puts the pointer into them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The argument that is to point to the bytes, if one is.
    #[must_use]
    pub fn arg(&self) -> Option<usize> {
        (self.arg != NO_ARG).then_some(usize::from(self.arg))
    }

    /// As many bytes at the beginning are to become a pointer to the string that is lent before this one; 0: none.
    #[must_use]
    pub fn pointer(&self) -> usize {
        self.pointer
    }

    /// A pointer among the bytes that is to lead to others of them.
    #[must_use]
    pub fn within(&self) -> Option<Within> {
        self.within
    }

    /// The bytes as a path.
    #[must_use]
    pub fn path(&self) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes()).ok()
    }

    pub(crate) fn set(&mut self, arg: u8, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(bytes);
        self.len = bytes.len();
        self.arg = arg;
        self.pointer = 0;
        self.within = None;
        Ok(())
    }

    /// Bytes that only the next string points to.
    pub(crate) fn set_pointed_to(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.set(NO_ARG, bytes)
    }

    /// Bytes that begin with a pointer, of this size, to the string before.
    pub(crate) fn set_pointing(&mut self, arg: u8, bytes: &[u8], pointer: usize) -> Result<(), Errno> {
        self.set(arg, bytes)?;
        self.pointer = pointer;
        Ok(())
    }

    /// The pointer of `size` bytes at `at` is to lead to the byte at `to`.
    pub(crate) fn point_within(&mut self, at: usize, to: usize, size: usize) {
        self.within = Some(Within { at, to, size });
    }

    /// Lends a resolved path. One that is too long for the kernel is made short by an alias of a directory on its way.
    pub(crate) fn set_place<G: Guest>(&mut self, guest: &G, arg: u8, place: &Resolved<'_>) -> Result<(), Errno> {
        if !place.is_long() {
            return self.set(arg, place.host.to_bytes_with_nul());
        }
        self.set_long_place(guest, arg, place)
    }

    #[cold]
    #[inline(never)]
    fn set_long_place<G: Guest>(&mut self, guest: &G, arg: u8, place: &Resolved<'_>) -> Result<(), Errno> {
        let mut rest = place.host.to_bytes();
        let mut alias = [0; ALIAS];
        let mut alias_len = 0;
        while alias_len + rest.len() >= PATH_MAX {
            // As much as can be opened at once, up to a slash.
            let room = &rest[..rest.len().min(PATH_MAX - 1 - alias_len)];
            let slash = room.iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0);
            let (dir, below) = rest.split_at(slash.ok_or(Errno::ENAMETOOLONG)?);
            let mut path = [0; PATH_MAX];
            path[..alias_len].copy_from_slice(&alias[..alias_len]);
            path[alias_len..alias_len + dir.len()].copy_from_slice(dir);
            let dir = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::ENAMETOOLONG)?;
            alias_len = guest.alias(dir, &mut alias)?;
            rest = below;
        }
        let len = alias_len + rest.len();
        self.bytes[..alias_len].copy_from_slice(&alias[..alias_len]);
        self.bytes[alias_len..len].copy_from_slice(rest);
        self.bytes[len] = 0;
        self.len = len + 1;
        self.arg = arg;
        self.pointer = 0;
        self.within = None;
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Room for what [`Guest::alias`] writes.
const ALIAS: usize = 64;

/// Memory for one call at a time: about 50 KiB, made once per thread. There are only integers in it, and memory of zeroes is
/// an empty one too: what a call needs it sets first.
#[derive(Debug)]
pub struct Scratch {
    pub(crate) buffers: Buffers,
    /// The path as the guest wrote it.
    pub(crate) path: [u8; PATH_MAX],
    /// The directory where it starts.
    pub(crate) base: [u8; PATH_MAX],
    /// A link's text, or another string of the host's.
    pub(crate) text: [u8; 2 * PATH_MAX],
    /// What is lent to the guest.
    pub(crate) lent: [Lent; 2],
    /// How many messages of the sendmmsg(2) at hand have been sent: it is made piece by piece, by
    /// [`Left::Again`](crate::Left::Again). A transport begins each call with 0; if it looks at others between the
    /// pieces, it keeps the number for the call's next entry.
    pub sent: u32,
}

impl Scratch {
    /// Empty; `const`, so that it can be a static.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffers: Buffers::new(),
            path: [0; PATH_MAX],
            base: [0; PATH_MAX],
            text: [0; 2 * PATH_MAX],
            lent: [Lent::new(), Lent::new()],
            sent: 0,
        }
    }

    /// What the last verdict lends.
    #[must_use]
    pub fn lent(&self) -> &[Lent; 2] {
        &self.lent
    }

    /// The same, for a transport that lends its own memory.
    pub fn lent_mut(&mut self) -> &mut [Lent; 2] {
        &mut self.lent
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a relative path starts, found.
pub(crate) enum Start {
    /// At this canonical guest path, in `Scratch::base`.
    Guest { len: usize, deleted: bool },
    /// So many directories below the one at this canonical guest path, too deep to have a path of its own.
    Deep { len: usize, levels: u32 },
    /// At a place that the guest has open but cannot name (inherited, or of no name).
    Unseen,
}

/// The tail as the walk knows it.
pub(crate) fn tail(call: &Call, last: Last, path: &[u8]) -> Tail {
    let holds = |arg: u8, flag: u64| call.arg(arg) & flag != 0;
    match last {
        Last::Follow => Tail::Follow,
        Last::Create => Tail::Create,
        Last::NoFollow => Tail::NoFollow,
        Last::Parent => Tail::Parent,
        Last::FollowIf(arg, flag) if holds(arg, flag) => Tail::Follow,
        Last::FollowIf(..) => Tail::NoFollow,
        Last::NoFollowIf(arg, flag) if holds(arg, flag) => Tail::NoFollow,
        Last::NoFollowIf(..) => Tail::Follow,
        Last::Open(arg) => open_tail(call.arg(arg), path),
    }
}

/// What open(2) does with a link at the end.
pub(crate) fn open_tail(flags: u64, path: &[u8]) -> Tail {
    let follow = flags & O_NOFOLLOW == 0;
    if flags & (O_CREAT | O_PATH) == O_CREAT {
        Tail::for_create(path, follow && flags & O_EXCL == 0)
    } else if follow {
        Tail::Follow
    } else {
        Tail::NoFollow
    }
}

/// The descriptor that a relative path starts at; `None` is the working directory.
pub(crate) fn start_descriptor(call: &Call, dir: Dir) -> Option<i32> {
    match dir {
        Dir::Cwd => None,
        Dir::Fd(arg) => Some(call.int(arg)).filter(|fd| *fd != AT_FDCWD),
    }
}

/// Finds where a relative path of `dir` starts.
pub(crate) fn start<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    dir: Dir,
    base: &mut [u8],
    text: &mut [u8],
) -> Result<Start, Errno> {
    let descriptor = start_descriptor(call, dir);
    let len = match guest.place(descriptor, text) {
        Ok(len) => len,
        Err(Errno::ENAMETOOLONG) => {
            let mut link = [0; LINK];
            let above = guest.ancestor(link_of(guest, descriptor, &mut link), text)?;
            let found = rules.view.to_guest_as(&text[..above.len], false, base);
            return Ok(found.map_or(Start::Unseen, |found| Start::Deep { len: found.len, levels: above.levels }));
        }
        Err(_) if descriptor.is_some() => return Err(EBADF),
        Err(errno) => return Err(errno),
    };
    let host = &text[..len];
    if host.first() != Some(&b'/') {
        // `pipe:[…]` and the like.
        return Err(Errno::ENOTDIR);
    }
    let deleted = host.ends_with(DELETED) && !is_named(guest, descriptor, host);
    Ok(match rules.view.to_guest_as(host, deleted, base) {
        Some(found) if found.deleted => Start::Guest { len: found.len - DELETED.len(), deleted: true },
        Some(found) => Start::Guest { len: found.len, deleted: false },
        None => Start::Unseen,
    })
}

/// Whether a text that ends in ` (deleted)` is a name all the same.
pub(crate) fn is_named<G: Guest>(guest: &G, descriptor: Option<i32>, host: &[u8]) -> bool {
    guest.leads_to(link_of(guest, descriptor, &mut [0; LINK]), host)
}

/// The `/proc` link to the working directory, or to what a descriptor holds.
pub(crate) fn link_of<'l, G: Guest>(guest: &G, descriptor: Option<i32>, link: &'l mut [u8; LINK]) -> &'l CStr {
    guest.link(descriptor, &mut link[..LINK - 1]);
    CStr::from_bytes_until_nul(link).unwrap_or(c"/")
}

/// Room for what [`Guest::link`] writes, and a NUL.
pub(crate) const LINK: usize = 49;

/// Translates the path in `path`, which starts at `dir` if it is relative; `None`: leave it as it is.
pub(crate) fn translate<'s, G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: &PathArg,
    path: &[u8],
    memory: (&'s mut Buffers, &mut [u8], &mut [u8]),
) -> Result<Option<Resolved<'s>>, Errno> {
    translate_within(rules, guest, call, arg, path, Bounds::default(), memory)
}

/// As [`translate`], as openat2(2) bounds it.
pub(crate) fn translate_within<'s, G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: &PathArg,
    path: &[u8],
    bounds: Bounds,
    (buffers, base, text): (&'s mut Buffers, &mut [u8], &mut [u8]),
) -> Result<Option<Resolved<'s>>, Errno> {
    let scoped = bounds.0 & Bounds::IN_ROOT.0 != 0;
    let start = if (path.first() == Some(&b'/') || path.is_empty()) && !scoped {
        Start::Guest { len: 0, deleted: false }
    } else {
        start(rules, guest, call, arg.dir, base, text)?
    };
    let mut link = [0; LINK];
    let (len, deleted, anchor) = match start {
        Start::Unseen => return Ok(None),
        Start::Guest { len, deleted } => (len, deleted, None),
        // A root without a path cannot be climbed back to.
        Start::Deep { .. } if scoped => return Err(Errno::ENAMETOOLONG),
        Start::Deep { len, levels } => {
            let linked = guest.link(start_descriptor(call, arg.dir), &mut link);
            (len, false, Some(Anchor { host: &link[..linked], levels }))
        }
    };
    let base = &base[..len];
    let root = if scoped { base } else { guest.root() };
    let request = Request { root, base: Base { guest: base, deleted }, path, last: tail(call, arg.last, path) };
    resolve_with(&rules.view, guest, &request, Manner { bounds, anchor }, buffers).map(Some)
}
