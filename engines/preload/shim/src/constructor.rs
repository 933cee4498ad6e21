//! What happens when the library is loaded, and when it fails.

use core::{
    ffi::{c_char, c_int},
    panic::PanicInfo,
};

use crate::{environment, state};

/// Runs before the program's `main`, though not before constructors of other libraries. musl hands it nothing.
unsafe extern "C" fn constructor(_: c_int, _: *mut *mut c_char, environment: *mut *mut c_char) {
    environment::handed(environment);
    state::get();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = constructor;

/// A fault of ours: the process ends as by abort(3).
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    let _ = coracle_sys::write(coracle_sys::Fd(2), b"coracle: preload: internal error\n");
    loop {
        // SAFETY: an instruction that the processor refuses: SIGILL.
        unsafe { core::arch::asm!("ud2", options(noreturn)) }
    }
}
