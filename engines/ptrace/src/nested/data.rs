//! Requests of ptrace(2) that look at a stopped tracee or change it: the kernel's own, made in the debugger's stead, with
//! what they read and write moved between our memory and the debugger's.

use coracle_intercept::{
    Abi, Call, Errno,
    errno::{EFAULT, EIO, EPERM},
};

use super::{
    bond::{AboutCall, Info, Stop},
    kernel::{self, GENERAL, ROOM, SIGINFO, ask},
};
use crate::{
    memory::Memory,
    request::{peek, poke, registers},
    tracer::Tracer,
};

/// Sizes of `struct user_regs_struct` and of the general registers of a 32-bit program.
const GENERAL_64: usize = 27 * 8;
const GENERAL_32: usize = 17 * 4;
/// Where `struct user` has the debug registers, on 64 and on 32 bits.
const DEBUG_64: u64 = 848;
const DEBUG_32: u64 = 252;

impl Tracer<'_> {
    pub(super) fn data_of_stopped(&self, caller: i32, pid: i32, call: &Call, stop: Stop) -> Result<i64, Errno> {
        let (which, address, data) = (call.arg(0), call.arg(2), call.arg(3));
        let debugger = Memory { pid: caller };
        let word = if call.abi == Abi::X86_64 { 8 } else { 4 };
        let narrow = call.abi == Abi::I386;
        let mut room = [0_u8; ROOM];
        match which {
            ask::PEEKTEXT | ask::PEEKDATA => {
                debugger.write(data, &peek_word(pid, address, word)?.to_ne_bytes()[..word])?;
            }
            ask::POKETEXT | ask::POKEDATA => poke_word(pid, address, data, word)?,
            ask::PEEKUSR if narrow => {
                let value = peek_user_32(pid, address)?;
                debugger.write(data, &value.to_ne_bytes())?;
            }
            ask::POKEUSR if narrow => poke_user_32(pid, address, data)?,
            ask::PEEKUSR => {
                kernel::fill(which, pid, address, &mut room)?;
                debugger.write(data, &room[..word])?;
            }
            ask::POKEUSR => kernel::order(which, pid, address, data)?,
            ask::GETREGS if narrow => {
                let set = kernel::register_set(pid, GENERAL, GENERAL_32)?;
                debugger.write(data, &set)?;
            }
            ask::SETREGS if narrow => {
                let mut set = [0; GENERAL_32];
                debugger.read(data, &mut set)?;
                kernel::set_register_set(pid, GENERAL, &set)?;
            }
            ask::GETREGS => {
                kernel::fill(which, pid, 0, &mut room)?;
                debugger.write(data, &room[..GENERAL_64])?;
            }
            ask::SETREGS => {
                debugger.read(data, &mut room[..GENERAL_64])?;
                kernel::give(which, pid, 0, &room)?;
            }
            ask::GETFPREGS | ask::GETFPXREGS if which == ask::GETFPXREGS || !narrow => {
                kernel::fill(ask::GETFPREGS, pid, 0, &mut room)?;
                debugger.write(data, &room)?;
            }
            ask::SETFPREGS | ask::SETFPXREGS if which == ask::SETFPXREGS || !narrow => {
                debugger.read(data, &mut room)?;
                kernel::give(ask::SETFPREGS, pid, 0, &room)?;
            }
            ask::GETREGSET | ask::SETREGSET => register_set(debugger, pid, call, word)?,
            ask::GET_THREAD_AREA => {
                kernel::fill(which, pid, address, &mut room)?;
                debugger.write(data, &room[..16])?;
            }
            ask::SET_THREAD_AREA => {
                debugger.read(data, &mut room[..16])?;
                kernel::give(which, pid, address, &room)?;
            }
            ask::ARCH_PRCTL => match data {
                0x1003 | 0x1004 => debugger.write(address, &kernel::arch_base(pid, data)?.to_ne_bytes())?,
                0x1001 | 0x1002 => kernel::set_arch_base(pid, data, address)?,
                _ => return Err(Errno::EINVAL),
            },
            ask::GETEVENTMSG => {
                let message =
                    self.tracees.get(&pid).and_then(|tracee| tracee.side.bond.as_ref()).map_or(0, |bond| bond.message);
                debugger.write(data, &message.to_ne_bytes()[..word])?;
            }
            ask::GETSIGINFO => {
                self.signal_info(pid, stop, &mut room)?;
                debugger.write(data, &for_abi(call.abi, &room))?;
            }
            ask::SETSIGINFO if narrow => return Err(EIO),
            ask::SETSIGINFO => {
                debugger.read(data, &mut room[..SIGINFO])?;
                if stop.info == Info::None {
                    return Err(Errno::EINVAL);
                }
                if stop.info == Info::Real {
                    kernel::give(which, pid, 0, &room)?;
                }
            }
            ask::PEEKSIGINFO => {
                let mut args = [0; 16];
                debugger.read(address, &mut args)?;
                let infos = kernel::pending(pid, &args)?;
                debugger.write(data, &infos)?;
                return Ok(i64::try_from(infos.len() / SIGINFO).unwrap_or(0));
            }
            ask::GETSIGMASK => {
                kernel::fill(which, pid, address, &mut room)?;
                debugger.write(data, &room[..8])?;
            }
            ask::SETSIGMASK => {
                debugger.read(data, &mut room[..8])?;
                kernel::give(which, pid, address, &room)?;
            }
            ask::GET_SYSCALL_INFO => {
                let got = match stop.call {
                    AboutCall::Real => kernel::fill(which, pid, ROOM as u64, &mut room)?,
                    about => made_up_call(pid, about, &mut room)?,
                };
                let size = usize::try_from(got.unsigned_abs().min(address)).unwrap_or(0).min(ROOM);
                debugger.write(data, &room[..size])?;
                return Ok(got);
            }
            ask::SET_SYSCALL_INFO => {
                let size = usize::try_from(address).unwrap_or(ROOM).min(ROOM);
                debugger.read(data, &mut room[..size])?;
                kernel::give(which, pid, address, &room)?;
            }
            ask::GET_RSEQ_CONFIGURATION => {
                let got = kernel::fill(which, pid, address, &mut room)?;
                let size = usize::try_from(got.unsigned_abs().min(address)).unwrap_or(0).min(ROOM);
                debugger.write(data, &room[..size])?;
                return Ok(got);
            }
            // The filters are ours too, and a guest's root is none.
            ask::SECCOMP_GET_FILTER | ask::SECCOMP_GET_METADATA => return Err(EPERM),
            _ => return Err(EIO),
        }
        Ok(0)
    }

    /// The `siginfo_t` of a stop, as the kernel would give it to a debugger.
    pub(super) fn signal_info(&self, pid: i32, stop: Stop, into: &mut [u8; ROOM]) -> Result<(), Errno> {
        match stop.info {
            Info::None => return Err(Errno::EINVAL),
            Info::Real => {
                kernel::fill(ask::GETSIGINFO, pid, 0, into)?;
            }
            Info::Made(signal, code) => {
                into[..4].copy_from_slice(&signal.to_ne_bytes());
                into[8..12].copy_from_slice(&code.to_ne_bytes());
                if stop.call == AboutCall::None {
                    let at = registers(pid).map_err(|_| super::ESRCH)?.instruction();
                    into[16..24].copy_from_slice(&at.to_ne_bytes());
                } else {
                    into[16..20].copy_from_slice(&pid.to_ne_bytes());
                    into[20..24].copy_from_slice(&self.uid_of(pid).to_ne_bytes());
                }
            }
        }
        Ok(())
    }
}

