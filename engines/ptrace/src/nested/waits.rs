//! wait4(2), waitpid(2) and waitid(2) of a process that debugs.
//!
//! What it can wait for is of two kinds: its own children, of which the kernel tells, and its tracees, of which we tell. The
//! call is answered if a tracee has something to say. Otherwise it is made, so that the kernel speaks for the children;
//! if it says that there are none, the caller sleeps in a futex(2) instead, which signals end in the same way as a
//! wait. Either sleep is ended by an interrupt when a tracee stops.

use std::fs;

use coracle_intercept::{Abi, Call, Errno, errno::ECHILD};

use super::bond::Usage;
use crate::{
    memory::Memory,
    registers::Registers,
    request::{Gone, set_registers},
    tracee::{Held, Then},
    tracer::{Place, Tracer},
    window::STILL,
};

const WNOHANG: u64 = 1;
const WEXITED: u64 = 4;
const WNOWAIT: u64 = 0x0100_0000;
const WNOTHREAD: u64 = 0x2000_0000;

/// Results by which the kernel says that a call is made again.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;

/// What a wait asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    whom: Whom,
    no_hang: bool,
    exits: bool,
    keep: bool,
    own_thread: bool,
    tells: Tells,
    usage_at: u64,
}

#[derive(Debug, Clone, Copy)]
enum Whom {
    All,
    One(i32),
    Group(i32),
}

/// Where and in which form the answer goes.
#[derive(Debug, Clone, Copy)]
enum Tells {
    Status(u64),
    Info(u64),
}

/// What a wait found.
#[derive(Debug, Clone, Copy)]
enum Found {
    Exit(usize),
    Stop(i32),
}

impl Wanted {
    /// The meaning of a call, if it is a wait and in order.
    pub(crate) fn of(thread: i32, call: &Call) -> Option<Self> {
        let (wait4, waitid, waitpid) = match call.abi {
            Abi::X86_64 => (61, 247, u64::MAX),
            Abi::I386 => (114, 284, 7),
        };
        // SAFETY: getpgid takes a number.
        let own_group = || unsafe { libc::getpgid(thread) };
        let by_id = call.number == waitid;
        let (whom, options, tells, usage_at) = if by_id {
            let whom = match call.arg(0) {
                0 => Whom::All,
                1 => Whom::One(call.int(1)),
                2 if call.int(1) == 0 => Whom::Group(own_group()),
                2 => Whom::Group(call.int(1)),
                3 => Whom::One(pid_of_descriptor(thread, call.int(1))?),
                _ => return None,
            };
            (whom, call.arg(3), Tells::Info(call.arg(2)), call.arg(4))
        } else if call.number == wait4 || call.number == waitpid {
            let whom = match call.int(0) {
                -1 => Whom::All,
                0 => Whom::Group(own_group()),
                pid if pid > 0 => Whom::One(pid),
                group => Whom::Group(group.checked_neg()?),
            };
            let usage_at = if call.number == wait4 { call.arg(3) } else { 0 };
            (whom, call.arg(2) | WEXITED, Tells::Status(call.arg(1)), usage_at)
        } else {
            return None;
        };
        Some(Self {
            whom,
            no_hang: options & WNOHANG != 0,
            exits: options & WEXITED != 0,
            keep: options & WNOWAIT != 0,
            own_thread: options & WNOTHREAD != 0,
            tells,
            usage_at,
        })
    }

    fn includes(&self, (thread, group): (i32, i32), tracer: i32, caller: i32) -> bool {
        let meant = match self.whom {
            Whom::All => true,
            Whom::One(pid) => pid == thread,
            Whom::Group(wanted) => wanted == group,
        };
        meant && (!self.own_thread || tracer == caller)
    }
}

