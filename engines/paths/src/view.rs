//! The guest's view of the host: a tree at `/`, and host places bound into it.
//!
//! A bind acts as a mount: it hides what the tree has at its guest path (a symbolic link too), `..` from it leads to its
//! guest parent, and an absolute link inside it starts at the guest's root. Of binds at nested paths the deepest wins, of
//! binds at one path the last.
//!
//! Rules for whoever makes a view:
//! - host paths are absolute and canonical (realpath(3)), so that what the kernel says of a descriptor can be found again;
//! - guest paths are absolute and canonical *in the view*: no link above them. [`View::mount_point`] finds such a path.
//! - a mount point whose parents the tree lacks gets them by a bind of its own: an empty skeleton directory.

use crate::{Errno, Table, buffers::PATH_MAX};

/// One host place inside the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Canonical guest path; not `/`.
    pub guest: &'a [u8],
    /// Canonical host path of a file or directory.
    pub host: &'a [u8],
    /// Writes answer `EROFS`.
    pub read_only: bool,
}

/// What a guest sees. Borrows everything: it can live in a mapping shared by all processes of a run.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Canonical host path of the tree, without trailing slash: `/` is the empty string.
    pub(crate) root: &'a [u8],
    pub(crate) root_read_only: bool,
    /// Sorted by guest path, no two equal.
    pub(crate) binds: &'a [Bind<'a>],
    /// Bit n: [`trace`] of some bind's guest path is n. Most components are no mount point, and so are known at once.
    traces: [u64; TRACES / 64],
    /// The tree's names, if it never changes.
    pub(crate) table: Option<Table<'a>>,
}

/// Why a view cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewError {
    /// The root, or a bind's host path (by its number), is not absolute and plain, or too long.
    HostPath(Option<usize>),
    /// A bind's guest path is not absolute and plain, is `/`, or is too long.
    GuestPath(usize),
    /// The binds are not in the order of [`arrange`].
    Order(usize),
}

/// A place that the host calls by some path, in the guest's terms: see [`View::to_guest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPath {
    /// Length of the path written.
    pub len: usize,
    /// Which bind it lies in; `None` is the tree.
    pub bind: Option<usize>,
    /// The kernel says that the file has no name any more (the written text keeps ` (deleted)`).
    pub deleted: bool,
}

/// What the kernel appends to the path of a file that was unlinked.
pub const DELETED: &[u8] = b" (deleted)";

/// So many traces there are.
const TRACES: usize = 512;

/// What is looked at of a guest path before it is compared with all mount points: two that differ here are two paths.
#[inline]
fn trace(guest: &[u8]) -> usize {
    let byte = |at: usize| guest.get(at).map_or(0, |byte| usize::from(*byte));
    let len = guest.len();
    (len * 67 + byte(len / 2) * 13 + byte(len.wrapping_sub(1)) * 5) % TRACES
}

