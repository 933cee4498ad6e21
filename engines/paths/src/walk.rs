//! The walk: a guest path becomes a host path, component by component, as the kernel would walk it inside a mount
//! namespace of its own.
//!
//! The trick: the guest path of the current place is kept canonical, so a bind is recognised by comparing text, and `..`
//! is a matter of cutting text; the kernel is only asked whether a component is a symbolic link (readlink), or nobody is
//! when the tree has a [`Table`](crate::Table). Rules:
//! - Errors of everything but the last component are found here; what the last one answers, the system call itself says.
//!   So the host path ends as the guest's did: in `/`, `/.` or `/..` where that matters.
//! - The walk never leaves the view: an answer lies below the tree or a bind, or is a `/proc` link that the kernel jumps.
//! - What it costs, for five components without a link below a root of four (one machine, one run, `examples/measure`):
//!   5.6 µs by a readlink per component, 2.4 µs where [`Host::meets_link`] answers, 0.2 µs by a table;
//!   openat2(RESOLVE_IN_ROOT) with readlink of its descriptor takes 5.7 µs and would have to be told of binds, so it is
//!   not used.
//! - No allocation, no recursion; stack under 1 KiB beside the caller's [`Buffers`].

mod bounds;
mod deep;
mod links;

use crate::{
    Anchor, Bounds, Buffers, Ending, Errno, Found, Host, Last, Magic, Manner, PATH_MAX, Request, Resolved, Table, View,
    buffers::{NAME_MAX, PathBuf},
    table::{self, Node},
    view::trim,
};
use deep::Hidden;
use links::Step;

/// Links followed in one walk before [`Errno::ELOOP`]; the kernel's MAXSYMLINKS.
const MAX_LINKS: u32 = 40;

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
    resolve_with(view, host, request, Manner::default(), buffers)
}

/// Resolves one path, as openat2(2) would with [`Bounds`], or from a base that has no path of its own.
///
/// # Errors
/// As [`resolve`], and those of [`Bounds`].
pub fn resolve_with<'b, H: Host>(
    view: &View<'_>,
    host: &H,
    request: &Request<'_>,
    manner: Manner<'_>,
    buffers: &'b mut Buffers,
) -> Result<Resolved<'b>, Errno> {
    if request.path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if request.path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut walk = Walk {
        view,
        outside: host,
        request,
        bounds: manner.bounds,
        at: buffers,
        bind: None,
        node: None,
        hidden: Hidden::default(),
        links: 0,
        known_directory: false,
        root_known: request.path.first() == Some(&b'/') || manner.bounds.any(Bounds::SCOPED),
    };
    walk.at.pending.clear();
    walk.at.pending.put_before(request.path)?;
    let end = walk.run(manner.anchor)?;
    walk.finish(end)
}

/// So many components are asked for at once; fewer are cheaper one by one.
const WORTH_ASKING: usize = 3;

/// How the walk ended, beside the place where it stands.
struct End {
    /// Put behind the host path: `/`, `/.`, `/..` or nothing.
    suffix: &'static [u8],
    found: Found,
    at_base: bool,
    /// In [`Last::Parent`]; for `/` alone the kernel's answer for that is wanted.
    ending: Ending,
    /// The bind of what a `/proc` link leads to.
    behind: Option<Option<usize>>,
}

impl End {
    const fn new(suffix: &'static [u8], found: Found) -> Self {
        Self { suffix, found, at_base: false, ending: Ending::Name, behind: None }
    }
}

struct Walk<'w, 'b, H> {
    view: &'w View<'w>,
    outside: &'w H,
    request: &'w Request<'w>,
    bounds: Bounds,
    at: &'b mut Buffers,
    bind: Option<usize>,
    /// The current place in the tree's table, if it is in the tree and there is a table.
    node: Option<Node>,
    /// The part of the current place that has no path, if it lies below such.
    hidden: Hidden,
    links: u32,
    /// The current place is surely a directory that can be searched.
    known_directory: bool,
    /// The root directory was needed already, or `..` was: see `check_absolute_link`.
    root_known: bool,
}

