//! What becomes of a fault of ours.
//!
//! Only in the library that is injected: among crates that use the standard library, which has its own handler, a
//! second one cannot be compiled.

use core::panic::PanicInfo;

/// A fault of ours: the process ends as by abort(3).
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    let _ = coracle_sys::write(coracle_sys::Fd(2), b"coracle: preload: internal error\n");
    // SAFETY: an instruction that the processor refuses: SIGILL.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