/// Sorts binds as a view needs them and drops each that a later one at the same place covers; returns how many are left
/// at the front.
pub fn arrange(binds: &mut [Bind<'_>]) -> usize {
    let mut kept = 0;
    for at in 0..binds.len() {
        let bind = binds[at];
        match binds[..kept].binary_search_by(|other| other.guest.cmp(bind.guest)) {
            Ok(same) => binds[same] = bind,
            Err(place) => {
                // binds[kept] is either `bind` itself or one already handled.
                binds.copy_within(place..kept, place + 1);
                binds[place] = bind;
                kept += 1;
            }
        }
    }
    kept
}

impl<'a> View<'a> {
    /// A view of the tree at host path `root` with `binds` as [`arrange`] leaves them.
    ///
    /// # Errors
    /// A path that breaks the rules of the module header, as far as its text tells.
    pub fn new(root: &'a [u8], root_read_only: bool, binds: &'a [Bind<'a>]) -> Result<Self, ViewError> {
        if root != b"/" && !plain(root) {
            return Err(ViewError::HostPath(None));
        }
        for (at, bind) in binds.iter().enumerate() {
            if bind.host != b"/" && !plain(bind.host) {
                return Err(ViewError::HostPath(Some(at)));
            }
            if !plain(bind.guest) {
                return Err(ViewError::GuestPath(at));
            }
            if at > 0 && binds[at - 1].guest >= bind.guest {
                return Err(ViewError::Order(at));
            }
        }
        let mut traces = [0; TRACES / 64];
        for bind in binds {
            let trace = trace(bind.guest);
            traces[trace / 64] |= 1 << (trace % 64);
        }
        Ok(Self { root: trim(root), root_read_only, binds, traces, table: None })
    }

    /// The same view, with the tree's names answered from `table`. Only for a tree that nobody changes.
    #[must_use]
    pub fn with_table(mut self, table: Table<'a>) -> Self {
        self.table = Some(table);
        self
    }

    /// The table of the tree's names, if it has one.
    #[must_use]
    pub fn table(&self) -> Option<&Table<'a>> {
        self.table.as_ref()
    }

    /// Host path of the tree.
    #[must_use]
    pub fn root(&self) -> &'a [u8] {
        if self.root.is_empty() { b"/" } else { self.root }
    }

    /// The binds, as given.
    #[must_use]
    pub fn binds(&self) -> &'a [Bind<'a>] {
        self.binds
    }

    /// Whether writes below this bind (`None`: in the tree) answer `EROFS`.
    #[must_use]
    pub fn read_only(&self, bind: Option<usize>) -> bool {
        bind.map_or(self.root_read_only, |at| self.binds[at].read_only)
    }

    /// Host path of a bind's root, or with `None` of the tree's; `/` is the empty string.
    #[must_use]
    pub fn host_root(&self, bind: Option<usize>) -> &'a [u8] {
        bind.map_or(self.root, |at| trim(self.binds[at].host))
    }

    /// The bind whose mount point is exactly this canonical guest path.
    #[inline]
    #[must_use]
    pub fn mounted_at(&self, guest: &[u8]) -> Option<usize> {
        let trace = trace(guest);
        if self.traces[trace / 64] >> (trace % 64) & 1 == 0 {
            return None;
        }
        self.binds.iter().position(|bind| bind.guest == guest)
    }

    /// Whether some bind's mount point lies strictly below this canonical guest path (renaming or removing it would move
    /// the mount point: `EBUSY`).
    #[must_use]
    pub fn mounts_below(&self, guest: &[u8]) -> bool {
        let guest = trim(guest);
        self.binds.iter().any(|bind| below(bind.guest, guest).is_some_and(|rest| !rest.is_empty()))
    }

    /// The bind that this canonical guest path lies in; `None` is the tree.
    #[must_use]
    pub fn mount_of(&self, guest: &[u8]) -> Option<usize> {
        self.holder(trim(guest)).0
    }

    /// The deepest bind that holds this canonical guest path, and the host path of its root.
    pub(crate) fn holder(&self, guest: &[u8]) -> (Option<usize>, &'a [u8], usize) {
        let mut best = (None, self.root, 0);
        for (at, bind) in self.binds.iter().enumerate() {
            if bind.guest.len() > best.2 && below(guest, bind.guest).is_some() {
                best = (Some(at), trim(bind.host), bind.guest.len());
            }
        }
        best
    }

    /// What the guest calls a place that the host calls `host` (absolute, as the kernel writes it: getcwd, `/proc` links,
    /// a ` (deleted)` at the end kept), written to `guest`; `None` if the guest cannot see it, or there is no room.
    ///
    /// Of several names the one of the longest host prefix wins, as long as no other bind hides it.
    #[must_use]
    pub fn to_guest(&self, host: &[u8], guest: &mut [u8]) -> Option<GuestPath> {
        self.to_guest_as(host, host.ends_with(DELETED), guest)
    }

    /// As [`to_guest`](Self::to_guest), where it is known whether a ` (deleted)` at the end is the kernel's word or
    /// the file's name.
    #[must_use]
    pub fn to_guest_as(&self, host: &[u8], deleted: bool, guest: &mut [u8]) -> Option<GuestPath> {
        let name = if deleted { host.strip_suffix(DELETED).unwrap_or(host) } else { host };
        let mut best: Option<(Option<usize>, usize)> = None;
        for at in core::iter::once(None).chain((0..self.binds.len()).map(Some)) {
            let (prefix, mount) = match at {
                None => (self.root, &b""[..]),
                Some(at) => (trim(self.binds[at].host), self.binds[at].guest),
            };
            let Some(rest) = below(name, prefix) else { continue };
            if best.is_some_and(|(_, len)| len > prefix.len()) {
                continue;
            }
            if !self.hidden(at, mount, if rest == b"/" { b"" } else { rest }) {
                best = Some((at, prefix.len()));
            }
        }
        let (bind, prefix) = best?;
        let mount = bind.map_or(&b""[..], |at| self.binds[at].guest);
        let mut len = 0;
        let mut put = |text: &[u8]| -> Option<()> {
            guest.get_mut(len..len + text.len())?.copy_from_slice(text);
            len += text.len();
            Some(())
        };
        let rest = &name[prefix..];
        put(mount)?;
        put(if rest == b"/" { b"" } else { rest })?;
        if mount.is_empty() && (rest.is_empty() || rest == b"/") {
            put(b"/")?;
        }
        if deleted {
            put(DELETED)?;
        }
        Some(GuestPath { len, bind, deleted })
    }

    /// Whether another bind covers `mount` + `rest`, which is reached through bind `by`.
    fn hidden(&self, by: Option<usize>, mount: &[u8], rest: &[u8]) -> bool {
        self.binds.iter().enumerate().any(|(at, bind)| {
            Some(at) != by
                && bind.guest.len() > mount.len()
                && below(bind.guest, mount).is_some_and(|inner| below(rest, inner).is_some())
        })
    }
}

/// `path` after `dir`, if it is `dir` or lies below it; the rest is empty or starts with a slash.
pub(crate) fn below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(dir)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// Without the slash of a lone `/`.
pub(crate) fn trim(path: &[u8]) -> &[u8] {
    if path == b"/" { b"" } else { path }
}

/// Absolute, no empty, `.` or `..` components, no NUL, no trailing slash, short enough for one call.
fn plain(path: &[u8]) -> bool {
    path.len() < PATH_MAX
        && path.first() == Some(&b'/')
        && !path.contains(&0)
        && path[1..].split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

impl ViewError {
    /// The nearest error number.
    #[must_use]
    pub fn errno(self) -> Errno {
        Errno::EINVAL
    }
}
