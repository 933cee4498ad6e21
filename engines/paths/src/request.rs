//! A walk's question and its answer.

use core::ffi::CStr;

use crate::{Magic, PATH_MAX};

/// Where a relative path starts.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Canonical guest path of the working directory or of the directory descriptor.
    pub guest: &'a [u8],
    /// It was removed, and only the kernel can still reach it ([`Resolved::at_base`]).
    pub deleted: bool,
}

/// What the system call does with the last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Follows it if it is a link: stat, open, chdir.
    Follow,
    /// open with `O_CREAT`: follows it, unless a slash follows it, in the path or in a link: that is refused (`EISDIR`) as
    /// soon as its directory is found. See [`Last::for_create`].
    Create,
    /// Does not, unless a slash follows it: lstat, open with `O_NOFOLLOW`, `AT_SYMLINK_NOFOLLOW`, readlink.
    NoFollow,
    /// Makes, removes or renames it, and never follows it: mkdir, mknod, unlink, rmdir, rename, link's and symlink's new
    /// name, bind of a socket.
    Parent,
}

impl Last {
    /// For open with `O_CREAT`; `follow` unless `O_EXCL` or `O_NOFOLLOW` came with it.
    #[must_use]
    pub fn for_create(path: &[u8], follow: bool) -> Self {
        match (follow, path.ends_with(b"/")) {
            (true, _) => Self::Create,
            (false, true) => Self::Parent,
            (false, false) => Self::NoFollow,
        }
    }
}

/// One question to [`resolve`].
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The caller's root directory, a canonical guest path: `/` unless it has called chroot.
    pub root: &'a [u8],
    /// Where `path` starts if it is relative.
    pub base: Base<'a>,
    /// The guest's path, without its NUL.
    pub path: &'a [u8],
    /// What happens to the last component.
    pub last: Last,
}

/// What more there may be to say about a walk; [`resolve_with`](crate::resolve_with).
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    /// What it must not do.
    pub bounds: Bounds,
    /// How to reach a base that is too deep to have a path.
    pub anchor: Option<Anchor<'a>>,
}

/// A base that lies so deep that no path of it is short enough for the kernel to tell. [`Base::guest`] then is the nearest
/// directory above it that has one, in the same bind.
#[derive(Debug, Clone, Copy)]
pub struct Anchor<'a> {
    /// Host path of a `/proc` link that leads to the base.
    pub host: &'a [u8],
    /// How many directories the base lies below [`Base::guest`]; at least one.
    pub levels: u32,
}

/// What a walk must not do: the flags of openat2(2), with its numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds(pub u64);

impl Bounds {
    /// Come to another mount: `EXDEV`.
    pub const NO_XDEV: Self = Self(1);
    /// Follow a magic link of `/proc`: `ELOOP`.
    pub const NO_MAGICLINKS: Self = Self(2);
    /// Follow any link: `ELOOP`.
    pub const NO_SYMLINKS: Self = Self(4);
    /// Leave the base, be it for a moment: `EXDEV`.
    pub const BENEATH: Self = Self(8);
    /// Jump out of the base by a magic link: `EXDEV`. That the base is the root is said by [`Request::root`].
    pub const IN_ROOT: Self = Self(16);

    /// The base is a fence.
    pub(crate) const SCOPED: Self = Self(Self::BENEATH.0 | Self::IN_ROOT.0);

    pub(crate) fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

/// What the last component of a path in [`Last::Parent`] is. The kernel makes, removes and renames names alone, and refuses
/// the rest before it asks what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// Nothing: the path is `/`.
    Root,
}

/// What the walk learned of the last component on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it was not asked for.
    Unknown,
    /// It does not exist.
    Missing,
    /// It exists and is no symbolic link.
    NotLink,
    /// It is a symbolic link, not followed.
    Symlink,
    /// It is a directory.
    Directory,
    /// It is neither directory nor link.
    File,
}

/// The answer, borrowed from the [`Buffers`].
#[derive(Debug)]
pub struct Resolved<'b> {
    /// Path for the system call. Longer than the kernel takes if [`is_long`](Self::is_long).
    pub host: &'b CStr,
    /// Canonical guest path of the same place, without trailing slash.
    pub guest: &'b [u8],
    /// Which of the view's binds it lies in; `None` is the tree.
    pub bind: Option<usize>,
    /// Which bind the file, or the removed directory, lies in that a `/proc` link leads to, where the kernel is to follow it
    /// and that is known.
    pub behind: Option<Option<usize>>,
    /// Writes there answer `EROFS`. (The kernel still says `EEXIST`, `ENOENT`… first where it would.)
    pub read_only: bool,
    /// How the path ended, in [`Last::Parent`].
    pub ending: Ending,
    /// It lies below an [`Anchor`]: `guest` is no path.
    pub deep: bool,
    /// It is a bind's mount point (or `/`): removing or renaming it answers `EBUSY`.
    pub mount_point: bool,
    /// The last component is a `/proc` link that the kernel itself must follow, or whose text must be translated.
    pub magic: Option<Magic>,
    /// What is known of the last component.
    pub found: Found,
    /// How many links were followed.
    pub links: u32,
    /// The base was deleted and the path names just it: leave the descriptor (or working directory) as it is and pass
    /// `host`, a relative path.
    pub at_base: bool,
}

impl Resolved<'_> {
    /// Whether the host path is too long for one call, though the guest's was not: open a directory on the way first.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.host.count_bytes() >= PATH_MAX
    }
}
