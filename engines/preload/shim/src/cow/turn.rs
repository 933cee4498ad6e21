//! The lock of a view: whoever has it changes names.

use core::ffi::CStr;

use coracle_sys::{
    self as sys, Errno, Fd,
    kernel::{__NR_flock, __NR_nanosleep, __NR_sched_yield, LOCK_EX, LOCK_NB, LOCK_UN, O_CLOEXEC, O_RDWR},
};

use crate::{call::raw, files::Held, signals::Blocked};

/// So often others are let go first before sleeping.
const YIELDS: u32 = 16;
/// Nanoseconds of the first sleep; each is longer than the one before.
const FIRST: u64 = 20_000;
const LONGEST: u64 = 5_000_000;
/// Nanoseconds after which it is gone without.
const PATIENCE: u64 = 10_000_000_000;

/// A turn at changing names, until dropped.
pub(crate) struct Turn {
    lock: Option<Held>,
    _blocked: Blocked,
}

impl Turn {
    /// Waits for it. Where there are no locks, renames alone keep order.
    pub(crate) fn wait(path: &CStr) -> Self {
        let blocked = Blocked::all();
        let lock = sys::open(Fd::CWD, path, O_RDWR | O_CLOEXEC, 0).ok().map(Held);
        Self { lock: lock.filter(|lock| take(lock.0)), _blocked: blocked }
    }
}

/// Takes the lock; false if it cannot be had.
fn take(lock: Fd) -> bool {
    let (mut slept, mut sleep) = (0, FIRST);
    for tries in 0_u32.. {
        match sys::check_unit(raw(__NR_flock, [lock.arg(), (LOCK_EX | LOCK_NB) as usize, 0, 0, 0, 0])) {
            Ok(()) => return true,
            Err(Errno::EAGAIN) if slept < PATIENCE => {}
            Err(_) => return false,
        }
        if tries < YIELDS {
            raw(__NR_sched_yield, [0; 6]);
            continue;
        }
        let time = [0, sleep];
        raw(__NR_nanosleep, [time.as_ptr().expose_provenance(), 0, 0, 0, 0, 0]);
        slept += sleep;
        sleep = (sleep + sleep / 4).min(LONGEST);
    }
    false
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // A process that was forked meanwhile has the same open file, so closing is not enough.
            raw(__NR_flock, [lock.0.arg(), LOCK_UN as usize, 0, 0, 0, 0]);
        }
    }
}
