//! Where the C library's own system calls come to: one stub for each site, and the way from there into Rust.
//!
//! A site is `mov eax, NUMBER` or `mov esi, FLAGS`, perhaps instructions that move other registers, `syscall`. Of that the
//! first five bytes become a jump to the site's stub, and nothing else changes, so that code which jumps behind them
//! goes on as before. A stub begins with those other instructions ([`put`]), and goes on behind the `syscall`, with
//! what the kernel would have left: all registers but rax, rcx and r11, the vector registers and the red zone.

use core::{
    arch::{global_asm, naked_asm},
    sync::atomic::{AtomicU32, AtomicUsize},
};

/// As many sites can be taken; the C libraries have up to fifty that matter.
pub(crate) const STUBS: usize = 128;

/// Bytes from one stub to the next.
const STRIDE: usize = 64;

/// Bytes of a stub that are left for a site's other instructions.
pub(crate) const ROOM: usize = coracle_entry::ROOM;

/// What a stub calls, and where it goes on.
pub(crate) static NUMBERS: [AtomicU32; STUBS] = [const { AtomicU32::new(0) }; STUBS];
pub(crate) static RETURNS: [AtomicUsize; STUBS] = [const { AtomicUsize::new(0) }; STUBS];

global_asm!(
    ".pushsection .text.coracle_stubs, \"ax\", @progbits",
    ".balign 4096",
    ".hidden coracle_stubs",
    "coracle_stubs:",
    ".set stub, 0",
    ".rept {stubs}",
    ".balign 64",
    ".fill {room}, 1, 0x90",
    "lea rsp, [rsp - 128]",
    "push stub",
    "call {enter}",
    "lea rsp, [rsp + 136]",
    "jmp qword ptr [rip + {returns} + stub * 8]",
    ".set stub, stub + 1",
    ".endr",
    // Nothing else is in these pages.
    ".balign 4096",
    ".popsection",
    stubs = const STUBS,
    room = const ROOM,
    enter = sym enter,
    returns = sym RETURNS,
);

/// The address of the stubs' pages, and how long they are.
pub(crate) fn pages() -> (usize, usize) {
    let first: usize;
    // SAFETY: the address of a symbol of our own.
    unsafe {
        core::arch::asm!("lea {}, [rip + coracle_stubs]", out(reg) first, options(pure, nomem, nostack));
    }
    (first, (STUBS * STRIDE).next_multiple_of(4096))
}

/// Where a stub is entered whose site has so many bytes of other instructions.
pub(crate) fn entry(number: usize, len: usize) -> usize {
    pages().0 + number * STRIDE + ROOM - len
}

/// Writes a site's other instructions.
///
/// # Safety
/// The stubs' pages can be written to, the instructions are at most [`ROOM`] bytes and mean the same everywhere, and nobody
/// has jumped to the stub yet.
pub(crate) unsafe fn put(number: usize, instructions: &[u8]) {
    let at = core::ptr::with_exposed_provenance_mut::<u8>(entry(number, instructions.len()));
    // SAFETY: the caller's promise.
    unsafe { at.copy_from_nonoverlapping(instructions.as_ptr(), instructions.len()) };
}

/// From a stub: its number lies above the return address. The six arguments become an array, the result stays in rax,
/// where the number may have been.
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push r9",
        "push r8",
        "push r10",
        "push rdx",
        "push rsi",
        "push rdi",
        "mov rdi, [rbp + 16]",
        "mov rsi, rsp",
        "mov edx, eax",
        "sub rsp, 256",
        "and rsp, -16",
        "movaps [rsp], xmm0",
        "movaps [rsp + 16], xmm1",
        "movaps [rsp + 32], xmm2",
        "movaps [rsp + 48], xmm3",
        "movaps [rsp + 64], xmm4",
        "movaps [rsp + 80], xmm5",
        "movaps [rsp + 96], xmm6",
        "movaps [rsp + 112], xmm7",
        "movaps [rsp + 128], xmm8",
        "movaps [rsp + 144], xmm9",
        "movaps [rsp + 160], xmm10",
        "movaps [rsp + 176], xmm11",
        "movaps [rsp + 192], xmm12",
        "movaps [rsp + 208], xmm13",
        "movaps [rsp + 224], xmm14",
        "movaps [rsp + 240], xmm15",
        "cld",
        "call {made}",
        "movaps xmm0, [rsp]",
        "movaps xmm1, [rsp + 16]",
        "movaps xmm2, [rsp + 32]",
        "movaps xmm3, [rsp + 48]",
        "movaps xmm4, [rsp + 64]",
        "movaps xmm5, [rsp + 80]",
        "movaps xmm6, [rsp + 96]",
        "movaps xmm7, [rsp + 112]",
        "movaps xmm8, [rsp + 128]",
        "movaps xmm9, [rsp + 144]",
        "movaps xmm10, [rsp + 160]",
        "movaps xmm11, [rsp + 176]",
        "movaps xmm12, [rsp + 192]",
        "movaps xmm13, [rsp + 208]",
        "movaps xmm14, [rsp + 224]",
        "movaps xmm15, [rsp + 240]",
        "lea rsp, [rbp - 48]",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop r10",
        "pop r8",
        "pop r9",
        "pop rbp",
        "ret",
        made = sym crate::sites::made,
    )
}
