//! From what really happened to a tracee to the stop that its debugger sees.

use std::fs;

use coracle_intercept::{Call, errno::ENOSYS};

use super::{
    bond::{AboutCall, At, Bond, How, Info, Next, Stop, event, number},
    kernel::{self, ROOM, ask},
    requests::parent_of,
};
use crate::{
    request::{Gone, event_message_word, registers, set_registers},
    tracee::Doing,
    tracer::{Place, Tracer},
};

/// How a process was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event(pub(crate) u32);

impl Tracer<'_> {
    /// Has a debugger see a stop. The tracee is not resumed.
    pub(super) fn report(&mut self, thread: i32, mut stop: Stop, message: Option<u64>) {
        stop.order = self.debuggers.next_order();
        let usage = self.debuggers.usage;
        // SAFETY: getpgid takes a number.
        let group = unsafe { libc::getpgid(thread) };
        let every = self.every;
        let Some(process) = self.with_bond(thread, |bond| {
            bond.stop = Some(stop);
            bond.usage = usage;
            bond.group = group;
            if let Some(message) = message {
                bond.message = message;
            }
            bond.apply_options(thread, every);
            bond.interrupted = false;
            bond.process
        }) else {
            return;
        };
        const CLD_TRAPPED: i32 = 4;
        self.tell(process, thread, (CLD_TRAPPED, (stop.code & 0x7f).cast_signed()));
    }

    /// Tells a debugger that there is something to wait for.
    pub(super) fn tell(&mut self, process: i32, thread: i32, (code, status): (i32, i32)) {
        if cares_for_children(process) {
            if let Some(debugger) = self.debuggers.by_process.get_mut(&process) {
                debugger.note = Some((code, thread, status));
            }
            // SAFETY: kill takes two integers.
            unsafe { libc::kill(process, libc::SIGCHLD) };
        }
        self.kick_waits(process);
    }

    /// A signal is about to be delivered.
    pub(crate) fn signalled(&mut self, thread: i32, signal: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return self.go_on(thread, signal) };
        if let Some(bond) = &mut tracee.side.bond
            && matches!(tracee.doing, Doing::Loading(_))
        {
            bond.deferred.push(signal);
            return self.go_on(thread, 0);
        }
        let (process, tied) = (tracee.id(), tracee.side.bond.is_some());
        if tied || (signal == libc::SIGCHLD && self.debuggers.include(process)) {
            self.sign(thread, process, signal);
        }
        if tied {
            self.report(thread, Stop::new(At::Signal, number(signal), Info::Real), None);
            return Ok(());
        }
        self.go_on(thread, signal)
    }

    /// A signal that we sent is to say what the kernel's would say.
    fn sign(&mut self, thread: i32, process: i32, signal: i32) {
        const SI_KERNEL: i32 = 0x80;
        let mut info = [0; ROOM];
        if kernel::fill(ask::GETSIGINFO, thread, 0, &mut info).is_err() {
            return;
        }
        let field = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let code = field(8);
        if field(16) != std::process::id().cast_signed() || !matches!(code, libc::SI_USER | libc::SI_TKILL) {
            return;
        }
        let uid = self.uid_of(thread);
        let debugger = self.debuggers.by_process.get_mut(&process);
        let debugger = debugger.filter(|_| signal == libc::SIGCHLD && code == libc::SI_USER);
        let fields = match debugger.and_then(|debugger| debugger.note.take()) {
            Some((code, pid, status)) => [(8, code), (16, pid), (20, uid.cast_signed()), (24, status)],
            // What a debugger has sent is the kernel's.
            None if code == libc::SI_TKILL => [(8, SI_KERNEL), (16, 0), (20, 0), (24, 0)],
            None => return,
        };
        for (at, value) in fields {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let _ = kernel::give(ask::SETSIGINFO, thread, 0, &info);
    }

    /// A call of a tracee is being entered, as yet untouched; whether its debugger wants to see it first.
    pub(crate) fn shows_entry(&mut self, thread: i32) -> bool {
        let Some(bond) = self.tracees.get(&thread).and_then(|tracee| tracee.side.bond.as_deref()) else { return false };
        if bond.how != How::ToSyscall {
            return false;
        }
        let stop = Stop::call(At::Entry, bond.options);
        self.report(thread, stop, Some(1));
        true
    }

    /// A call has ended, and the registers are the program's again.
    pub(crate) fn call_ended(&mut self, thread: i32) -> Result<(), Gone> {
        match self.tracees.get(&thread).and_then(|tracee| tracee.side.bond.as_deref()) {
            Some(bond) if bond.how == How::ToSyscall => {
                let stop = Stop::call(At::Exit, bond.options);
                self.report(thread, stop, Some(2));
                Ok(())
            }
            Some(bond) if bond.how == How::Step => {
                self.report(thread, Stop::step(), None);
                Ok(())
            }
            _ => self.go_on(thread, 0),
        }
    }

    /// A filter has caught a call: ours, or one of the guest's own for its debugger.
    pub(crate) fn caught(&mut self, thread: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return self.go_on(thread, 0) };
        if matches!(tracee.doing, Doing::Loading(_)) {
            // The loader's own calls, in the eyes of a filter of the guest's.
            return self.go_on(thread, 0);
        }
        let seen = tracee.inside;
        tracee.inside |= !self.old_order;
        let own = !tracee.filters.is_empty() && !matches!(tracee.doing, Doing::Executing(..));
        let message = if own { event_message_word(thread)? } else { super::FILTER_MARK.into() };
        if message != u64::from(super::FILTER_MARK) {
            if tracee.side.bond.as_deref().is_some_and(|bond| bond.wants(event::SECCOMP)) {
                if let Doing::Call(held) = std::mem::replace(&mut tracee.doing, Doing::Nothing) {
                    // It is translated anew when it goes on.
                    if let Some(slot) = held.slot {
                        self.window.release(slot);
                    }
                    set_registers(thread, &held.registers)?;
                }
                let stop = Stop { at: At::Filter, ..Stop::event(event::SECCOMP) };
                self.report(thread, stop, Some(message));
                return Ok(());
            }
            if matches!(tracee.doing, Doing::Nothing) {
                // Nobody is there to whom its filter could tell of the call.
                let now = registers(thread)?;
                let call = Call { abi: now.abi(), number: now.number(), args: now.args() };
                return self.answer(thread, now, call, -i64::from(ENOSYS.0), Place::Filter);
            }
        }
        // What every call's stop was for, was seen to when it was entered.
        if seen { self.go_on(thread, 0) } else { self.entered(thread, Place::Filter) }
    }

    /// An event that means nothing to us.
    pub(crate) fn passed(&mut self, thread: i32, event: Event) -> Result<(), Gone> {
        match self.tracees.get(&thread).and_then(|tracee| tracee.side.bond.as_deref()) {
            Some(bond) if bond.wants(event.0) => {
                let message = event_message_word(thread)?;
                self.report(thread, Stop::event(event.0), Some(message));
                Ok(())
            }
            _ => self.go_on(thread, 0),
        }
    }

    /// A tracee stopped as part of its group, or for an interrupt; or, newborn, for the first time.
    pub(crate) fn group_stopped(&mut self, thread: i32, signal: i32) -> Result<(), Gone> {
        let stops = matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        let Some(tracee) = self.tracees.get_mut(&thread) else { return self.go_on(thread, 0) };
        tracee.inside = false;
        let Some(bond) = &mut tracee.side.bond else {
            return if stops { self.listen(thread) } else { self.go_on(thread, 0) };
        };
        if matches!(tracee.doing, Doing::Loading(_)) {
            return self.go_on(thread, 0);
        }
        let code = number(signal) | event::STOP << 8;
        let whole = Info::Made(signal, code.cast_signed());
        let stop = if bond.newborn {
            bond.newborn = false;
            if bond.seized { Stop::new(At::Event, code, whole) } else { Stop::signal(libc::SIGSTOP) }
        } else if stops {
            if bond.seized {
                Stop::new(At::Group, code, whole)
            } else {
                Stop::new(At::Group, number(signal), Info::None)
            }
        } else if bond.seized && (bond.interrupted || bond.how == How::Listen || !tracee.side.is_ours()) {
            // Its debugger interrupted it, or it was continued.
            Stop::new(At::Event, code, whole)
        } else {
            // We interrupted it.
            return self.go_on(thread, 0);
        };
        self.report(thread, stop, None);
        Ok(())
    }

    /// The bond of a process that `parent` has just made, if it gets one.
    pub(crate) fn inherited(&self, parent: i32, child: i32, event: Event) -> Option<Box<Bond>> {
        let bond = self.tracees.get(&parent)?.side.bond.as_deref().filter(|bond| bond.wants(event.0))?;
        let own_child = parent_of(child) == Some(bond.process);
        let mut new = Bond::new((bond.tracer, bond.process), own_child, bond.seized, bond.options);
        new.newborn = true;
        Some(Box::new(new))
    }

    /// The new process is known; its parent goes on, or tells its debugger.
    pub(crate) fn bore(&mut self, parent: i32, child: i32, event: Event) -> Result<(), Gone> {
        let process = self.tracees.get(&child).and_then(|tracee| tracee.side.bond.as_deref()).map(|bond| bond.process);
        if let Some(process) = process {
            self.debuggers.hold(process);
        }
        match self.tracees.get(&parent) {
            Some(tracee) if tracee.side.bond.as_deref().is_some_and(|bond| bond.wants(event.0)) => {
                self.report(parent, Stop::event(event.0), Some(u64::from(child.unsigned_abs())));
                Ok(())
            }
            Some(tracee) => {
                // Who sleeps because it had no child may have one now.
                self.kick_waits(tracee.id());
                self.go_on(parent, 0)
            }
            None => Ok(()),
        }
    }

    /// A new program is about to make its first step, after execve(2).
    pub(crate) fn program_begins(&mut self, process: i32) -> Result<(), Gone> {
        let Some(bond) = self.tracees.get_mut(&process).and_then(|tracee| tracee.side.bond.as_deref_mut()) else {
            return self.go_on(process, 0);
        };
        let deferred = std::mem::take(&mut bond.deferred);
        let former = bond.message;
        let (told, seized) = (bond.wants(event::EXEC), bond.seized);
        bond.next = if told || seized { vec![Next::End] } else { vec![Next::Trap, Next::End] };
        // As in the call that has not ended yet.
        let mut now = registers(process)?;
        now.show_call(if now.abi() == coracle_intercept::Abi::X86_64 { 59 } else { 11 });
        set_registers(process, &now)?;
        for signal in deferred {
            kernel::send(process, process, signal);
        }
        let stop = Stop { call: AboutCall::Real, ..Stop::event(event::EXEC) };
        if told {
            self.report(process, stop, Some(former));
            return Ok(());
        }
        self.go_on_from_program(process, stop)
    }

    /// Goes through what follows an execve(2) of which no event tells.
    fn go_on_from_program(&mut self, process: i32, stop: Stop) -> Result<(), Gone> {
        let how = self.with_bond(process, |bond| {
            bond.stop = Some(stop);
            bond.how
        });
        match how {
            Some(how) => self.resume_guest(process, how, 0),
            None => Ok(()),
        }
    }

    /// Wakes the threads of a debugger that sleep in waits.
    pub(super) fn kick_waits(&mut self, process: i32) {
        let waiting =
            self.debuggers.by_process.get(&process).map(|debugger| debugger.waiting.clone()).unwrap_or_default();
        for thread in waiting {
            self.kick(thread);
        }
    }
}

/// Whether a SIGCHLD would be noticed: caught, or blocked to be waited for. (The default is to ignore it.)
fn cares_for_children(process: i32) -> bool {
    let Ok(status) = fs::read(format!("/proc/{process}/status")) else { return false };
    // Its name may hold any bytes.
    let status = String::from_utf8_lossy(&status);
    let bit = 1_u64 << (libc::SIGCHLD - 1);
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigBlk:").or_else(|| line.strip_prefix("SigCgt:")))
        .any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & bit != 0))
}
