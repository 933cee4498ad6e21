//! Guests that debug guests.
//!
//! For the kernel a thread has one tracer, and that is us. So a guest's ptrace(2), and the waits of those that debug, are
//! played here: a [`bond`] ties a tracee to its debugger; a stop that the debugger is to see is a real stop of ours from
//! which the tracee is not resumed until the debugger says so ([`stops`]); what reads or changes a stopped tracee is the
//! kernel's own request, made in the debugger's stead ([`data`]).
//!
//! Rules:
//! - A debugger sees its tracee as the program wrote it: a call is translated after the stop at its entry has ended, so that
//!   the debugger's changes count, and is put back before the stop at its end. Loading a program shows as one execve(2).
//! - Whoever does not debug pays nothing: no wait is in the filter. All calls of a process stop from its first bond to
//!   its last.
//! - A debugger that sleeps in a wait is woken by an interrupt, which has the kernel restart the call, where we see it.

mod bond;
mod data;
mod kernel;
mod requests;
mod stops;
mod waits;

use std::collections::HashMap;

pub(crate) use bond::{Bond, Usage};
use bond::{Exit, How};
use coracle_intercept::{Abi, Call, errno::ESRCH};
pub(crate) use requests::parent_of;
pub(crate) use stops::Event;
pub(crate) use waits::Wanted;

use crate::{
    memory::Memory,
    registers::Registers,
    request::{Gone, Resume, registers},
    tracee::Tracee,
    tracer::{Place, Tracer},
};

/// Number of ptrace(2).
pub(crate) fn ptrace_number(abi: Abi) -> u32 {
    if abi == Abi::X86_64 { 101 } else { 26 }
}

/// What the filter returns with its `SECCOMP_RET_TRACE`, to be told from filters of the guest's own.
pub(crate) const FILTER_MARK: u32 = 0xc0ac;

/// Processes that debug others.
#[derive(Debug, Default)]
pub(crate) struct Debuggers {
    by_process: HashMap<i32, Debugger>,
    /// Ends that no debugger has heard of yet.
    exits: Vec<Exit>,
    /// Counts stops.
    order: u64,
    /// Resources used by the thread that wait told of last.
    pub(crate) usage: Usage,
}

/// As many ends are kept for debuggers that do not wait for them; the kernel would have run out of process ids by then.
const MOST_EXITS: usize = 1 << 15;

/// What debugging adds to a thread.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// The thread that made it.
    pub(crate) parent: i32,
    /// It stays in a group-stop.
    pub(crate) listening: bool,
    /// We interrupted it, or it is newborn, and it has not stopped for that yet.
    kicked: bool,
    /// It stopped after we had; if it had stopped already when we did, it stops once more for it, at once.
    answered: bool,
    /// So it was at its last stop but one.
    carried: bool,
    /// Its next wait sleeps without the kernel's help.
    park: bool,
    /// Its debugger.
    pub(crate) bond: Option<Box<Bond>>,
}

impl Side {
    /// Of a thread that `parent` made.
    pub(crate) fn of(parent: i32, bond: Option<Box<Bond>>) -> Self {
        Self { parent, bond, kicked: true, ..Self::default() }
    }

    /// It stopped, for whatever reason: to the kernel that answers every interrupt before.
    pub(crate) fn stopped(&mut self) {
        self.carried = self.answered;
        self.answered = std::mem::take(&mut self.kicked);
        self.listening = false;
    }

    /// Whether it may have stopped because we interrupted it.
    fn is_ours(&self) -> bool {
        self.answered || self.carried
    }

