//! References to symbols that some C libraries lack: weak, so that the loader leaves them null there.
//!
//! `dlsym` stood in a library of its own before glibc 2.34, which a process may not have.

use core::{
    arch::{asm, global_asm},
    ffi::{CStr, c_char, c_void},
};

global_asm!(".weak dlsym", ".weak gnu_get_libc_version", ".weak environ");

/// `dlsym(RTLD_NEXT, name)`: what the name would mean without the shim; null if nobody has it, or nobody can be asked.
pub(crate) fn lookup(name: &CStr) -> *const c_void {
    const RTLD_NEXT: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);
    let dlsym: usize;
    // SAFETY: reads the address of a symbol from the global offset table, which the loader has filled.
    unsafe { asm!("mov {}, [rip + dlsym@GOTPCREL]", out(reg) dlsym, options(pure, readonly, nostack)) };
    if dlsym == 0 {
        return core::ptr::null();
    }
    // SAFETY: the symbol's type is the C library's: dlsym(3).
    let dlsym: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void =
        unsafe { core::mem::transmute(core::ptr::with_exposed_provenance::<c_void>(dlsym)) };
    // SAFETY: a NUL-terminated name; the caller's object is the shim, so that the next one is searched from there.
    unsafe { dlsym(RTLD_NEXT, name.as_ptr()) }
}

/// Whether the C library is glibc.
pub(crate) fn gnu_get_libc_version() -> bool {
    let address: usize;
    // SAFETY: as in `lookup`; the symbol is only compared with null.
    unsafe {
        asm!("mov {}, [rip + gnu_get_libc_version@GOTPCREL]", out(reg) address, options(pure, readonly, nostack));
    };
    address != 0
}

/// The C library's `environ`, where it is.
pub(crate) fn environment() -> Option<*mut *mut *mut c_char> {
    let address: usize;
    // SAFETY: as in `lookup`.
    unsafe { asm!("mov {}, [rip + environ@GOTPCREL]", out(reg) address, options(pure, readonly, nostack)) };
    (address != 0).then(|| core::ptr::with_exposed_provenance_mut(address))
}
