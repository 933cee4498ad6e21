//! A file mode mask (umask(2)) that takes from the owner: the guest's business, in which Coracle itself could not work,
//! for it could not enter its own directories. So it works with a mask of its own until the program is executed.

use std::sync::atomic::{AtomicU32, Ordering};

/// Bits that Coracle needs on what it makes.
const OWNERS: libc::mode_t = 0o700;

/// No mask waits to be put back.
const NONE: u32 = u32::MAX;

/// The mask that the program is to have, if it is not the process's. A process has one mask, and so its copy after a fork.
static WAITING: AtomicU32 = AtomicU32::new(NONE);

/// Lets the owner have what is made from now on. [`put_back`] undoes it.
pub fn spare_owner() {
    // SAFETY: umask changes a number of the process's and touches no memory. It cannot be read without being set.
    let mask = unsafe { libc::umask(0o077) };
    if mask & OWNERS != 0 {
        WAITING.store(mask, Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { libc::umask(mask & !OWNERS) };
}

/// Gives the process the mask that it was started with.
pub fn put_back() {
    let mask = WAITING.load(Ordering::Relaxed);
    if mask != NONE {
        // SAFETY: as in `spare_owner`.
        unsafe { libc::umask(mask) };
    }
}
