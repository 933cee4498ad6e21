//! What openat2(2) lets its caller forbid, checked at every step, as the kernel does.
//!
//! The kernel's mounts are the view's binds here: from one to another is `EXDEV`.

use super::{Walk, links::Step};
use crate::{Bounds, Errno, Host, view::trim};

impl<H: Host> Walk<'_, '_, H> {
    /// An absolute path begins.
    pub(super) fn check_absolute(&self) -> Result<(), Errno> {
        if self.bounds.any(Bounds::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// A link is to be followed.
    pub(super) fn check_link(&self, step: &Step) -> Result<(), Errno> {
        if self.bounds.any(Bounds::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if matches!(step, Step::Stay(_) | Step::Link(_)) || self.bounds == Bounds::default() {
            return Ok(());
        }
        if self.bounds.any(Bounds::NO_MAGICLINKS) {
            return Err(Errno::ELOOP);
        }
        let leaves = match step {
            Step::Jump(len) => self.view.holder(trim(&self.at.link[..*len])).0 != self.bind,
            _ => true,
        };
        if self.bounds.any(Bounds::SCOPED) || leaves && self.bounds.any(Bounds::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    /// A link's text is absolute.
    pub(super) fn check_absolute_link(&mut self) -> Result<(), Errno> {
        self.check_absolute()?;
        // The kernel compares with a root that it may not have looked up yet, which is no mount then.
        let known = core::mem::replace(&mut self.root_known, true);
        let leaves = || !known || self.view.holder(trim(self.request.root)).0 != self.bind;
        if self.bounds.any(Bounds::NO_XDEV) && leaves() { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// `..` in the caller's root directory.
    pub(super) fn check_top(&self) -> Result<(), Errno> {
        if self.bounds.any(Bounds::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// `..` elsewhere.
    pub(super) fn check_up(&self) -> Result<(), Errno> {
        let guest = self.at.guest.as_bytes();
        let from_base = || guest == trim(self.request.base.guest) || self.hidden.is_at_anchor(guest.len());
        if self.bounds.any(Bounds::BENEATH) && from_base() {
            return Err(Errno::EXDEV);
        }
        let from_mount = || self.bind.is_some_and(|bind| self.view.binds[bind].guest == guest);
        if self.bounds.any(Bounds::NO_XDEV) && from_mount() { Err(Errno::EXDEV) } else { Ok(()) }
    }
}
