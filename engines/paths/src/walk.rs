//! The walk: a guest path becomes a host path, component by component, as the kernel would walk it inside a mount
//! namespace of its own.
//!
//! The trick: the guest path of the current place is kept canonical, so a bind is recognised by comparing text, and `..`
//! is a matter of cutting text; the kernel is only asked whether a component is a symbolic link (readlink), or nobody is
//! when the tree has a [`Table`](crate::Table). Rules:
//! - Errors of everything but the last component are found here; what the last one answers, the system call itself says.
//!   So the host path ends as the guest's did: in `/`, `/.` or `/..` where that matters.
//! - The walk never leaves the view: an answer lies below the tree or a bind, or is a `/proc` link that the kernel jumps.
//! - No allocation, no recursion; stack under 1 KiB beside the caller's [`Buffers`].

use core::ffi::CStr;

use crate::{
    Buffers, Errno, Host, Link, Magic, PATH_MAX, View,
    buffers::{NAME_MAX, PathBuf},
    magic::put_number,
    table::{self, Node},
    view::trim,
};

/// Links followed in one walk before [`Errno::ELOOP`]; the kernel's MAXSYMLINKS.
const MAX_LINKS: u32 = 40;

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
    /// Follows it if it is a link: stat, open, chdir, and also open with `O_CREAT`.
    Follow,
    /// Does not, unless a slash follows it: lstat, open with `O_NOFOLLOW`, `AT_SYMLINK_NOFOLLOW`, readlink.
    NoFollow,
    /// Makes, removes or renames it, and never follows it: mkdir, mknod, unlink, rmdir, rename, link's and symlink's new
    /// name, bind of a socket.
    Parent,
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
    /// Writes there answer `EROFS`. (The kernel still says `EEXIST`, `ENOENT`… first where it would.)
    pub read_only: bool,
    /// It is a bind's mount point (or `/`): removing or renaming it answers `EBUSY`.
    pub mount_point: bool,
    /// The last component is a `/proc` link that the kernel itself must follow, or whose text must be translated.
    pub magic: Option<Magic>,
    /// What is known of the last component.
    pub found: Found,
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

/// Resolves one path.
///
/// # Errors
/// What the kernel would answer inside the guest's own mount namespace: `ENOENT` (also for an empty path: `AT_EMPTY_PATH`
/// is the caller's matter), `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, or what [`Host::readlink`] says.
pub fn resolve<'b, H: Host>(
    view: &View<'_>,
    host: &H,
    request: &Request<'_>,
    buffers: &'b mut Buffers,
) -> Result<Resolved<'b>, Errno> {
    if request.path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if request.path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut walk =
        Walk { view, outside: host, request, at: buffers, bind: None, node: None, links: 0, known_directory: false };
    walk.at.pending.clear();
    walk.at.pending.put_before(request.path)?;
    let end = walk.run()?;
    walk.finish(end)
}

/// How the walk ended, beside the place where it stands.
struct End {
    /// Put behind the host path: `/`, `/.`, `/..` or nothing.
    suffix: &'static [u8],
    found: Found,
    at_base: bool,
    /// The path was nothing but slashes, in [`Last::Parent`]: the kernel's answer for `/` is wanted.
    only_root: bool,
    /// Differs from what the place says, as at a `/proc` link.
    read_only: Option<bool>,
}

impl End {
    const fn new(suffix: &'static [u8], found: Found) -> Self {
        Self { suffix, found, at_base: false, only_root: false, read_only: None }
    }
}

struct Walk<'w, 'b, H> {
    view: &'w View<'w>,
    outside: &'w H,
    request: &'w Request<'w>,
    at: &'b mut Buffers,
    bind: Option<usize>,
    /// The current place in the tree's table, if it is in the tree and there is a table.
    node: Option<Node>,
    links: u32,
    /// The current place is surely a directory that can be searched.
    known_directory: bool,
}

/// What a component turned out to be.
enum Step {
    /// No link: stay on it.
    Stay(Found),
    /// A link whose target is in `at.link`, this long.
    Link(usize),
    /// A link that leads to the canonical guest path in `at.link`, this long.
    Jump(usize),
    /// A link that only the kernel can follow, and whether what it leads to is read-only, if that is known.
    Kernel(Option<bool>),
}

