//! A path argument on its way from guest to host.

use core::ffi::CStr;

use coracle_paths::{Base, Buffers, DELETED, Last as Tail, PATH_MAX, Request, Resolved, resolve};

use crate::{
    Call, Errno, Guest, Rules,
    errno::EBADF,
    meaning::{AT_FDCWD, Dir, Last, O_CREAT, O_EXCL, O_NOFOLLOW, PathArg},
};

/// Bytes that the transport lends to the guest for one call, and the argument that then points to them.
#[derive(Debug)]
pub struct Lent {
    bytes: [u8; PATH_MAX],
    len: usize,
    arg: u8,
}

impl Lent {
    const fn new() -> Self {
        Self { bytes: [0; PATH_MAX], len: 0, arg: 0 }
    }

    /// The bytes; a path ends with its NUL. Empty: nothing is lent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The argument that is to point to the bytes.
    #[must_use]
    pub fn arg(&self) -> usize {
        usize::from(self.arg)
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
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Memory for one call at a time: about 50 KiB, made once per thread.
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
        }
    }

    /// What the last verdict lends.
    #[must_use]
    pub fn lent(&self) -> &[Lent; 2] {
        &self.lent
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
    /// At a place that the guest has open but cannot name (inherited, or of no name).
    Unseen,
}

/// The tail as the walk knows it.
pub(crate) fn tail(call: &Call, last: Last) -> Tail {
    let holds = |arg: u8, flag: u64| call.arg(arg) & flag != 0;
    match last {
        Last::Follow => Tail::Follow,
        Last::NoFollow => Tail::NoFollow,
        Last::Parent => Tail::Parent,
        Last::FollowIf(arg, flag) if holds(arg, flag) => Tail::Follow,
        Last::FollowIf(..) => Tail::NoFollow,
        Last::NoFollowIf(arg, flag) if holds(arg, flag) => Tail::NoFollow,
        Last::NoFollowIf(..) => Tail::Follow,
        Last::Open(arg) => open_tail(call.arg(arg)),
    }
}

/// What open(2) does with a link at the end.
pub(crate) fn open_tail(flags: u64) -> Tail {
    if flags & O_NOFOLLOW != 0 || flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL {
        Tail::NoFollow
    } else {
        Tail::Follow
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
    let descriptor = match dir {
        Dir::Cwd => None,
        Dir::Fd(arg) => Some(call.int(arg)).filter(|fd| *fd != AT_FDCWD),
    };
    let len = guest.place(descriptor, text).map_err(|errno| if descriptor.is_some() { EBADF } else { errno })?;
    let host = &text[..len];
    if host.first() != Some(&b'/') {
        // `pipe:[…]` and the like.
        return Err(Errno::ENOTDIR);
    }
    Ok(match rules.view.to_guest(host, base) {
        Some(found) if found.deleted => Start::Guest { len: found.len - DELETED.len(), deleted: true },
        Some(found) => Start::Guest { len: found.len, deleted: false },
        None => Start::Unseen,
    })
}

/// Translates the path in `path`, which starts at `dir` if it is relative; `None`: leave it as it is.
pub(crate) fn translate<'s, G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: &PathArg,
    path: &[u8],
    (buffers, base, text): (&'s mut Buffers, &mut [u8], &mut [u8]),
) -> Result<Option<Resolved<'s>>, Errno> {
    let start = if path.first() == Some(&b'/') || path.is_empty() {
        Start::Guest { len: 0, deleted: false }
    } else {
        start(rules, guest, call, arg.dir, base, text)?
    };
    let Start::Guest { len, deleted } = start else { return Ok(None) };
    let request =
        Request { root: guest.root(), base: Base { guest: &base[..len], deleted }, path, last: tail(call, arg.last) };
    resolve(&rules.view, guest, &request, buffers).map(Some)
}
