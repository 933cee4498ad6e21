//! What a component is: an ordinary file, a link of the tree or a bind, or one of the links in `/proc`.

use super::Walk;
use crate::{Buffers, Errno, Found, Host, Link, Magic, buffers::NAME_MAX, magic::put_number, table, view::DELETED};

/// What a component turned out to be.
pub(super) enum Step {
    /// No link: stay on it.
    Stay(Found),
    /// A link whose target is in `at.link`, this long.
    Link(usize),
    /// A link that leads to the canonical guest path in `at.link`, this long.
    Jump(usize),
    /// A link that leads to a directory that was removed; its former guest path is in `at.link`, this long.
    Gone(usize),
    /// A link that leads to a directory too deep to have a path: so many levels below the guest path in `at.link`.
    Deep(usize, u32),
    /// A link that only the kernel can follow, and the bind that what it leads to lies in, if that is known.
    Kernel(Option<Option<usize>>),
}

impl<H: Host> Walk<'_, '_, H> {
    /// What the current component, just entered, is.
    pub(super) fn step(&mut self, is_last: bool) -> Result<Step, Errno> {
        if self.table().is_some() {
            return self.step_by_table(is_last);
        }
        if self.view.mounts_below(self.at.guest.as_bytes()) {
            // A mount point's path is canonical, so what leads to it is no link.
            return Ok(Step::Stay(Found::Directory));
        }
        if let Some(magic) = Magic::of(self.at.host.as_bytes()).filter(|_| !self.hidden.is_here()) {
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
        match root {
            Some(root) if magic.link == Link::Root => return Ok(Step::Jump(root)),
            Some(_) => {}
            // An open file of another run's, as ranks of one job give each other their shared memory: nothing is resolved
            // in it, and whether one may have it is the kernel's to judge.
            None if is_last && matches!(magic.link, Link::Fd | Link::MapFile) => {}
            None => {
                // Not one of ours: as if in another container. What does not exist, does not, all the same.
                self.outside.readlink(host.as_c_str(), link)?;
                return Err(Errno::EACCES);
            }
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
            Err(Errno::ENAMETOOLONG) => {
                let above = self.outside.ancestor(host.as_c_str(), link)?;
                let room = pending.room();
                let known = self.view.to_guest_as(&link[..above.len], false, room).ok_or(Errno::EACCES)?;
                link.get_mut(..known.len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&room[..known.len]);
                return Ok(Step::Deep(known.len, above.levels));
            }
            Err(errno) => return Err(errno),
        };
        let room = pending.room();
        let deleted = link[..len].ends_with(DELETED) && !self.outside.leads_to(host.as_c_str(), &link[..len]);
        let known = self.view.to_guest_as(&link[..len], deleted, room);
        if is_last && magic.link != Link::Cwd {
            return Ok(Step::Kernel(known.map(|known| known.bind)));
        }
        match known {
            Some(known) if !known.deleted => {
                link.get_mut(..known.len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&room[..known.len]);
                Ok(Step::Jump(known.len))
            }
            _ if is_last => Ok(Step::Kernel(None)),
            Some(known) => {
                let len = known.len - DELETED.len();
                link.get_mut(..len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&room[..len]);
                Ok(Step::Gone(len))
            }
            // A pipe, a socket, or a directory that was open before the guest began.
            None if link.first() != Some(&b'/') => Err(Errno::ENOTDIR),
            None => Err(Errno::EACCES),
        }
    }
}

/// The last component of a path.
pub(super) fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
