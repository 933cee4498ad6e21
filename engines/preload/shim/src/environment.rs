//! The environment of this process, as it was started.

use core::{
    ffi::{CStr, c_char},
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::arch;

/// The environment as the loader handed it to our constructor, if it did.
static HANDED: AtomicPtr<*mut c_char> = AtomicPtr::new(core::ptr::null_mut());

/// glibc hands constructors the environment, before or beside which it may not have set `environ` yet.
pub(crate) fn handed(environment: *mut *mut c_char) {
    if arch::gnu_get_libc_version() {
        HANDED.store(environment, Ordering::Relaxed);
    }
}

/// The pointers of the environment, the null at their end not counted.
pub(crate) fn pointers() -> *mut *mut c_char {
    let handed = HANDED.load(Ordering::Relaxed);
    if !handed.is_null() {
        return handed;
    }
    // SAFETY: the C library's own variable, which it has set before any constructor runs.
    arch::environment().map_or(core::ptr::null_mut(), |environ| unsafe { *environ })
}

/// The value of a variable.
pub(crate) fn value(name: &[u8]) -> Option<&'static CStr> {
    let mut at = pointers();
    if at.is_null() {
        return None;
    }
    // SAFETY: an array of pointers to NUL-terminated strings that ends in a null, as exec(3) makes it. Strings of the first
    // environment stay where they are.
    unsafe {
        while !(*at).is_null() {
            let text = CStr::from_ptr(*at);
            if let Some(rest) = text.to_bytes().strip_prefix(name)
                && rest.first() == Some(&b'=')
            {
                return Some(CStr::from_ptr((*at).add(name.len() + 1)));
            }
            at = at.add(1);
        }
    }
    None
}

/// Host path of the run's description.
pub(crate) fn description() -> Option<&'static CStr> {
    value(coracle_entry::RUN.as_bytes())
}
