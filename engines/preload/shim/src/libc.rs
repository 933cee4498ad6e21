//! What the shim asks of the C library that it was loaded with: no more than every glibc and musl has.

use core::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::arch;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    /// malloc(3).
    pub(crate) fn malloc(len: usize) -> *mut c_void;
    /// realloc(3).
    pub(crate) fn realloc(memory: *mut c_void, len: usize) -> *mut c_void;
    /// free(3).
    pub(crate) fn free(memory: *mut c_void);
    /// fdopen(3).
    pub(crate) fn fdopen(descriptor: c_int, mode: *const c_char) -> *mut c_void;
    /// fdopendir(3).
    pub(crate) fn fdopendir(descriptor: c_int) -> *mut c_void;
}

/// Sets `errno`.
pub(crate) fn set_errno(number: u16) {
    // SAFETY: the C library's own promise: an int of this thread's.
    unsafe { *__errno_location() = c_int::from(number) };
}

/// This thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: as in `set_errno`.
    unsafe { *__errno_location() }
}

/// A kernel's result as the C library gives it.
pub(crate) fn answer(result: isize) -> isize {
    match u16::try_from(result.wrapping_neg()) {
        Ok(number @ 1..=4095) => {
            set_errno(number);
            -1
        }
        _ => result,
    }
}

/// A function of the C library's that the shim has one of the same name for.
pub(crate) struct Next {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Next {
    /// Not looked for yet.
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// Where it is; `None` if this C library has none, or cannot be asked.
    pub(crate) fn get(&self) -> Option<usize> {
        match self.address.load(Ordering::Relaxed) {
            0 => {
                // Before the loader is done with us nobody can be asked, later somebody can.
                if !arch::can_look_up() {
                    return None;
                }
                let found = arch::lookup(self.name).expose_provenance();
                self.address.store(if found == 0 { usize::MAX } else { found }, Ordering::Relaxed);
                Some(found).filter(|found| *found != 0)
            }
            usize::MAX => None,
            found => Some(found),
        }
    }
}
