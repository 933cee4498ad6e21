//! Signals held back while this thread does what a handler must not come between.

use coracle_sys::kernel::{__NR_rt_sigpending, __NR_rt_sigprocmask, __NR_rt_sigtimedwait, SIG_SETMASK, SIGXFSZ};

use crate::call::raw;

/// Bytes of the kernel's set of signals.
const SIZE: usize = 8;
const FILE_SIZE: u64 = 1 << (SIGXFSZ - 1);

/// All signals are blocked in this thread, until dropped.
pub(crate) struct Blocked(u64);

impl Blocked {
    pub(crate) fn all() -> Self {
        let (all, mut before) = (u64::MAX, 0_u64);
        let (new, old) = (core::ptr::from_ref(&all).expose_provenance(), (&raw mut before).expose_provenance());
        raw(__NR_rt_sigprocmask, [SIG_SETMASK as usize, new, old, SIZE, 0, 0]);
        Self(before)
    }

    /// Takes back the signal that a write of ours got for reaching the guest's limit of a file's size, if it came now.
    pub(crate) fn without_file_size<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = pending() & FILE_SIZE != 0;
        let result = work();
        if !before && pending() & FILE_SIZE != 0 {
            let (set, now) = (FILE_SIZE, [0_u64; 2]);
            let (set, now) = (core::ptr::from_ref(&set).expose_provenance(), now.as_ptr().expose_provenance());
            raw(__NR_rt_sigtimedwait, [set, 0, now, SIZE, 0, 0]);
        }
        result
    }
}

fn pending() -> u64 {
    let mut set = 0_u64;
    raw(__NR_rt_sigpending, [(&raw mut set).expose_provenance(), SIZE, 0, 0, 0, 0]);
    set
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let before = core::ptr::from_ref(&self.0).expose_provenance();
        raw(__NR_rt_sigprocmask, [SIG_SETMASK as usize, before, 0, SIZE, 0, 0]);
    }
}