impl Tracer<'_> {
    /// A process that debugs waits; whether that was seen to here.
    pub(super) fn guest_wait(
        &mut self,
        thread: i32,
        process: i32,
        now: Registers,
        call: Call,
        wanted: Wanted,
        place: Place,
    ) -> Result<bool, Gone> {
        let park = self.tracees.get_mut(&thread).is_some_and(|tracee| std::mem::take(&mut tracee.side.park));
        if let Some(found) = self.find(thread, process, &wanted) {
            let answer = self.take(thread, found, &wanted, call.abi);
            self.answer(thread, now, call, answer, place)?;
            return Ok(true);
        }
        // Even if it waits for no tracee yet: a child may become one.
        let mut made = call;
        if park && let Some(tracee) = self.tracees.get(&thread) {
            const WAIT_PRIVATE: u64 = 128;
            made.number = if call.abi == Abi::X86_64 { 202 } else { 240 };
            made.args = [tracee.process.borrow().window + STILL as u64, WAIT_PRIVATE, 0, 0, 0, 0];
        }
        if let Some(debugger) = self.debuggers.by_process.get_mut(&process) {
            debugger.waiting.push(thread);
        }
        self.hold(thread, now, made, Held { registers: now, call, then: Then::Wait(wanted), slot: None, _pin: None })?;
        Ok(true)
    }

    /// A wait that was made has ended.
    pub(crate) fn waited(&mut self, thread: i32, held: &Held, wanted: &Wanted, now: Registers) -> Result<(), Gone> {
        let process = self.tracees.get(&thread).ok_or(Gone)?.id();
        if let Some(debugger) = self.debuggers.by_process.get_mut(&process)
            && let Some(at) = debugger.waiting.iter().position(|waiting| *waiting == thread)
        {
            debugger.waiting.swap_remove(at);
        }
        self.debuggers.drop_idle(process);
        let slept = now.number() != held.call.number;
        let result = now.result();
        let mut restored = held.registers;
        let nothing = RESTARTS.contains(&result) || result == -i64::from(ECHILD.0) || (result == 0 && wanted.no_hang);
        let nothing = nothing || slept;
        let found = if nothing { self.find(thread, process, wanted) } else { None };
        if let Some(found) = found {
            restored.set_result(self.take(thread, found, wanted, held.call.abi));
        } else if slept && !RESTARTS.contains(&result) && result != -i64::from(libc::EINTR) {
            self.wait_again(thread, &mut restored, false);
        } else if result == -i64::from(ECHILD.0) && self.has_any(thread, process, wanted) {
            if wanted.no_hang {
                restored.set_result(0);
            } else {
                self.wait_again(thread, &mut restored, true);
            }
        } else if result > 0 && self.is_told_twice(process, result, wanted, thread) {
            self.wait_again(thread, &mut restored, false);
        } else {
            restored.set_result(result);
        }
        set_registers(thread, &restored)?;
        self.call_ended(thread)
    }

    /// Has the program make its call once more.
    fn wait_again(&mut self, thread: i32, registers: &mut Registers, park: bool) {
        registers.call_again();
        if let Some(tracee) = self.tracees.get_mut(&thread) {
            tracee.side.park = park;
        }
    }

    /// The kernel has told of a stop of a child that is the caller's tracee too: it is told of as that alone.
    fn is_told_twice(&self, process: i32, result: i64, wanted: &Wanted, thread: i32) -> bool {
        let Tells::Status(at) = wanted.tells else { return false };
        let mut status = [0; 4];
        if at == 0 || (Memory { pid: thread }).read(at, &mut status).is_err() {
            return false;
        }
        let status = i32::from_ne_bytes(status);
        let tied = i32::try_from(result).ok().and_then(|child| self.tracees.get(&child)?.side.bond.as_deref());
        tied.is_some_and(|bond| bond.process == process) && !libc::WIFEXITED(status) && !libc::WIFSIGNALED(status)
    }

    /// The earliest stop or end that the wait asks for.
    fn find(&self, caller: i32, process: i32, wanted: &Wanted) -> Option<Found> {
        let exits = self.debuggers.exits.iter().enumerate().filter(|(_, exit)| {
            wanted.exits && exit.process == process && wanted.includes((exit.thread, exit.group), exit.tracer, caller)
        });
        let exits = exits.map(|(at, exit)| (exit.order, Found::Exit(at)));
        let stops = self.tracees.iter().filter_map(|(thread, tracee)| {
            let bond = tracee.side.bond.as_deref().filter(|bond| bond.process == process)?;
            let stop = bond.stop.as_ref().filter(|stop| !stop.collected)?;
            wanted.includes((*thread, bond.group), bond.tracer, caller).then_some((stop.order, Found::Stop(*thread)))
        });
        exits.chain(stops).min_by_key(|(order, _)| *order).map(|(_, found)| found)
    }

    /// Whether there is a tracee that the wait asks for.
    fn has_any(&self, caller: i32, process: i32, wanted: &Wanted) -> bool {
        self.tracees.iter().any(|(thread, tracee)| {
            let Some(bond) = tracee.side.bond.as_deref().filter(|bond| bond.process == process) else { return false };
            // SAFETY: getpgid takes a number.
            let group = || unsafe { libc::getpgid(*thread) };
            let group = if matches!(wanted.whom, Whom::Group(_)) { group() } else { 0 };
            wanted.includes((*thread, group), bond.tracer, caller)
        })
    }

    /// Tells of what was found; the call's result.
    fn take(&mut self, caller: i32, found: Found, wanted: &Wanted, abi: Abi) -> i64 {
        let (thread, status, usage) = match found {
            Found::Exit(at) => {
                let exit = &self.debuggers.exits[at];
                (exit.thread, exit.status, exit.usage)
            }
            Found::Stop(thread) => {
                let told = self.with_bond(thread, |bond| {
                    let code = bond.stop.map_or(0, |stop| stop.code);
                    if let Some(stop) = &mut bond.stop
                        && !wanted.keep
                    {
                        stop.collected = true;
                    }
                    (code, bond.usage)
                });
                let (code, usage) = told.unwrap_or_default();
                (thread, (code << 8 | 0x7f).cast_signed(), usage)
            }
        };
        if let Found::Exit(at) = found
            && !wanted.keep
        {
            let exit = self.debuggers.exits.swap_remove(at);
            self.debuggers.release(exit.process);
        }
        match self.write_answer(caller, (thread, status, usage), wanted, abi) {
            Ok(result) => result,
            Err(errno) => -i64::from(errno.0),
        }
    }

    fn write_answer(
        &self,
        caller: i32,
        (thread, status, usage): (i32, i32, Usage),
        wanted: &Wanted,
        abi: Abi,
    ) -> Result<i64, Errno> {
        let memory = Memory { pid: caller };
        if wanted.usage_at != 0 {
            memory.write(wanted.usage_at, &usage.bytes(abi))?;
        }
        match wanted.tells {
            Tells::Status(0) => Ok(i64::from(thread)),
            Tells::Status(at) => memory.write(at, &status.to_ne_bytes()).map(|()| i64::from(thread)),
            Tells::Info(0) => Ok(0),
            Tells::Info(at) => {
                let (code, value) = code_of(status);
                let uid = self.uid_of(thread).cast_signed();
                let start = if abi == Abi::X86_64 { 16 } else { 12 };
                let mut info = [0_u8; 28];
                let fields = [(0, libc::SIGCHLD), (8, code), (start, thread), (start + 4, uid), (start + 8, value)];
                for (at, field) in fields {
                    info[at..at + 4].copy_from_slice(&field.to_ne_bytes());
                }
                memory.write(at, &info[..start + 12]).map(|()| 0)
            }
        }
    }
}