impl<'b, H: Host> Walk<'_, 'b, H> {
    fn run(&mut self) -> Result<End, Errno> {
        if self.request.path[0] == b'/' {
            self.go_to(self.request.root)?;
        } else if self.request.base.deleted {
            if let Some(end) = self.leave_deleted()? {
                return Ok(end);
            }
        } else {
            self.go_to(self.request.base.guest)?;
        }
        let mut named = false;
        loop {
            let slashes = self.at.pending.as_bytes().iter().take_while(|byte| **byte == b'/').count();
            self.at.pending.advance(slashes);
            let pending = self.at.pending.as_bytes();
            if pending.is_empty() {
                // The path ended at the root, by `/` alone or by a link to it.
                let only_root = self.request.last == Last::Parent && !named;
                return Ok(End { only_root, ..End::new(b"", Found::Directory) });
            }
            let len = pending.iter().position(|byte| *byte == b'/').unwrap_or(pending.len());
            let rest = &pending[len..];
            let is_last = rest.iter().all(|byte| *byte == b'/');
            let slash: &[u8] = if rest.is_empty() { b"" } else { b"/" };
            named = true;
            match &pending[..len] {
                b"." => {
                    self.at.pending.advance(1);
                    if is_last {
                        return Ok(End::new(b"/.", Found::Unknown));
                    }
                }
                b".." => {
                    self.at.pending.advance(2);
                    if is_last && self.request.last == Last::Parent {
                        return Ok(End::new(b"/..", Found::Directory));
                    }
                    let at_root = self.go_up()?;
                    if is_last {
                        return Ok(End::new(if at_root { b"/." } else { b"" }, Found::Directory));
                    }
                }
                _ => {
                    let mounted = self.go_down(len)?;
                    let trail: &'static [u8] = if slash.is_empty() { b"" } else { b"/" };
                    if is_last && (mounted || self.request.last == Last::Parent) {
                        let found = if mounted { Found::NotLink } else { self.look_up().unwrap_or(Found::Unknown) };
                        return Ok(End::new(trail, found));
                    }
                    if is_last && self.request.last == Last::NoFollow && trail.is_empty() {
                        return Ok(End::new(b"", self.look_up().unwrap_or(Found::Unknown)));
                    }
                    if mounted {
                        continue;
                    }
                    if let Some(end) = self.follow(is_last, trail)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Follows the current component if it is a link; the end, if this was the last component and is now decided.
    fn follow(&mut self, is_last: bool, trail: &'static [u8]) -> Result<Option<End>, Errno> {
        let step = self.step(is_last)?;
        if let Step::Stay(found) = step {
            return Ok(is_last.then_some(End::new(trail, found)));
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        match step {
            Step::Link(0) => Err(Errno::ENOENT),
            Step::Link(len) => {
                self.at.pending.put_before(&self.at.link[..len])?;
                if self.at.link[0] == b'/' {
                    self.go_to(self.request.root)?;
                } else {
                    // The link itself is no mount point, so its directory lies in the same bind.
                    self.at.guest.pop();
                    self.at.host.pop();
                    self.leave_node();
                    self.known_directory = true;
                }
                Ok(None)
            }
            Step::Jump(len) => {
                let Buffers { host, guest, link, .. } = &mut *self.at;
                (self.bind, self.node) = place(self.view, &link[..len], host, guest)?;
                self.known_directory = false;
                Ok(is_last.then_some(End::new(trail, Found::NotLink)))
            }
            Step::Kernel(read_only) => Ok(Some(End { read_only, ..End::new(trail, Found::NotLink) })),
            Step::Stay(found) => Ok(Some(End::new(trail, found))),
        }
    }

    /// What the current component, just entered, is.
    fn step(&mut self, is_last: bool) -> Result<Step, Errno> {
        if self.view.mounts_below(self.at.guest.as_bytes()) {
            // A mount point's path is canonical, so what leads to it is no link.
            return Ok(Step::Stay(Found::Directory));
        }
        if self.bind.is_none() && self.view.table.is_some() {
            return self.step_by_table(is_last);
        }
        if let Some(magic) = Magic::of(self.at.host.as_bytes()) {
            return self.step_by_magic(magic, is_last);
        }
        match self.outside.readlink(self.at.host.as_c_str(), &mut self.at.link) {
            Ok(len) => Ok(Step::Link(len.min(self.at.link.len()))),
            Err(Errno::EINVAL) => Ok(Step::Stay(Found::NotLink)),
            Err(Errno::ENOENT) if is_last => Ok(Step::Stay(Found::Missing)),
            Err(errno) => Err(errno),
        }
    }

    fn step_by_table(&mut self, is_last: bool) -> Result<Step, Errno> {
        let Some(table) = &self.view.table else { return Err(Errno::ENOENT) };
        match self.node.map(|node| table.kind(node)) {
            Some(table::Kind::Directory) => Ok(Step::Stay(Found::Directory)),
            Some(table::Kind::Symlink(target)) => {
                let room = self.at.link.get_mut(..target.len()).ok_or(Errno::ENAMETOOLONG)?;
                room.copy_from_slice(target);
                Ok(Step::Link(target.len()))
            }
            Some(table::Kind::File) if is_last => Ok(Step::Stay(Found::File)),
            Some(table::Kind::File) => Err(Errno::ENOTDIR),
            None if name_of(self.at.guest.as_bytes()).len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            None if is_last => Ok(Step::Stay(Found::Missing)),
            None => Err(Errno::ENOENT),
        }
    }

    /// The table's word on the current component, if it has one.
    fn look_up(&self) -> Option<Found> {
        let table = self.view.table.as_ref().filter(|_| self.bind.is_none())?;
        Some(match self.node.map(|node| table.kind(node)) {
            Some(table::Kind::Directory) => Found::Directory,
            Some(table::Kind::Symlink(_)) => Found::Symlink,
            Some(table::Kind::File) => Found::File,
            None => Found::Missing,
        })
    }

    /// A link in `/proc`; existence, and the right to look at it, are the kernel's to judge.
    fn step_by_magic(&mut self, magic: Magic, is_last: bool) -> Result<Step, Errno> {
        let caller = self.outside.caller();
        let Buffers { host, pending, link, .. } = &mut *self.at;
        match magic.link {
            Link::OwnPid => return Ok(Step::Link(put_number(caller.pid, link))),
            Link::OwnThread => {
                let mut len = put_number(caller.pid, link);
                link[len..len + 6].copy_from_slice(b"/task/");
                len += 6;
                return Ok(Step::Link(len + put_number(caller.tid, &mut link[len..])));
            }
            Link::Namespace if is_last => return Ok(Step::Kernel(None)),
            Link::Namespace => return Err(Errno::ENOTDIR),
            Link::Exe | Link::Cwd | Link::Root | Link::Fd | Link::MapFile => {}
        }
        let root = if magic.pid == caller.pid || magic.pid == caller.tid {
            let root = self.request.root;
            link.get_mut(..root.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(root);
            Some(root.len())
        } else {
            self.outside.root_of(magic.pid, link)
        };
        let Some(root) = root else {
            // Not one of ours: as if in another container. What does not exist, does not, all the same.
            self.outside.readlink(host.as_c_str(), link)?;
            return Err(Errno::EACCES);
        };
        if magic.link == Link::Root {
            return Ok(Step::Jump(root));
        }
        if magic.link == Link::Exe {
            return match self.outside.exe_of(magic.pid, link) {
                Some(len) => Ok(Step::Jump(len)),
                None if is_last => Ok(Step::Kernel(None)),
                None => Err(Errno::ENOTDIR),
            };
        }
        let len = match self.outside.readlink(host.as_c_str(), link) {
            Ok(len) => len.min(link.len()),
            Err(Errno::ENOENT) if is_last => return Ok(Step::Stay(Found::Missing)),
            Err(errno) => return Err(errno),
        };
        let room = pending.room();
        let known = self.view.to_guest(&link[..len], room);
        if is_last && magic.link != Link::Cwd {
            return Ok(Step::Kernel(known.map(|known| self.view.read_only(known.bind))));
        }
        match known {
            Some(known) if !known.deleted => {
                link.get_mut(..known.len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&room[..known.len]);
                Ok(Step::Jump(known.len))
            }
            _ if is_last => Ok(Step::Kernel(None)),
            Some(_) => Err(Errno::ENOENT),
            // A pipe, a socket, or a directory that was open before the guest began.
            None if link.first() != Some(&b'/') => Err(Errno::ENOTDIR),
            None => Err(Errno::EACCES),
        }
    }

    /// Enters the first `len` bytes of what is pending; whether that is a bind's mount point.
    fn go_down(&mut self, len: usize) -> Result<bool, Errno> {
        let Buffers { host, guest, pending, .. } = &mut *self.at;
        let name = &pending.as_bytes()[..len];
        guest.push(name)?;
        self.known_directory = false;
        let mounted = self.view.mounted_at(guest.as_bytes());
        if let Some(bind) = mounted {
            host.set(trim(self.view.binds[bind].host))?;
            self.bind = mounted;
            self.node = None;
        } else {
            host.push(name)?;
            if let (Some(table), Some(node)) = (&self.view.table, self.node) {
                self.node = table.child(node, name);
            }
        }
        pending.advance(len);
        Ok(mounted.is_some())
    }

    /// Goes to the parent directory; `true` if it was the caller's root, which is its own parent.
    fn go_up(&mut self) -> Result<bool, Errno> {
        self.check_directory()?;
        let guest = self.at.guest.as_bytes();
        if guest.is_empty() || guest == trim(self.request.root) {
            return Ok(true);
        }
        self.known_directory = true;
        let Buffers { host, guest, link, .. } = &mut *self.at;
        guest.pop();
        let mount = self.bind.map_or(0, |bind| self.view.binds[bind].guest.len());
        if guest.len() >= mount {
            host.pop();
            self.leave_node();
        } else {
            // Out of a bind: into whatever holds its mount point.
            let len = guest.len();
            link.get_mut(..len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(guest.as_bytes());
            (self.bind, self.node) = place(self.view, &link[..len], host, guest)?;
        }
        Ok(false)
    }

    /// Whether `..` may be looked up in the current place: it must be a directory that can be searched.
    fn check_directory(&mut self) -> Result<(), Errno> {
        if self.known_directory {
            return Ok(());
        }
        if self.bind.is_none()
            && let Some(table) = &self.view.table
        {
            return match self.node.map(|node| table.kind(node)) {
                Some(table::Kind::Directory) => Ok(()),
                Some(_) => Err(Errno::ENOTDIR),
                None => Err(Errno::ENOENT),
            };
        }
        let Buffers { host, link, .. } = &mut *self.at;
        let len = host.len();
        host.append(b"/.")?;
        let answer = self.outside.readlink(host.as_c_str(), link);
        host.truncate(len);
        match answer {
            Ok(_) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Goes to a canonical guest path.
    fn go_to(&mut self, path: &[u8]) -> Result<(), Errno> {
        (self.bind, self.node) = place(self.view, path, &mut self.at.host, &mut self.at.guest)?;
        self.known_directory = self.at.guest.len() == 0;
        Ok(())
    }

    fn leave_node(&mut self) {
        if let (Some(table), Some(node)) = (&self.view.table, self.node) {
            self.node = Some(table.parent(node));
        }
    }

    /// A relative path from a directory that was removed: nothing can be found in it, but it and its parent remain.
    fn leave_deleted(&mut self) -> Result<Option<End>, Errno> {
        loop {
            let pending = self.at.pending.as_bytes();
            let len = pending.iter().position(|byte| *byte == b'/').unwrap_or(pending.len());
            let next = len + pending[len..].iter().take_while(|byte| **byte == b'/').count();
            let is_last = next == pending.len();
            match &pending[..len] {
                b"." => {
                    self.at.pending.advance(next);
                    if is_last {
                        self.go_to(self.request.base.guest)?;
                        return Ok(Some(End { at_base: true, ..End::new(b".", Found::Directory) }));
                    }
                }
                b".." => {
                    self.at.pending.advance(next);
                    self.go_to(self.request.base.guest)?;
                    if is_last && self.request.last == Last::Parent {
                        return Ok(Some(End { at_base: true, ..End::new(b"..", Found::Directory) }));
                    }
                    self.known_directory = true;
                    self.go_up()?;
                    return Ok(is_last.then_some(End::new(b"", Found::Directory)));
                }
                _ => return Err(Errno::ENOENT),
            }
        }
    }

    fn finish(self, end: End) -> Result<Resolved<'b>, Errno> {
        let Self { view, at, bind, .. } = self;
        if end.only_root || end.at_base {
            at.host.truncate(0);
        }
        at.host.append(end.suffix)?;
        let at: &'b Buffers = at;
        let guest = at.guest.as_bytes();
        let mount_point = guest.is_empty() || bind.is_some_and(|bind| view.binds[bind].guest == guest);
        Ok(Resolved {
            host: at.host.as_c_str(),
            guest: if guest.is_empty() { b"/" } else { guest },
            bind,
            read_only: end.read_only.unwrap_or_else(|| view.read_only(bind)),
            mount_point,
            magic: Magic::of(at.host.as_bytes()),
            found: end.found,
            at_base: end.at_base,
        })
    }
}

/// Writes host and guest path of a canonical guest path; the bind and the table's node it lies in.
fn place(
    view: &View<'_>,
    path: &[u8],
    host: &mut PathBuf,
    guest: &mut PathBuf,
) -> Result<(Option<usize>, Option<Node>), Errno> {
    let path = trim(path);
    let (bind, prefix, mount) = view.holder(path);
    guest.set(path)?;
    host.set(prefix)?;
    host.append(&path[mount..])?;
    let node = view.table.as_ref().filter(|_| bind.is_none()).and_then(|table| table.find(path));
    Ok((bind, node))
}

/// The last component of a path.
fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
