//! Functions with `...`, which stable Rust cannot define: entries that make an array of their arguments.
//!
//! The trick: arguments in registers are pushed onto the stack right before those that are there already, so that all of
//! them lie in a row; the return address moves below, and back.

use core::{
    arch::naked_asm,
    ffi::{c_char, c_int},
};

use crate::{call, libc, names::exec, state};

macro_rules! lists {
    ($($name:ident by $work:path;)+) => {
        $(
            /// A path in rdi; the arguments from rsi on.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn $name(path: *const c_char, first: *const c_char) -> c_int {
                naked_asm!(
                    "pop rax",
                    "push r9",
                    "push r8",
                    "push rcx",
                    "push rdx",
                    "push rsi",
                    "mov rsi, rsp",
                    "push rax",
                    "call {work}",
                    "pop rcx",
                    "add rsp, 40",
                    "push rcx",
                    "ret",
                    work = sym $work,
                )
            }
        )+
    };
}

lists! {
    execl by exec::execute_list;
    execlp by exec::search_list;
    execle by exec::execute_list_and_environment;
}

/// syscall(2). What means nothing here is made with no frame of ours on the stack: it may be one that returns on another.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn syscall(number: usize) -> isize {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",
        "call {matters}",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2f",
        "push qword ptr [rsp + 8]",
        "push r9",
        "push r8",
        "push rcx",
        "push rdx",
        "push rsi",
        "mov rsi, rsp",
        "sub rsp, 8",
        "call {make}",
        "add rsp, 56",
        "ret",
        "2: mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3: mov rdi, rax",
        "jmp {fail}",
        matters = sym matters,
        make = sym make,
        fail = sym fail,
    )
}

unsafe extern "C" fn matters(number: usize) -> bool {
    const CLONE: u32 = coracle_sys::kernel::__NR_clone;
    const CLONE3: u32 = coracle_sys::kernel::__NR_clone3;
    match u32::try_from(number) {
        Ok(CLONE | CLONE3) | Err(_) => false,
        Ok(number) => call::matters(state::get(), number),
    }
}

unsafe extern "C" fn make(number: usize, args: *const [usize; 6]) -> isize {
    // SAFETY: the array that `syscall` made on the stack.
    libc::answer(call::call(u32::try_from(number).unwrap_or(u32::MAX), unsafe { *args }))
}

unsafe extern "C" fn fail(result: isize) -> isize {
    libc::answer(result)
}
