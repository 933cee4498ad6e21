//! The requests of ptrace(2) that the tracer makes, each with its types.
//!
//! Every request but `seize` needs the tracee stopped and ours; if it is not any more (SIGKILL ends a process in any
//! state) the kernel answers ESRCH. That is no error of ours: the next wait tells of the death. Callers stop working on
//! that tracee, see [`Gone`].

use std::{
    io,
    ptr::{self, null_mut},
};

use crate::registers::Registers;

/// Options of every tracee; inherited by its children.
const OPTIONS: i32 = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

/// A request's number, as each C library's wrapper takes it.
#[cfg(not(target_env = "musl"))]
type Number = libc::c_uint;
/// A request's number, as each C library's wrapper takes it.
#[cfg(target_env = "musl")]
type Number = libc::c_int;

const GETSIGMASK: Number = 0x420a;
const SETSIGMASK: Number = 0x420b;

/// The tracee is gone, or refuses: leave it to the next wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// How a stopped tracee goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Until something happens.
    Run,
    /// Until it enters or leaves a system call.
    ToSyscall,
    /// For one instruction.
    Step,
    /// Stay in its group-stop, but tell of what happens (SIGCONT).
    Listen,
}

fn request(request: Number, pid: i32, address: usize, data: usize) -> Result<i64, Gone> {
    // SAFETY: only requests whose address and data are integers are made through here (see the callers below), so the
    // kernel writes to no memory of ours.
    let result = unsafe { libc::ptrace(request, pid, address, data) };
    if result == -1 { Err(Gone) } else { Ok(result) }
}

/// Attaches to a running process without stopping it; `seccomp`: its `SECCOMP_RET_TRACE` stops are wanted.
pub(crate) fn seize(pid: i32, seccomp: bool) -> io::Result<()> {
    let options = OPTIONS | if seccomp { libc::PTRACE_O_TRACESECCOMP } else { 0 };
    // SAFETY: PTRACE_SEIZE takes two integers.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, usize::try_from(options).unwrap_or(0)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a stopped tracee go on, with `signal` delivered to it (0: none).
pub(crate) fn resume(pid: i32, how: Resume, signal: i32) -> Result<(), Gone> {
    let which = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToSyscall => libc::PTRACE_SYSCALL,
        Resume::Step => libc::PTRACE_SINGLESTEP,
        Resume::Listen => libc::PTRACE_LISTEN,
    };
    request(which, pid, 0, usize::try_from(signal).unwrap_or(0)).map(drop)
}

/// Sets the options of a stopped tracee: those of all, and `more`.
pub(crate) fn set_options(pid: i32, seccomp: bool, more: u32) -> Result<(), Gone> {
    let options = OPTIONS | if seccomp { libc::PTRACE_O_TRACESECCOMP } else { 0 };
    let options = usize::try_from(options.unsigned_abs() | more).map_err(|_| Gone)?;
    request(libc::PTRACE_SETOPTIONS, pid, 0, options).map(drop)
}

/// What an event stop tells: the new process's id, or the id that a thread had before it executed.
pub(crate) fn event_message(pid: i32) -> Result<i32, Gone> {
    event_message_word(pid).and_then(|message| i32::try_from(message).map_err(|_| Gone))
}

/// What an event stop tells.
pub(crate) fn event_message_word(pid: i32) -> Result<u64, Gone> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes one unsigned long to its data, which `message` is.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0_usize, &raw mut message) };
    if result == -1 { Err(Gone) } else { Ok(message) }
}

/// All general registers.
pub(crate) fn registers(pid: i32) -> Result<Registers, Gone> {
    let mut registers = Registers::zeroed();
    // SAFETY: PTRACE_GETREGS writes one user_regs_struct to its data, which `registers` wraps (repr(transparent)).
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, null_mut::<u8>(), &raw mut registers) };
    if result == -1 { Err(Gone) } else { Ok(registers) }
}

/// Sets all general registers.
pub(crate) fn set_registers(pid: i32, registers: &Registers) -> Result<(), Gone> {
    // SAFETY: PTRACE_SETREGS reads one user_regs_struct from its data, which `registers` wraps (repr(transparent)).
    let result =
        unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, ptr::null::<u8>(), ptr::from_ref::<Registers>(registers)) };
    if result == -1 { Err(Gone) } else { Ok(()) }
}

/// The signals that the tracee blocks.
pub(crate) fn signal_mask(pid: i32) -> Result<u64, Gone> {
    let mut mask = 0_u64;
    // SAFETY: PTRACE_GETSIGMASK writes as many bytes to its data as its address says: a kernel's mask is 8 bytes long.
    let result = unsafe { libc::ptrace(GETSIGMASK, pid, size_of_val(&mask), &raw mut mask) };
    if result == -1 { Err(Gone) } else { Ok(mask) }
}

/// Sets the signals that the tracee blocks.
pub(crate) fn set_signal_mask(pid: i32, mask: u64) -> Result<(), Gone> {
    // SAFETY: PTRACE_SETSIGMASK reads as many bytes from its data as its address says.
    let result = unsafe { libc::ptrace(SETSIGMASK, pid, size_of_val(&mask), &raw const mask) };
    if result == -1 { Err(Gone) } else { Ok(()) }
}

/// One word of the tracee's memory: what is left where process_vm_readv(2) is forbidden.
pub(crate) fn peek(pid: i32, address: u64) -> Option<u64> {
    let address = usize::try_from(address).ok()?;
    // SAFETY: errno is this thread's own; PTRACE_PEEKDATA takes an address of the tracee and returns the word (libc's
    // wrapper), so -1 is told from an error by errno alone.
    let (word, error) = unsafe {
        *libc::__errno_location() = 0;
        let word = libc::ptrace(libc::PTRACE_PEEKDATA, pid, address, 0_usize);
        (word, *libc::__errno_location())
    };
    if word == -1 && error != 0 { None } else { Some(word.cast_unsigned()) }
}

/// Writes one word of the tracee's memory.
pub(crate) fn poke(pid: i32, address: u64, word: u64) -> Result<(), Gone> {
    let address = usize::try_from(address).map_err(|_| Gone)?;
    request(libc::PTRACE_POKEDATA, pid, address, usize::try_from(word).map_err(|_| Gone)?).map(drop)
}
