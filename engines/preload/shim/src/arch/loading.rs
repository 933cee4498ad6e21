//! dlopen(3), entered without a frame of ours: whose RUNPATH is searched, and in which namespace, the loader tells by the
//! address to which it will return.

use core::{
    arch::naked_asm,
    ffi::{c_char, c_int, c_long, c_void},
};

use crate::names::loading;

/// Continues in the C library's own, with the path as the host has it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "push rsi",
        "call {pick}",
        "pop rsi",
        "mov rdi, rdx",
        "jmp rax",
        pick = sym loading::pick_dlopen,
    )
}

/// As [`dlopen`].
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlmopen(namespace: c_long, path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rdx",
        "sub rsp, 8",
        "mov rdi, rsi",
        "call {pick}",
        "mov rsi, rdx",
        "add rsp, 8",
        "pop rdx",
        "pop rdi",
        "jmp rax",
        pick = sym loading::pick_dlmopen,
    )
}
