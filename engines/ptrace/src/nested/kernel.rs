//! Requests of ptrace(2) that a guest debugger makes and that the kernel answers to us: its numbers, and typed ways to make
//! them. Each is made on a tracee that is really stopped.

use coracle_intercept::{Errno, errno::EIO};

use crate::peer::last_errno;

/// Numbers of requests, as the kernel's interface has them.
pub(crate) mod ask {
    pub(crate) const TRACEME: u64 = 0;
    pub(crate) const PEEKTEXT: u64 = 1;
    pub(crate) const PEEKDATA: u64 = 2;
    pub(crate) const PEEKUSR: u64 = 3;
    pub(crate) const POKETEXT: u64 = 4;
    pub(crate) const POKEDATA: u64 = 5;
    pub(crate) const POKEUSR: u64 = 6;
    pub(crate) const CONT: u64 = 7;
    pub(crate) const KILL: u64 = 8;
    pub(crate) const SINGLESTEP: u64 = 9;
    pub(crate) const GETREGS: u64 = 12;
    pub(crate) const SETREGS: u64 = 13;
    pub(crate) const GETFPREGS: u64 = 14;
    pub(crate) const SETFPREGS: u64 = 15;
    pub(crate) const ATTACH: u64 = 16;
    pub(crate) const DETACH: u64 = 17;
    pub(crate) const GETFPXREGS: u64 = 18;
    pub(crate) const SETFPXREGS: u64 = 19;
    pub(crate) const SYSCALL: u64 = 24;
    pub(crate) const GET_THREAD_AREA: u64 = 25;
    pub(crate) const SET_THREAD_AREA: u64 = 26;
    pub(crate) const ARCH_PRCTL: u64 = 30;
    pub(crate) const SETOPTIONS: u64 = 0x4200;
    pub(crate) const GETEVENTMSG: u64 = 0x4201;
    pub(crate) const GETSIGINFO: u64 = 0x4202;
    pub(crate) const SETSIGINFO: u64 = 0x4203;
    pub(crate) const GETREGSET: u64 = 0x4204;
    pub(crate) const SETREGSET: u64 = 0x4205;
    pub(crate) const SEIZE: u64 = 0x4206;
    pub(crate) const INTERRUPT: u64 = 0x4207;
    pub(crate) const LISTEN: u64 = 0x4208;
    pub(crate) const PEEKSIGINFO: u64 = 0x4209;
    pub(crate) const GETSIGMASK: u64 = 0x420a;
    pub(crate) const SETSIGMASK: u64 = 0x420b;
    pub(crate) const SECCOMP_GET_FILTER: u64 = 0x420c;
    pub(crate) const SECCOMP_GET_METADATA: u64 = 0x420d;
    pub(crate) const GET_SYSCALL_INFO: u64 = 0x420e;
    pub(crate) const GET_RSEQ_CONFIGURATION: u64 = 0x420f;
    pub(crate) const SET_SYSCALL_INFO: u64 = 0x4212;
}

/// `NT_PRSTATUS`: the general registers.
pub(crate) const GENERAL: u64 = 1;

/// No fixed structure of ptrace(2) is larger: the floating-point registers.
pub(crate) const ROOM: usize = 512;

/// Size of a `siginfo_t`.
pub(crate) const SIGINFO: usize = 128;

/// The largest register set that is believed.
const MOST: usize = 1 << 16;

fn word(value: u64) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| EIO)
}

