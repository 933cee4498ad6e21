//! References to symbols that some C libraries lack: weak, so that the loader leaves them null there.
//!
//! `dlsym` stood in a library of its own before glibc 2.34, which most processes do not have. What does its work was in
//! the C library then, by another name, which went when `dlsym` came.

use core::{
    arch::{asm, global_asm},
    ffi::{CStr, c_char, c_void},
};

global_asm!(
    ".weak dlsym",
    ".weak _dl_sym",
    ".weak gnu_get_libc_version",
    ".weak environ",
    ".weak program_invocation_name",
    ".weak program_invocation_short_name",
    ".weak __progname",
    ".weak __progname_full",
);

/// The address of a weak symbol, from the global offset table, which the loader has filled; 0: there is none.
macro_rules! address {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads a word of our own table.
        unsafe {
            asm!(concat!("mov {}, [rip + ", $name, "@GOTPCREL]"), out(reg) address, options(pure, readonly, nostack));
        }
        address
    }};
}

/// Whether there is somebody to ask for [`lookup`]: not so before the loader has relocated us.
pub(crate) fn can_look_up() -> bool {
    (address!("dlsym"), address!("_dl_sym")) != (0, 0)
}

/// `dlsym(RTLD_NEXT, name)`: what the name would mean without the shim; null if nobody has it, or nobody can be asked.
pub(crate) fn lookup(name: &CStr) -> *const c_void {
    const RTLD_NEXT: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);
    type Lookup = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    /// Who asks is told: it returns to somebody else than `dlsym` would.
    type LookupFor = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_void) -> *mut c_void;
    let (dlsym, within) = (address!("dlsym"), address!("_dl_sym"));
    let at = core::ptr::with_exposed_provenance::<c_void>;
    // SAFETY: the symbols' types are the C library's: dlsym(3), and the function of glibc's that it calls; a NUL-terminated
    // name; who asks is the shim, so that the next one is searched from there.
    unsafe {
        match (dlsym, within) {
            (0, 0) => core::ptr::null(),
            (0, within) => {
                let lookup_for: LookupFor = core::mem::transmute(at(within));
                lookup_for(RTLD_NEXT, name.as_ptr(), lookup as *const c_void)
            }
            (dlsym, _) => {
                let lookup: Lookup = core::mem::transmute(at(dlsym));
                lookup(RTLD_NEXT, name.as_ptr())
            }
        }
    }
}

/// Whether the C library is glibc.
pub(crate) fn gnu_get_libc_version() -> bool {
    address!("gnu_get_libc_version") != 0
}

/// Variables of the C library's that hold pointers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Variable {
    /// `environ`.
    Environment,
    /// `program_invocation_name`, or musl's own name for it.
    Name,
    /// `program_invocation_short_name`, likewise.
    ShortName,
}

/// Where a variable is, if this C library has it.
pub(crate) fn variable(which: Variable) -> Option<*mut *mut c_void> {
    let or = |first: usize, second: usize| if first == 0 { second } else { first };
    let address = match which {
        Variable::Environment => address!("environ"),
        Variable::Name => or(address!("program_invocation_name"), address!("__progname_full")),
        Variable::ShortName => or(address!("program_invocation_short_name"), address!("__progname")),
    };
    (address != 0).then(|| core::ptr::with_exposed_provenance_mut(address))
}
