//! What all threads of a process share and change, without a lock that anybody waits for: a signal handler must not wait for
//! whom it stopped.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering},
};

/// As often is it asked for: others have it for a few instructions.
const TRIES: u32 = 10_000;

/// A value that one thread at a time works with.
pub(crate) struct Guarded<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is looked at and changed only by whoever has set `busy`.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Works with the value; `None` if somebody else does and does not end.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut tries = 0;
        while self.busy.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries > TRIES {
                return None;
            }
            core::hint::spin_loop();
        }
        // SAFETY: `busy` is ours.
        let result = work(unsafe { &mut *self.value.get() });
        self.busy.store(false, Ordering::Release);
        Some(result)
    }
}