impl<'b, H: Host> Walk<'_, 'b, H> {
    fn run(&mut self, anchor: Option<Anchor<'_>>) -> Result<End, Errno> {
        if self.request.path[0] == b'/' {
            self.check_absolute()?;
            self.go_to(self.request.root)?;
        } else if let Some(anchor) = anchor {
            self.go_to_anchor(anchor)?;
        } else if self.request.base.deleted {
            let gone = self.request.base.guest;
            self.at.link.get_mut(..gone.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(gone);
            self.go_to(gone)?;
            if let Some(end) = self.leave_deleted(gone.len(), true)? {
                return Ok(end);
            }
        } else {
            self.go_to(self.request.base.guest)?;
            if self.look_up() == Some(Found::File) {
                // A descriptor of a file.
                return Err(Errno::ENOTDIR);
            }
        }
        let mut named = false;
        let mut links = u32::MAX;
        loop {
            if links != self.links {
                links = self.links;
                if self.go_straight()? {
                    return Ok(End::new(b"", Found::Unknown));
                }
            }
            let slashes = self.at.pending.as_bytes().iter().take_while(|byte| **byte == b'/').count();
            self.at.pending.advance(slashes);
            let pending = self.at.pending.as_bytes();
            if pending.is_empty() {
                // The path ended at the root, by `/` alone or by a link to it.
                let ending = if named { Ending::Name } else { Ending::Root };
                return Ok(End { ending, ..End::new(b"", Found::Directory) });
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
                        return Ok(End { ending: Ending::Dot, ..End::new(b"/.", Found::Unknown) });
                    }
                }
                b".." => {
                    self.at.pending.advance(2);
                    // For openat2(2) it is a step like any other.
                    if is_last && self.request.last == Last::Parent && self.bounds == Bounds::default() {
                        return Ok(End { ending: Ending::DotDot, ..End::new(b"/..", Found::Directory) });
                    }
                    let at_root = self.go_up()?;
                    if is_last {
                        return Ok(End::new(if at_root { b"/." } else { b"" }, Found::Directory));
                    }
                }
                _ => {
                    let trail: &'static [u8] = if slash.is_empty() { b"" } else { b"/" };
                    let final_slash = is_last && self.request.last == Last::Create && !trail.is_empty();
                    if is_last && !trail.is_empty() && matches!(self.request.last, Last::Create | Last::Parent) {
                        // openat2(2) that would make it: refused before anything is looked up.
                        self.bounds = Bounds::default();
                    }
                    let mounted = self.go_down(len)?;
                    if is_last && (mounted || final_slash || self.request.last == Last::Parent) {
                        let found = if mounted { Found::NotLink } else { self.look_up().unwrap_or(Found::Unknown) };
                        return Ok(End::new(trail, found));
                    }
                    if is_last && self.request.last == Last::NoFollow && trail.is_empty() {
                        return Ok(End::new(b"", self.look_up().unwrap_or(Found::Unknown)));
                    }
                    if mounted {
                        // A new place to go straight from.
                        links = u32::MAX;
                        continue;
                    }
                    if let Some(end) = self.follow(is_last, trail)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Enters at once all pending components up to the last one, if the kernel meets no link among them; `true` if that
    /// settles the last one too. Otherwise, and where asking is not worth it, nothing changes.
    fn go_straight(&mut self) -> Result<bool, Errno> {
        let pending = self.at.pending.as_bytes();
        let names = || pending.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let follow = matches!(self.request.last, Last::Follow | Last::Create);
        let settles = follow && !pending.ends_with(b"/") && !pending.ends_with(b"/.");
        let count = names().count() - usize::from(!settles && names().next().is_some());
        if count < WORTH_ASKING
            || names().any(|name| name == b"..")
            || self.table().is_some()
            || self.hidden.is_here()
            || self.bounds != Bounds::default()
        {
            return Ok(false);
        }
        let (host_len, guest_len, bind) = (self.at.host.len(), self.at.guest.len(), self.bind);
        let start = self.at.pending.start();
        let mut asked = 0;
        for _ in 0..count {
            let pending = self.at.pending.as_bytes();
            let dots = |at: usize| pending[at..].starts_with(b"./");
            let mut at = 0;
            while pending[at] == b'/' || dots(at) {
                at += 1;
            }
            let len = pending[at..].iter().position(|byte| *byte == b'/').unwrap_or(pending.len() - at);
            self.at.pending.advance(at);
            asked = if self.go_down(len)? { 0 } else { asked + 1 };
        }
        if asked == 0 || self.outside.meets_link(self.at.host.as_c_str()) == Some(false) {
            return Ok(settles);
        }
        // Back to where we were: what was overwritten, if a bind was entered, is made again.
        self.at.pending.rewind(start);
        self.at.guest.truncate(guest_len);
        if self.bind == bind {
            self.at.host.truncate(host_len);
        } else {
            let Buffers { guest, link, .. } = &mut *self.at;
            link.get_mut(..guest_len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(guest.as_bytes());
            self.go_to_link(guest_len)?;
        }
        Ok(false)
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
        self.check_link(&step)?;
        match step {
            Step::Link(0) => Err(Errno::ENOENT),
            Step::Link(len) => {
                // So much text, and still a link: a loop that grows in every round. (Otherwise the kernel would go on; this
                // is the walk's one limit that the kernel has not.)
                self.at.pending.put_before(&self.at.link[..len]).map_err(|_| Errno::ELOOP)?;
                if self.at.link[0] == b'/' {
                    self.check_absolute_link()?;
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
                self.go_to_link(len)?;
                self.known_directory = false;
                if !is_last && self.look_up() == Some(Found::File) {
                    return Err(Errno::ENOTDIR);
                }
                Ok(is_last.then_some(End::new(trail, Found::NotLink)))
            }
            Step::Deep(len, levels) => {
                self.go_below(len, levels)?;
                Ok(is_last.then_some(End::new(trail, Found::Directory)))
            }
            Step::Gone(len) => self.leave_deleted(len, false),
            Step::Kernel(behind) => Ok(Some(End { behind, ..End::new(trail, Found::NotLink) })),
            Step::Stay(found) => Ok(Some(End::new(trail, found))),
        }
    }

    /// The table that the current place is in, if there is one.
    fn table(&self) -> Option<&Table<'_>> {
        self.view.table.as_ref().filter(|_| self.bind.is_none() && !self.hidden.is_here())
    }

    /// The table's word on the current component, if it has one.
    fn look_up(&self) -> Option<Found> {
        let table = self.table()?;
        Some(match self.node.map(|node| table.kind(node)) {
            Some(table::Kind::Directory) => Found::Directory,
            Some(table::Kind::Symlink(_)) => Found::Symlink,
            Some(table::Kind::File) => Found::File,
            // That it is too long is the kernel's to say.
            None if links::name_of(self.at.guest.as_bytes()).len() > NAME_MAX => Found::Unknown,
            None => Found::Missing,
        })
    }

    /// Enters the first `len` bytes of what is pending; whether that is a bind's mount point.
    fn go_down(&mut self, len: usize) -> Result<bool, Errno> {
        let Buffers { host, guest, pending, .. } = &mut *self.at;
        let name = &pending.as_bytes()[..len];
        guest.push(name)?;
        self.known_directory = false;
        let mounted = self.view.mounted_at(guest.as_bytes());
        if let Some(bind) = mounted {
            if self.bounds.any(Bounds::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
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
        self.root_known = true;
        let guest = self.at.guest.as_bytes();
        if guest.is_empty() || guest == trim(self.request.root) {
            self.check_top()?;
            return Ok(true);
        }
        self.check_up()?;
        self.known_directory = true;
        if self.go_up_hidden()? {
            return Ok(false);
        }
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
            self.go_to_link(len)?;
        }
        Ok(false)
    }

    /// Whether `..` may be looked up in the current place: it must be a directory that can be searched.
    fn check_directory(&mut self) -> Result<(), Errno> {
        if self.known_directory {
            return Ok(());
        }
        if let Some(table) = self.table() {
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
        self.hidden = Hidden::default();
        self.known_directory = self.at.guest.len() == 0;
        Ok(())
    }

    /// Goes to the canonical guest path in the first `len` bytes of `at.link`.
    fn go_to_link(&mut self, len: usize) -> Result<(), Errno> {
        let Buffers { host, guest, link, .. } = &mut *self.at;
        (self.bind, self.node) = place(self.view, &link[..len], host, guest)?;
        self.hidden = Hidden::default();
        Ok(())
    }

    fn leave_node(&mut self) {
        if let (Some(table), Some(node)) = (&self.view.table, self.node) {
            self.node = Some(table.parent(node));
        }
    }

    /// What is pending starts in a directory that was removed, whose former guest path is in `at.link`, `len` long:
    /// nothing can be found in it, but it and its parent remain. `base`: it is the request's; otherwise the `/proc` link
    /// that leads to it is the current place.
    fn leave_deleted(&mut self, len: usize, base: bool) -> Result<Option<End>, Errno> {
        loop {
            let pending = self.at.pending.as_bytes();
            let name = pending.iter().position(|byte| *byte == b'/').unwrap_or(pending.len());
            let next = name + pending[name..].iter().take_while(|byte| **byte == b'/').count();
            let is_last = next == pending.len();
            let stays = match &pending[..name] {
                b"" | b"." => is_last,
                b".." => is_last && self.request.last == Last::Parent,
                _ if is_last => true,
                _ => return Err(Errno::ENOENT),
            };
            if stays {
                // The kernel has the directory, and the last word.
                let gone = self.view.holder(trim(&self.at.link[..len])).0;
                let Buffers { host, pending, .. } = &mut *self.at;
                let text = if name == 0 { b"." } else { pending.as_bytes() };
                if base {
                    host.set(text)?
                } else {
                    host.push(text)?
                }
                return Ok(Some(End { at_base: base, behind: Some(gone), ..End::new(b"", Found::Unknown) }));
            }
            self.at.pending.advance(next);
            if name == 2 {
                let parent = self.at.link[..len].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                self.go_to_link(parent)?;
                self.known_directory = true;
                return Ok(is_last.then_some(End::new(b"", Found::Directory)));
            }
        }
    }

    fn finish(self, end: End) -> Result<Resolved<'b>, Errno> {
        let Self { view, at, bind, links, hidden, .. } = self;
        let ending = if self.request.last == Last::Parent { end.ending } else { Ending::Name };
        if ending == Ending::Root {
            at.host.truncate(0);
        }
        let magic = Magic::of(at.host.as_bytes()).filter(|_| !hidden.is_here());
        at.host.append(end.suffix)?;
        let at: &'b Buffers = at;
        let guest = at.guest.as_bytes();
        let mount_point = guest.is_empty() || bind.is_some_and(|bind| view.binds[bind].guest == guest);
        Ok(Resolved {
            host: at.host.as_c_str(),
            guest: if guest.is_empty() { b"/" } else { guest },
            bind,
            read_only: view.read_only(end.behind.unwrap_or(bind)),
            behind: end.behind,
            mount_point,
            magic,
            ending,
            deep: hidden.is_here(),
            found: end.found,
            links,
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