/// A `siginfo_t` as the interface has it: what follows the first three words begins at once on 32 bits.
fn for_abi(abi: Abi, info: &[u8; ROOM]) -> [u8; SIGINFO] {
    let mut out = [0; SIGINFO];
    if abi == Abi::X86_64 {
        out.copy_from_slice(&info[..SIGINFO]);
    } else {
        out[..12].copy_from_slice(&info[..12]);
        out[12..SIGINFO - 4].copy_from_slice(&info[16..SIGINFO]);
    }
    out
}

fn peek_word(pid: i32, address: u64, size: usize) -> Result<u64, Errno> {
    if let Some(word) = peek(pid, address) {
        return Ok(word);
    }
    // The last four bytes before a hole.
    let before = address.checked_sub(4).filter(|_| size == 4).and_then(|before| peek(pid, before));
    before.map(|word| word >> 32).ok_or(EIO)
}

fn poke_word(pid: i32, address: u64, value: u64, size: usize) -> Result<(), Errno> {
    if size == 8 {
        return poke(pid, address, value).map_err(|_| EIO);
    }
    let (at, shift) = if peek(pid, address).is_some() { (address, 0) } else { (address.wrapping_sub(4), 32) };
    let old = peek(pid, at).ok_or(EIO)?;
    let mask = 0xffff_ffff << shift;
    poke(pid, at, old & !mask | value << shift & mask).map_err(|_| EIO)
}

