//! Directories too deep to have a path: entered step by step, known to the kernel alone.
//!
//! The trick: such a base is reached by its `/proc` link, and its former directories by `/..` behind that, until one is
//! reached whose path is known. Their part of the guest path is one component that no bind has, [`MARK`].

use super::Walk;
use crate::{Anchor, Errno, Host};

/// Stands for all the directories between the last one that has a path and the base.
const MARK: &[u8] = b"\x01";

/// The current place's part without a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hidden {
    /// Directories that are left between here, or the part of the path that has names, and one that has a path.
    levels: u32,
    /// Length of the guest path that ends in [`MARK`].
    mark: usize,
    /// Where `..` from the anchor would leave what openat2 calls the base.
    steps: u32,
}

impl Hidden {
    /// The current place has no path.
    pub(super) fn is_here(self) -> bool {
        self.levels > 0
    }

    /// The current place, whose guest path is `len` long, is the base itself.
    pub(super) fn is_at_anchor(self, len: usize) -> bool {
        self.levels > 0 && self.steps == 0 && self.mark == len
    }
}

impl<H: Host> Walk<'_, '_, H> {
    /// Goes to the base, which `anchor` leads to.
    pub(super) fn go_to_anchor(&mut self, anchor: Anchor<'_>) -> Result<(), Errno> {
        self.go_to(self.request.base.guest)?;
        self.at.host.set(anchor.host)?;
        self.hide(anchor.levels)
    }

    /// Follows the current `/proc` link to a directory so many levels below the guest path in the first `len` bytes of
    /// `at.link`.
    pub(super) fn go_below(&mut self, len: usize, levels: u32) -> Result<(), Errno> {
        // Its own path stays the way there.
        let mut anchor = [0; 64];
        let host = self.at.host.as_bytes();
        let way = anchor.get_mut(..host.len()).ok_or(Errno::ENAMETOOLONG)?;
        way.copy_from_slice(host);
        self.go_to_link(len)?;
        self.at.host.set(way)?;
        self.hide(levels)
    }

    fn hide(&mut self, levels: u32) -> Result<(), Errno> {
        self.at.guest.push(MARK)?;
        self.hidden = Hidden { levels, mark: self.at.guest.len(), steps: 0 };
        self.node = None;
        self.known_directory = false;
        Ok(())
    }

    /// `..` from a directory without a path; `false` if the current place is none.
    pub(super) fn go_up_hidden(&mut self) -> Result<bool, Errno> {
        if !self.hidden.is_here() || self.at.guest.len() != self.hidden.mark {
            return Ok(false);
        }
        self.hidden.levels -= 1;
        self.hidden.steps += 1;
        if self.hidden.is_here() {
            self.at.host.append(b"/..")?;
        } else {
            let crate::Buffers { guest, link, .. } = &mut *self.at;
            guest.pop();
            let len = guest.len();
            link.get_mut(..len).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(guest.as_bytes());
            self.go_to_link(len)?;
            self.known_directory = true;
        }
        Ok(true)
    }
}
