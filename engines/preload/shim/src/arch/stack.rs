//! More of the stack, for arguments whose number only the call tells: what execve(2) needs must not be in memory that a
//! child of vfork(2) would leave behind in its parent.

use core::{arch::naked_asm, mem::MaybeUninit, slice};

/// Calls `work` with this many bytes of stack, aligned to 16, and gives its result.
pub(crate) fn with_stack<F: FnOnce(&mut [MaybeUninit<u8>]) -> isize>(size: usize, work: F) -> isize {
    unsafe extern "C" fn enter<F: FnOnce(&mut [MaybeUninit<u8>]) -> isize>(
        work: *mut Option<F>,
        memory: *mut MaybeUninit<u8>,
        size: usize,
    ) -> isize {
        // SAFETY: `with_stack` hands itself the closure, and memory of that size, which nobody else has.
        let (work, memory) = unsafe { ((*work).take(), slice::from_raw_parts_mut(memory, size)) };
        work.map_or(-1, |work| work(memory))
    }
    let mut work = Some(work);
    // SAFETY: `enter` gets the pointer that it is made for, and the memory below this frame.
    unsafe { grow(size.next_multiple_of(16), (&raw mut work).cast(), enter::<F> as *const ()) }
}

/// Moves the stack down by `size` (rdi) and calls `enter` (rdx) with `work` (rsi), the memory's address, and its size.
#[unsafe(naked)]
unsafe extern "C" fn grow(size: usize, work: *mut (), enter: *const ()) -> isize {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rax, rdx",
        "mov rdx, rdi",
        "mov rdi, rsi",
        // A page after the other, so that a guard page is met and not passed.
        "mov rcx, rdx",
        "2: cmp rcx, 4096",
        "jb 3f",
        "sub rsp, 4096",
        "or qword ptr [rsp], 0",
        "sub rcx, 4096",
        "jmp 2b",
        "3: sub rsp, rcx",
        "and rsp, -16",
        "mov rsi, rsp",
        "call rax",
        "leave",
        "ret",
    )
}