/// `si_code` and `si_status` of a SIGCHLD that tells of a status.
pub(super) fn code_of(status: i32) -> (i32, i32) {
    const CLD_EXITED: i32 = 1;
    const CLD_KILLED: i32 = 2;
    const CLD_DUMPED: i32 = 3;
    const CLD_TRAPPED: i32 = 4;
    if libc::WIFEXITED(status) {
        (CLD_EXITED, libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        (if libc::WCOREDUMP(status) { CLD_DUMPED } else { CLD_KILLED }, libc::WTERMSIG(status))
    } else {
        (CLD_TRAPPED, status >> 8)
    }
}

/// The process that a pidfd of a guest's means.
fn pid_of_descriptor(thread: i32, descriptor: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{descriptor}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

impl Usage {
    /// As the interface has it: all words are 32 bits wide on 32 bits.
    fn bytes(&self, abi: Abi) -> Vec<u8> {
        let usage = &self.0;
        let words = [
            usage.ru_utime.tv_sec,
            usage.ru_utime.tv_usec,
            usage.ru_stime.tv_sec,
            usage.ru_stime.tv_usec,
            usage.ru_maxrss,
            usage.ru_ixrss,
            usage.ru_idrss,
            usage.ru_isrss,
            usage.ru_minflt,
            usage.ru_majflt,
            usage.ru_nswap,
            usage.ru_inblock,
            usage.ru_oublock,
            usage.ru_msgsnd,
            usage.ru_msgrcv,
            usage.ru_nsignals,
            usage.ru_nvcsw,
            usage.ru_nivcsw,
        ];
        let size = if abi == Abi::X86_64 { 8 } else { 4 };
        words.iter().flat_map(|word| word.to_ne_bytes()[..size].to_vec()).collect()
    }
}
