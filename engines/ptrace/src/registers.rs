//! The general registers of a stopped tracee, as a system call sees them.

use std::mem;

use coracle_intercept::Abi;

/// All general registers; what ptrace(2) reads and writes. A 32-bit tracee's are zero-extended.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Registers(libc::user_regs_struct);

/// Code segment of 32-bit programs on a 64-bit kernel (`__USER32_CS`).
const USER32_CS: u64 = 0x23;

impl Registers {
    pub(crate) fn zeroed() -> Self {
        // SAFETY: user_regs_struct holds integers only, for which all-zero is a value.
        Self(unsafe { mem::zeroed() })
    }

    /// Which table of system call numbers the program uses.
    pub(crate) fn abi(&self) -> Abi {
        if self.0.cs == USER32_CS { Abi::I386 } else { Abi::X86_64 }
    }

    /// Whether 64-bit code makes a call by the 32-bit gate, `int $0x80`: the instruction of its own gate leaves the return
    /// address in RCX, and this one what the program had there.
    pub(crate) fn came_by_the_narrow_gate(&self) -> bool {
        self.abi() == Abi::X86_64 && self.0.rcx != self.0.rip
    }

    /// The call that is being entered or left.
    pub(crate) fn number(&self) -> u64 {
        match self.abi() {
            Abi::X86_64 => self.0.orig_rax,
            Abi::I386 => self.0.orig_rax & 0xffff_ffff,
        }
    }

    pub(crate) fn args(&self) -> [u64; 6] {
        let r = &self.0;
        match self.abi() {
            Abi::X86_64 => [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
            Abi::I386 => [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp].map(|arg| arg & 0xffff_ffff),
        }
    }

    pub(crate) fn set_call(&mut self, number: u64, args: [u64; 6]) {
        let abi = self.abi();
        let r = &mut self.0;
        r.orig_rax = number;
        match abi {
            Abi::X86_64 => [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = args,
            Abi::I386 => [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp] = args,
        }
    }

    /// Makes the kernel skip the call that is being entered, with this answer.
    pub(crate) fn skip_with(&mut self, answer: i64) {
        self.0.orig_rax = u64::MAX;
        self.set_result(answer);
    }

    pub(crate) fn result(&self) -> i64 {
        match self.abi() {
            Abi::X86_64 => self.0.rax.cast_signed(),
            #[expect(clippy::cast_possible_truncation, reason = "a 32-bit register, sign-extended")]
            Abi::I386 => i64::from((self.0.rax as u32).cast_signed()),
        }
    }

    pub(crate) fn set_result(&mut self, result: i64) {
        self.0.rax = result.cast_unsigned();
    }

    /// Has the program make its call once more when it goes on: the instruction, of whatever kind, has two bytes. (A guest's
    /// debugger may have set any address.)
    pub(crate) fn call_again(&mut self) {
        self.0.rip = self.0.rip.wrapping_sub(2);
        self.0.rax = self.0.orig_rax;
        self.0.orig_rax = u64::MAX;
    }

    pub(crate) fn stack(&self) -> u64 {
        self.0.rsp
    }

    pub(crate) fn instruction(&self) -> u64 {
        self.0.rip
    }

    pub(crate) fn set_instruction(&mut self, address: u64) {
        self.0.rip = address;
    }

    /// These registers, of a call as the program made it, in the state that the call has reached by now in another place.
    pub(crate) fn put_back(&self, now: &Self) -> Self {
        let (at_entry, made) = (now.0.rcx == now.0.rip, now.0.orig_rax != u64::MAX);
        let mut r = now.0;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = self.args();
        r.rip = self.0.rip;
        if at_entry {
            r.rcx = r.rip;
        }
        if made {
            r.orig_rax = self.0.orig_rax;
        }
        Self(r)
    }

    /// Points the new program's loader at its script.
    pub(crate) fn run_script(&mut self, script: u64) {
        match self.abi() {
            Abi::X86_64 => self.0.r12 = script,
            Abi::I386 => self.0.rsp = script,
        }
    }

    /// Shows `number` as the call that is being made.
    pub(crate) fn show_call(&mut self, number: u64) {
        self.0.orig_rax = number;
    }

    /// The state in which the kernel starts a program: everything zero but these.
    pub(crate) fn start_program(&mut self, entry: u64, stack: u64) {
        let r = &mut self.0;
        [r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp] = [0; 7];
        [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15] = [0; 8];
        r.rip = entry;
        r.rsp = stack;
        // No call is to be restarted.
        r.orig_rax = u64::MAX;
    }
}
