//! Calls that make a process, or take one apart: what of them a guest may not have.
//!
//! In a user or mount namespace of its own a guest could lay its files out anew, which no rule here would see. A child that
//! asks not to be traced would lose its tracer, and every call of the table with it.

use crate::{
    Call, Errno, Guest,
    enter::Verdict,
    errno::EPERM,
    leave::After,
    meaning::{CLONE_NEWNS, CLONE_NEWUSER, CLONE_UNTRACED, Outside},
};

/// unshare(2).
pub(crate) fn unshare(call: &Call) -> Result<Verdict, Errno> {
    if call.arg(0) & (CLONE_NEWNS | CLONE_NEWUSER) == 0 { Ok(Verdict::Pass) } else { Err(EPERM) }
}

/// clone(2): the flags come first in both interfaces.
pub(crate) fn clone(call: &mut Call) -> Result<Verdict, Errno> {
    if call.arg(0) & (CLONE_NEWNS | CLONE_NEWUSER) != 0 {
        return Err(EPERM);
    }
    if call.arg(0) & CLONE_UNTRACED == 0 {
        return Ok(Verdict::Pass);
    }
    call.args[0] &= !CLONE_UNTRACED;
    Ok(Verdict::Make { after: After::Nothing, outside: Outside::No })
}

/// clone3(2): the flags are the first word of its structure.
pub(crate) fn clone3<G: Guest>(guest: &G, call: &Call) -> Result<Verdict, Errno> {
    let mut flags = [0; 8];
    if call.arg(1) < 64 || guest.read(call.arg(0), &mut flags).is_err() {
        // The kernel says what is wrong with it.
        return Ok(Verdict::Pass);
    }
    let flags = u64::from_ne_bytes(flags);
    if flags & (CLONE_NEWNS | CLONE_NEWUSER) != 0 {
        return Err(EPERM);
    }
    if flags & CLONE_UNTRACED != 0 {
        guest.write(call.arg(0), &(flags & !CLONE_UNTRACED).to_ne_bytes())?;
    }
    Ok(Verdict::Pass)
}
