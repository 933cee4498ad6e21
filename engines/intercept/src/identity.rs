//! Whom a guest takes itself for, where the host knows it by another id.

use crate::{Call, Errno, Guest, meaning::Id};

/// The ids that a guest sees, and those that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// User id on the host.
    pub host_uid: u32,
    /// Group id on the host.
    pub host_gid: u32,
}

impl Identity {
    /// Whether the guest is told other ids than the kernel's.
    #[must_use]
    pub fn pretends(&self) -> bool {
        self.uid != self.host_uid || self.gid != self.host_gid
    }

    /// The owner that the guest sees of a file that the host says is `uid`'s.
    #[must_use]
    pub fn shown_uid(&self, uid: u32) -> u32 {
        if uid == self.host_uid { self.uid } else { uid }
    }

    /// The group that the guest sees of a file that the host says is `gid`'s.
    #[must_use]
    pub fn shown_gid(&self, gid: u32) -> u32 {
        if gid == self.host_gid { self.gid } else { gid }
    }

    pub(crate) fn id(&self, id: Id) -> u32 {
        match id {
            Id::User => self.uid,
            Id::Group => self.gid,
        }
    }

    /// getresuid(2) and getresgid(2).
    pub(crate) fn write_ids<G: Guest>(&self, guest: &G, call: &Call, id: Id) -> Result<i64, Errno> {
        for address in &call.args[..3] {
            guest.write(*address, &self.id(id).to_ne_bytes())?;
        }
        Ok(0)
    }
}