/// A request that takes no memory of ours: address and data are numbers to the kernel.
///
/// # Safety
/// So must the caller choose it; or its pointer must be good for what the request reads or writes.
unsafe fn request(which: u64, pid: i32, address: usize, data: usize) -> Result<i64, Errno> {
    // SAFETY: the caller's word.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, which, i64::from(pid), address, data) };
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Has a stopped tracee's kernel side changed by two numbers: `INTERRUPT`, `SETOPTIONS`, `POKEUSR`, and `SINGLESTEP`.
pub(crate) fn order(which: u64, pid: i32, address: u64, data: u64) -> Result<(), Errno> {
    assert!(matches!(which, ask::INTERRUPT | ask::SETOPTIONS | ask::POKEUSR | ask::SINGLESTEP));
    // SAFETY: these four take numbers.
    unsafe { request(which, pid, word(address)?, word(data)?) }.map(drop)
}

/// A request that fills a structure at its data argument; `address` is a number to it. What the request returns.
pub(crate) fn fill(which: u64, pid: i32, address: u64, into: &mut [u8; ROOM]) -> Result<i64, Errno> {
    let sized = matches!(which, ask::GET_SYSCALL_INFO | ask::GETSIGMASK | ask::GET_RSEQ_CONFIGURATION);
    assert!(
        sized || matches!(which, ask::PEEKUSR | ask::GETREGS | ask::GETFPREGS | ask::GETSIGINFO | ask::GET_THREAD_AREA)
    );
    let address = word(if sized { address.min(ROOM as u64) } else { address })?;
    // SAFETY: of these, those that take the size of the buffer as their address get no more than its own, and the others
    // write structures of at most ROOM bytes.
    unsafe { request(which, pid, address, into.as_mut_ptr() as usize) }
}

/// A request that reads a structure at its data argument.
pub(crate) fn give(which: u64, pid: i32, address: u64, from: &[u8; ROOM]) -> Result<i64, Errno> {
    let sized = matches!(which, ask::SETSIGMASK | ask::SET_SYSCALL_INFO);
    assert!(sized || matches!(which, ask::SETREGS | ask::SETFPREGS | ask::SETSIGINFO | ask::SET_THREAD_AREA));
    let address = word(if sized { address.min(ROOM as u64) } else { address })?;
    // SAFETY: as for `fill`, and these only read.
    unsafe { request(which, pid, address, from.as_ptr() as usize) }
}

/// What arch_prctl(2) would tell the tracee.
pub(crate) fn arch_base(pid: i32, which: u64) -> Result<u64, Errno> {
    let mut base = 0_u64;
    assert!(matches!(which, 0x1003 | 0x1004));
    // SAFETY: ARCH_GET_FS and ARCH_GET_GS, the only ones asked, write one word at the address.
    unsafe { request(ask::ARCH_PRCTL, pid, (&raw mut base) as usize, word(which)?) }?;
    Ok(base)
}

/// Sets what arch_prctl(2) would set for the tracee.
pub(crate) fn set_arch_base(pid: i32, which: u64, base: u64) -> Result<(), Errno> {
    assert!(matches!(which, 0x1001 | 0x1002));
    // SAFETY: ARCH_SET_FS and ARCH_SET_GS take numbers.
    unsafe { request(ask::ARCH_PRCTL, pid, word(base)?, word(which)?) }.map(drop)
}

/// A register set of at most `size` bytes.
pub(crate) fn register_set(pid: i32, kind: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let mut set = vec![0_u8; size.min(MOST)];
    let mut vector = libc::iovec { iov_base: set.as_mut_ptr().cast(), iov_len: set.len() };
    // SAFETY: the vector describes `set`, which the kernel fills up to its length, and is itself updated.
    unsafe { request(ask::GETREGSET, pid, word(kind)?, (&raw mut vector) as usize) }?;
    set.truncate(vector.iov_len);
    Ok(set)
}

/// Sets a register set; how much of it was taken.
pub(crate) fn set_register_set(pid: i32, kind: u64, set: &[u8]) -> Result<usize, Errno> {
    let mut vector = libc::iovec { iov_base: set.as_ptr().cast_mut().cast(), iov_len: set.len() };
    // SAFETY: the vector describes `set`, which the kernel only reads, and is itself updated.
    unsafe { request(ask::SETREGSET, pid, word(kind)?, (&raw mut vector) as usize) }?;
    Ok(vector.iov_len)
}

/// Pending signals: as many `siginfo_t` as there are from `args` (offset, flags and count) on.
pub(crate) fn pending(pid: i32, args: &[u8; 16]) -> Result<Vec<u8>, Errno> {
    let mut args = *args;
    let count = i32::from_ne_bytes([args[12], args[13], args[14], args[15]]).clamp(0, 32);
    args[12..].copy_from_slice(&count.to_ne_bytes());
    let mut infos = vec![0_u8; usize::try_from(count).unwrap_or(0) * SIGINFO];
    // SAFETY: the address is a ptrace_peeksiginfo_args of 16 bytes, read only; the data has room for its count of infos.
    let got = unsafe { request(ask::PEEKSIGINFO, pid, args.as_ptr() as usize, infos.as_mut_ptr() as usize) }?;
    infos.truncate(usize::try_from(got).unwrap_or(0) * SIGINFO);
    Ok(infos)
}

/// Sends a signal to one thread, as the guest's user may.
pub(crate) fn send(process: i32, thread: i32, signal: i32) {
    // SAFETY: tgkill takes integers; a thread that is gone gets none.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}