fn peek_user_32(pid: i32, offset: u64) -> Result<u32, Errno> {
    if offset >= GENERAL_32 as u64 {
        let mut room = [0; ROOM];
        kernel::fill(ask::PEEKUSR, pid, debug_register(offset)?, &mut room)?;
        return Ok(u32::from_ne_bytes([room[0], room[1], room[2], room[3]]));
    }
    let set = kernel::register_set(pid, GENERAL, GENERAL_32)?;
    let at = usize::try_from(offset).map_err(|_| EIO)?;
    let word = set.get(at..at + 4).filter(|_| at % 4 == 0).ok_or(EIO)?;
    Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

fn poke_user_32(pid: i32, offset: u64, value: u64) -> Result<(), Errno> {
    if offset >= GENERAL_32 as u64 {
        return kernel::order(ask::POKEUSR, pid, debug_register(offset)?, value & 0xffff_ffff);
    }
    let mut set = kernel::register_set(pid, GENERAL, GENERAL_32)?;
    let at = usize::try_from(offset).map_err(|_| EIO)?;
    let word = set.get_mut(at..at + 4).filter(|_| at % 4 == 0).ok_or(EIO)?;
    word.copy_from_slice(&value.to_ne_bytes()[..4]);
    kernel::set_register_set(pid, GENERAL, &set).map(drop)
}

/// Offset of a debug register in the 64-bit `struct user`, from that in the 32-bit one.
fn debug_register(offset: u64) -> Result<u64, Errno> {
    let at = offset.checked_sub(DEBUG_32).filter(|at| *at < 32 && at % 4 == 0).ok_or(EIO)?;
    Ok(DEBUG_64 + at * 2)
}

/// `GETREGSET` and `SETREGSET`: the data is a `struct iovec` of the debugger's.
fn register_set(debugger: Memory, pid: i32, call: &Call, word: usize) -> Result<(), Errno> {
    let mut vector = [0; 16];
    let vector = &mut vector[..2 * word];
    debugger.read(call.arg(3), vector)?;
    let get = |part: &[u8]| {
        let mut value = [0; 8];
        value[..word].copy_from_slice(part);
        u64::from_ne_bytes(value)
    };
    let (base, size) = (get(&vector[..word]), get(&vector[word..]));
    let size = usize::try_from(size).map_err(|_| EFAULT)?;
    let done = if call.arg(0) == ask::GETREGSET {
        let set = kernel::register_set(pid, call.arg(2), size)?;
        debugger.write(base, &set)?;
        set.len()
    } else {
        let mut set = vec![0; size.min(1 << 16)];
        debugger.read(base, &mut set)?;
        kernel::set_register_set(pid, call.arg(2), &set)?
    };
    debugger.write(call.arg(3) + word as u64, &(done as u64).to_ne_bytes()[..word])
}

/// A `struct ptrace_syscall_info` for a stop of which the kernel knows nothing; its size.
fn made_up_call(pid: i32, about: AboutCall, into: &mut [u8; ROOM]) -> Result<i64, Errno> {
    const EXIT: u8 = 2;
    let now = registers(pid).map_err(|_| super::ESRCH)?;
    let architecture: u32 = if now.abi() == Abi::X86_64 { 0xc000_003e } else { 0x4000_0003 };
    into[4..8].copy_from_slice(&architecture.to_ne_bytes());
    into[8..16].copy_from_slice(&now.instruction().to_ne_bytes());
    into[16..24].copy_from_slice(&now.stack().to_ne_bytes());
    if about != AboutCall::End {
        return Ok(24);
    }
    into[0] = EXIT;
    into[24..32].copy_from_slice(&now.result().to_ne_bytes());
    Ok(33)
}
