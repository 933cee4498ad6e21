//! The script runner: what a new program's process runs first when a tracer loads the program.
//!
//! The tracer executes a tiny ELF file that holds only this code, writes a *script* onto the new stack, and points a
//! register at it. Each row is one system call (or one fill with zeroes); the runner makes them one by one and stops with
//! a breakpoint instruction, on a row that ends the script or on the first failure. Results stay in the rows, so the
//! tracer learns where the kernel put things. Position-independent; needs no stack of its own.
//!
//! A row is nine words of the program's size: flags, number (then result), six arguments, what to subtract for the base.

/// Words per row.
pub const ROW_WORDS: usize = 9;
/// The row's number word holds the result afterwards.
pub const RESULT_WORD: usize = 1;

/// Flags: what a row does beyond its call.
pub mod row {
    /// A call is made.
    pub const CALL: u64 = 1;
    /// The base is added to the first argument.
    pub const ADD_BASE: u64 = 2;
    /// The fifth argument is the descriptor.
    pub const USE_FD_FIFTH: u64 = 4;
    /// The first argument is the descriptor.
    pub const USE_FD_FIRST: u64 = 8;
    /// No call: memory from the first argument on, for as many bytes as the second says, becomes zero.
    pub const ZERO: u64 = 16;
    /// The result is the descriptor from now on.
    pub const SET_FD: u64 = 32;
    /// The result, less the last word, is the base from now on.
    pub const SET_BASE: u64 = 64;
    /// No call: the second argument, with the base added, is stored where the first argument points.
    pub const STORE: u64 = 256;
    /// A failure is passed over.
    pub const MAY_FAIL: u64 = 128;
}

// 64-bit: r12 is the row, rbx the base, ebp the descriptor. It ends in `int3` with rax = 0, or with the failed row in r12
// and the error in rax.
core::arch::global_asm!(
    ".pushsection .rodata.coracle_script,\"a\",@progbits",
    ".globl coracle_script64_start, coracle_script64_end",
    "coracle_script64_start:",
    "2: mov r13, [r12]",
    "test r13, r13",
    "jz 8f",
    "mov rdi, [r12 + 16]",
    "mov rsi, [r12 + 24]",
    "mov rdx, [r12 + 32]",
    "mov r10, [r12 + 40]",
    "mov r8, [r12 + 48]",
    "mov r9, [r12 + 56]",
    "test r13d, 2",
    "jz 3f",
    "add rdi, rbx",
    "3: test r13d, 4",
    "jz 3f",
    "mov r8d, ebp",
    "3: test r13d, 8",
    "jz 3f",
    "mov edi, ebp",
    "3: test r13d, 16",
    "jz 3f",
    "mov rcx, rsi",
    "xor eax, eax",
    "cld",
    "rep stosb",
    "jmp 6f",
    "3: test r13d, 256",
    "jz 3f",
    "add rsi, rbx",
    "mov [rdi], rsi",
    "jmp 6f",
    "3: mov rax, [r12 + 8]",
    "syscall",
    "mov [r12 + 8], rax",
    "test r13d, 128",
    "jnz 4f",
    "cmp rax, -4095",
    "jae 9f",
    "4: test r13d, 32",
    "jz 5f",
    "mov ebp, eax",
    "5: test r13d, 64",
    "jz 6f",
    "mov rbx, rax",
    "sub rbx, [r12 + 64]",
    "6: add r12, 72",
    "jmp 2b",
    "8: xor eax, eax",
    "9: int3",
    "jmp 9b",
    "coracle_script64_end:",
    ".popsection",
);

// 32-bit: every register carries an argument, so esp is the row, and base and descriptor travel in two more words of each
// row (the tenth and eleventh), copied on.
core::arch::global_asm!(
    ".pushsection .rodata.coracle_script,\"a\",@progbits",
    ".globl coracle_script32_start, coracle_script32_end",
    ".code32",
    "coracle_script32_start:",
    "2: mov eax, [esp]",
    "test eax, eax",
    "jz 8f",
    "mov ebx, [esp + 8]",
    "mov ecx, [esp + 12]",
    "mov edx, [esp + 16]",
    "mov esi, [esp + 20]",
    "mov edi, [esp + 24]",
    "mov ebp, [esp + 28]",
    "test eax, 2",
    "jz 3f",
    "add ebx, [esp + 36]",
    "3: test eax, 4",
    "jz 3f",
    "mov edi, [esp + 40]",
    "3: test eax, 8",
    "jz 3f",
    "mov ebx, [esp + 40]",
    "3: test eax, 16",
    "jz 3f",
    "mov edi, ebx",
    "xor eax, eax",
    "cld",
    "rep stosb",
    "jmp 6f",
    "3: test eax, 256",
    "jz 3f",
    "add ecx, [esp + 36]",
    "mov [ebx], ecx",
    "jmp 6f",
    "3: mov eax, [esp + 4]",
    "int 0x80",
    "mov [esp + 4], eax",
    "test dword ptr [esp], 128",
    "jnz 4f",
    "cmp eax, -4095",
    "jae 9f",
    "4: test dword ptr [esp], 32",
    "jz 5f",
    "mov [esp + 40], eax",
    "5: test dword ptr [esp], 64",
    "jz 6f",
    "sub eax, [esp + 32]",
    "mov [esp + 36], eax",
    "6: mov eax, [esp + 36]",
    "mov [esp + 44 + 36], eax",
    "mov eax, [esp + 40]",
    "mov [esp + 44 + 40], eax",
    "add esp, 44",
    "jmp 2b",
    "8: xor eax, eax",
    "9: int3",
    "jmp 9b",
    "coracle_script32_end:",
    ".code64",
    ".popsection",
);

/// Words per row of the 32-bit runner.
pub const ROW_WORDS_32: usize = 11;

unsafe extern "C" {
    static coracle_script64_start: u8;
    static coracle_script64_end: u8;
    static coracle_script32_start: u8;
    static coracle_script32_end: u8;
}

/// Machine code of the 64-bit runner.
#[must_use]
pub fn runner64() -> &'static [u8] {
    between(&raw const coracle_script64_start, &raw const coracle_script64_end)
}

/// Machine code of the 32-bit runner.
#[must_use]
pub fn runner32() -> &'static [u8] {
    between(&raw const coracle_script32_start, &raw const coracle_script32_end)
}

fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: both labels stand in one section of read-only data, `start` before `end` with initialised bytes between them
    // (the assembly above), which lives as long as the program.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}