    /// It goes on, and its debugger did not see why it stopped.
    pub(crate) fn resumes(&mut self, thread: i32, every: bool) {
        if let Some(bond) = &mut self.bond {
            bond.apply_options(thread, every);
            if bond.interrupted {
                let _ = kernel::order(kernel::ask::INTERRUPT, thread, 0, 0);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Debugger {
    /// Bonds, and ends not yet told of.
    count: usize,
    /// Threads that sleep in a wait.
    waiting: Vec<i32>,
    /// What its next SIGCHLD is to say: code, thread and status.
    note: Option<(i32, i32, i32)>,
}

impl Debuggers {
    /// Whether anybody debugs.
    pub(crate) fn are_any(&self) -> bool {
        !self.by_process.is_empty()
    }

    /// Whether this process debugs, so that all its calls stop.
    pub(crate) fn include(&self, process: i32) -> bool {
        !self.by_process.is_empty() && self.by_process.contains_key(&process)
    }

    /// One bond more; whether it is the first.
    fn hold(&mut self, process: i32) -> bool {
        let debugger = self.by_process.entry(process).or_default();
        debugger.count += 1;
        debugger.count == 1
    }

    fn release(&mut self, process: i32) {
        if let Some(debugger) = self.by_process.get_mut(&process) {
            debugger.count = debugger.count.saturating_sub(1);
        }
        self.drop_idle(process);
    }

    /// Forgets a process that has nothing to do with debugging any more.
    fn drop_idle(&mut self, process: i32) {
        let idle = |debugger: &Debugger| debugger.count == 0 && debugger.waiting.is_empty();
        if self.by_process.get(&process).is_some_and(idle) {
            self.by_process.remove(&process);
        }
    }

    /// One end more is to be kept: forgets the oldest, if there are too many.
    fn make_room(&mut self) {
        if self.exits.len() >= MOST_EXITS
            && let Some((at, _)) = self.exits.iter().enumerate().min_by_key(|(_, exit)| exit.order)
        {
            let process = self.exits.swap_remove(at).process;
            self.release(process);
        }
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }
}

impl Tracer<'_> {
    /// Whether a thread's calls stop at their entry and end.
    pub(crate) fn stops_at_calls(&self, thread: i32) -> bool {
        self.every
            || self.tracees.get(&thread).is_some_and(|tracee| {
                tracee.filters.listen()
                    || self.debuggers.include(tracee.id())
                    || tracee.side.bond.as_deref().is_some_and(|bond| bond.how == How::ToSyscall)
            })
    }

    /// How a thread goes on that is in the middle of nothing.
    pub(crate) fn way_on(&self, thread: i32, tracee: &Tracee) -> Resume {
        if !self.debuggers.are_any() {
            return if self.every || tracee.filters.listen() { Resume::ToSyscall } else { Resume::Run };
        }
        let steps = tracee.side.bond.as_deref().is_some_and(|bond| bond.how == How::Step);
        let stops = self.stops_at_calls(thread);
        // A step into a call that is to stop, or on from where one has stopped, ends at the call's end.
        if steps && !tracee.inside && !(stops && is_at_call(thread)) {
            return Resume::Step;
        }
        if steps || stops { Resume::ToSyscall } else { Resume::Run }
    }

    /// Handles a call that debugging gives a meaning to; whether it was one.
    pub(crate) fn debugging_call(
        &mut self,
        thread: i32,
        now: Registers,
        call: &Call,
        place: Place,
    ) -> Result<bool, Gone> {
        if call.number == u64::from(ptrace_number(call.abi)) && !self.old_order {
            let answer = self.guest_ptrace(thread, call).unwrap_or_else(|errno| -i64::from(errno.0));
            self.answer(thread, now, *call, answer, place)?;
            return Ok(true);
        }
        let Some(process) = self.tracees.get(&thread).map(|tracee| tracee.id()) else { return Ok(false) };
        if !self.debuggers.include(process) {
            return Ok(false);
        }
        match Wanted::of(thread, call) {
            Some(wanted) => self.guest_wait(thread, process, now, *call, wanted, place),
            None => Ok(false),
        }
    }

    /// A thread has ended.
    pub(crate) fn ended(&mut self, thread: i32, process: i32, bond: Option<Box<Bond>>, status: i32) {
        if let Some(bond) = bond {
            if bond.own_child && thread == process {
                self.release(bond.process);
            } else {
                let order = self.debuggers.next_order();
                let usage = self.debuggers.usage;
                let (tracer, process, group) = (bond.tracer, bond.process, bond.group);
                self.debuggers.make_room();
                self.debuggers.exits.push(Exit { tracer, process, thread, group, status, usage, order });
                self.tell(process, thread, waits::code_of(status));
            }
        }
        if self.debuggers.include(process) {
            self.debugger_ended(thread, process);
        }
    }

    /// A thread that may have debugged others has ended: they go on by themselves.
    fn debugger_ended(&mut self, thread: i32, process: i32) {
        let tied: Vec<i32> = self
            .tracees
            .iter()
            .filter(|(_, tracee)| tracee.side.bond.as_ref().is_some_and(|bond| bond.tracer == thread))
            .map(|(tied, _)| *tied)
            .collect();
        for tied in tied {
            let kills = self.with_bond(tied, |bond| bond.options & bond::EXITKILL != 0) == Some(true);
            if kills && let Some(tracee) = self.tracees.get(&tied) {
                kernel::send(tracee.id(), tied, libc::SIGKILL);
            }
            let _ = self.detach(tied, 0);
        }
        let before = self.debuggers.exits.len();
        self.debuggers.exits.retain(|exit| exit.tracer != thread);
        for _ in self.debuggers.exits.len()..before {
            self.debuggers.release(process);
        }
        if let Some(debugger) = self.debuggers.by_process.get_mut(&process) {
            debugger.waiting.retain(|waiting| *waiting != thread);
        }
        self.debuggers.drop_idle(process);
    }

    /// A thread has taken its process's id by execve(2).
    pub(crate) fn renamed(&mut self, former: i32, process: i32) {
        if let Some(debugger) = self.debuggers.by_process.get_mut(&process) {
            debugger.waiting.retain(|waiting| *waiting != former && *waiting != process);
        }
        for tracee in self.tracees.values_mut() {
            if let Some(bond) = &mut tracee.side.bond
                && bond.tracer == former
            {
                bond.tracer = process;
            }
        }
    }
}

/// Whether a stopped thread's next instruction makes a call.
fn is_at_call(thread: i32) -> bool {
    let Ok(now) = registers(thread) else { return false };
    let mut code = [0; 2];
    let read = Memory { pid: thread }.read(now.instruction(), &mut code);
    read.is_ok() && matches!(code, [0x0f, 0x05 | 0x34] | [0xcd, 0x80])
}
