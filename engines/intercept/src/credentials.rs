//! A guest thread's credentials as the guest believes them to be, and the kernel's rules for changing them.
//!
//! credentials(7), capabilities(7). The host's ids never change; what a pretended root may do follows from these. Root has
//! the capabilities that Docker leaves it, so that programs find the same limits here as there.

use crate::{Errno, errno::EPERM};

/// Capabilities that matter here, by their numbers in capabilities(7).
pub(crate) mod cap {
    pub(crate) const CHOWN: u32 = 0;
    pub(crate) const DAC_OVERRIDE: u32 = 1;
    pub(crate) const FOWNER: u32 = 3;
    pub(crate) const FSETID: u32 = 4;
    pub(crate) const SETGID: u32 = 6;
    pub(crate) const SETUID: u32 = 7;
    pub(crate) const SETPCAP: u32 = 8;
    pub(crate) const SYS_CHROOT: u32 = 18;
    pub(crate) const MKNOD: u32 = 27;
    /// The newest that is known (CAP_CHECKPOINT_RESTORE).
    pub(crate) const LAST: u32 = 40;
    /// What Docker leaves to root by default.
    pub(crate) const OF_ROOT: u64 = 0xa804_25fb;
    /// Those that go and come with a file system uid of 0 (`CAP_FS_SET`).
    pub(crate) const OF_FILES: u64 = 0x1_0800_021f;
}

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP` and `SECBIT_KEEP_CAPS`.
const NO_ROOT: u32 = 1;
const NO_FIXUP: u32 = 4;
pub(crate) const KEEP_CAPS: u32 = 16;
/// All bits there are, each with its lock above it.
const SECURE_BITS: u32 = 0xff;

/// An id argument that means "as it is".
pub(crate) const KEEP: u32 = u32::MAX;

/// Real, effective, saved and file system id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved set-user-ID or set-group-ID.
    pub saved: u32,
    /// The one that counts where files are concerned.
    pub files: u32,
}

/// Capability sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Permitted.
    pub permitted: u64,
    /// Effective.
    pub effective: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
}

/// All that a thread's rights follow from, but its supplementary groups, which the transport keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// User ids.
    pub user: Ids,
    /// Group ids.
    pub group: Ids,
    /// Capabilities.
    pub caps: Caps,
    /// prctl(2), `PR_SET_SECUREBITS`.
    pub secure_bits: u32,
    /// prctl(2), `PR_SET_NO_NEW_PRIVS`, as the guest itself set it.
    pub no_new_privileges: bool,
}

impl Ids {
    const fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn holds(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2), setgid(2); `able` has `CAP_SETUID` or `CAP_SETGID`.
    fn set(self, id: u32, able: bool) -> Result<Self, Errno> {
        match id {
            KEEP => Err(Errno::EINVAL),
            id if able => Ok(Self::all(id)),
            id if id == self.real || id == self.saved => Ok(Self { effective: id, files: id, ..self }),
            _ => Err(EPERM),
        }
    }

    /// setreuid(2), setregid(2).
    fn set_two(self, real: u32, effective: u32, able: bool) -> Result<Self, Errno> {
        let mut new = self;
        if real != KEEP {
            new.real = real;
            if !able && real != self.real && real != self.effective {
                return Err(EPERM);
            }
        }
        if effective != KEEP {
            new.effective = effective;
            if !able && !self.holds(effective) {
                return Err(EPERM);
            }
        }
        if real != KEEP || effective != KEEP && effective != self.real {
            new.saved = new.effective;
        }
        new.files = new.effective;
        Ok(new)
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, [real, effective, saved]: [u32; 3], able: bool) -> Result<Self, Errno> {
        if !able && [real, effective, saved].iter().any(|id| *id != KEEP && !self.holds(*id)) {
            return Err(EPERM);
        }
        let or = |new: u32, old: u32| if new == KEEP { old } else { new };
        let effective = or(effective, self.effective);
        Ok(Self { real: or(real, self.real), effective, saved: or(saved, self.saved), files: effective })
    }

    /// setfsuid(2), setfsgid(2), which tell of no error.
    fn set_files(self, id: u32, able: bool) -> Self {
        if id != KEEP && (able || self.holds(id) || id == self.files) { Self { files: id, ..self } } else { self }
    }
}

impl Credentials {
    /// Those of a run's first process.
    #[must_use]
    pub fn first(uid: u32, gid: u32) -> Self {
        let own = if uid == 0 { cap::OF_ROOT } else { 0 };
        let caps = Caps { permitted: own, effective: own, inheritable: 0, bounding: cap::OF_ROOT, ambient: 0 };
        Self { user: Ids::all(uid), group: Ids::all(gid), caps, secure_bits: 0, no_new_privileges: false }
    }

    /// Whether this capability is effective.
    #[must_use]
    pub fn can(&self, capability: u32) -> bool {
        self.caps.effective >> capability & 1 != 0
    }

    /// Those of setuid(2), with the `ids` asked for as setuid takes them.
    pub(crate) fn set_uid(&self, id: u32) -> Result<Self, Errno> {
        self.user.set(id, self.can(cap::SETUID)).map(|user| self.with_user(user))
    }

    /// setreuid(2).
    pub(crate) fn set_reuid(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        self.user.set_two(real, effective, self.can(cap::SETUID)).map(|user| self.with_user(user))
    }

    /// setresuid(2).
    pub(crate) fn set_resuid(&self, ids: [u32; 3]) -> Result<Self, Errno> {
        self.user.set_three(ids, self.can(cap::SETUID)).map(|user| self.with_user(user))
    }

    /// setfsuid(2).
    pub(crate) fn set_fsuid(&self, id: u32) -> Self {
        let mut new = *self;
        new.user = self.user.set_files(id, self.can(cap::SETUID));
        if self.secure_bits & NO_FIXUP == 0 {
            match (self.user.files, new.user.files) {
                (0, 1..) => new.caps.effective &= !cap::OF_FILES,
                (1.., 0) => new.caps.effective |= new.caps.permitted & cap::OF_FILES,
                _ => {}
            }
        }
        new
    }

    /// setgid(2).
    pub(crate) fn set_gid(&self, id: u32) -> Result<Self, Errno> {
        Ok(Self { group: self.group.set(id, self.can(cap::SETGID))?, ..*self })
    }

    /// setregid(2).
    pub(crate) fn set_regid(&self, real: u32, effective: u32) -> Result<Self, Errno> {
        Ok(Self { group: self.group.set_two(real, effective, self.can(cap::SETGID))?, ..*self })
    }

    /// setresgid(2).
    pub(crate) fn set_resgid(&self, ids: [u32; 3]) -> Result<Self, Errno> {
        Ok(Self { group: self.group.set_three(ids, self.can(cap::SETGID))?, ..*self })
    }

    /// setfsgid(2).
    pub(crate) fn set_fsgid(&self, id: u32) -> Self {
        Self { group: self.group.set_files(id, self.can(cap::SETGID)), ..*self }
    }

    /// Capabilities follow the user ids ("Effect of user ID changes on capabilities").
    fn with_user(&self, user: Ids) -> Self {
        let mut new = Self { user, ..*self };
        if self.secure_bits & NO_FIXUP != 0 {
            return new;
        }
        if self.user.holds(0) && !user.holds(0) {
            if self.secure_bits & KEEP_CAPS == 0 {
                (new.caps.permitted, new.caps.effective) = (0, 0);
            }
            new.caps.ambient = 0;
        }
        match (self.user.effective, user.effective) {
            (0, 1..) => new.caps.effective = 0,
            (1.., 0) => new.caps.effective = new.caps.permitted,
            _ => {}
        }
        new
    }

    /// capset(2).
    pub(crate) fn set_caps(&self, effective: u64, permitted: u64, inheritable: u64) -> Result<Self, Errno> {
        let old = &self.caps;
        let beyond = |new: u64, limit: u64| new & !limit != 0;
        if !self.can(cap::SETPCAP) && beyond(inheritable, old.inheritable | old.permitted)
            || beyond(inheritable, old.inheritable | old.bounding)
            || beyond(permitted, old.permitted)
            || beyond(effective, permitted)
        {
            return Err(EPERM);
        }
        let ambient = old.ambient & permitted & inheritable;
        Ok(Self { caps: Caps { permitted, effective, inheritable, ambient, ..*old }, ..*self })
    }

    /// prctl(2), `PR_CAPBSET_DROP`.
    pub(crate) fn drop_bound(&self, capability: u32) -> Result<Self, Errno> {
        if !self.can(cap::SETPCAP) {
            return Err(EPERM);
        }
        if capability > cap::LAST {
            return Err(Errno::EINVAL);
        }
        let caps = Caps { bounding: self.caps.bounding & !(1 << capability), ..self.caps };
        Ok(Self { caps, ..*self })
    }

    /// prctl(2), `PR_SET_SECUREBITS`.
    pub(crate) fn set_secure_bits(&self, bits: u32) -> Result<Self, Errno> {
        let old = self.secure_bits;
        // Every second bit locks the one below it.
        let locks = old & 0xaa;
        let unlocked = locks & !bits != 0;
        let changed = (old ^ bits) & (locks >> 1) != 0;
        if unlocked || changed || bits & !SECURE_BITS != 0 || !self.can(cap::SETPCAP) {
            return Err(EPERM);
        }
        Ok(Self { secure_bits: bits, ..*self })
    }

    /// What execve(2) makes of them: `owner` are the ids of a program with its set-user-ID and set-group-ID bits. Also
    /// whether the program is to be told that it runs in secure mode (`AT_SECURE`).
    #[must_use]
    pub fn after_exec(&self, set_user: Option<u32>, set_group: Option<u32>) -> (Self, bool) {
        let mut new = *self;
        if !self.no_new_privileges {
            new.user.effective = set_user.unwrap_or(self.user.effective);
            new.group.effective = set_group.unwrap_or(self.group.effective);
        }
        let changed = new.user.effective != self.user.effective || new.group.effective != self.group.effective;
        let raised = changed || new.user.effective != self.user.real || new.group.effective != self.group.real;
        let as_root = self.secure_bits & NO_ROOT == 0 && (new.user.effective == 0 || new.user.real == 0);
        let old = self.caps;
        if raised {
            new.caps.ambient = 0;
        }
        let granted = if as_root { old.bounding | old.inheritable } else { 0 };
        new.caps.permitted = granted | new.caps.ambient;
        let full = as_root && new.user.effective == 0;
        new.caps.effective = if full { new.caps.permitted } else { new.caps.ambient };
        (new.user.saved, new.user.files) = (new.user.effective, new.user.effective);
        (new.group.saved, new.group.files) = (new.group.effective, new.group.effective);
        new.secure_bits &= !KEEP_CAPS;
        let secure = raised || new.user.real != 0 && (full || new.caps.permitted & !new.caps.ambient != 0);
        (new, secure)
    }
}
