//! The loop: one process waits for whatever happens to any thread of the guest, and answers.
//!
//! With the filter (P1) a tracee stops only when it enters a call of the table, at events, and at signals; a second time at
//! the call's end only if something was changed. Without it (P2) every call stops twice. Rules:
//! - A stopped tracee is always resumed, exactly once, before the next wait, unless it waits for its parent's word, or for
//!   that of a guest that debugs it (see [`crate::nested`]).
//! - A request that fails means that the tracee was killed meanwhile ([`Gone`]): the next wait tells.
//! - Registers that were changed are kept in [`Held`] and come back at the call's end.

use std::{cell::RefCell, io, mem, rc::Rc, sync::Arc};

use coracle_intercept::{
    Abi, Call, Left, Outside, Rules, Scratch, Verdict, enter,
    errno::{E2BIG, ENOSYS, LATER},
    leave,
};

use coracle_view::View;

use crate::{
    cow::CopyOnWrite,
    filter::CONFINE,
    follow::{self, Follow},
    front::{Line, News},
    lending::{lend, lend_program},
    memory::Memory,
    nested::{Debuggers, Event, Side},
    outside,
    peer::{Aliases, Peer},
    person::Person,
    process::Process,
    program::{self, Named},
    recorder::Recorder,
    registers::Registers,
    request::{Gone, Resume, event_message, registers, resume, set_registers, set_signal_mask, signal_mask},
    sandbox::{self, Filters},
    script::Runners,
    shortage::Shortage,
    sockets::Sockets,
    tracee::{Doing, Held, Then, Tracee, Tracees},
    watch::Watch,
    window::Window,
};

/// A tracer of one guest and all its children.
pub(crate) struct Tracer<'r> {
    pub(crate) rules: Rules<'r>,
    /// Every call stops (P2), rather than those of the filter (P1).
    pub(crate) every: bool,
    /// Seccomp stops come before syscall stops (Linux < 4.8).
    pub(crate) old_order: bool,
    /// The first execve(2) has been seen: from then on, calls are the guest's.
    armed: bool,
    pub(crate) main: i32,
    pub(crate) tracees: Tracees,
    /// Guests that debug others.
    pub(crate) debuggers: Debuggers,
    aliases: Aliases,
    pub(crate) sockets: RefCell<Sockets>,
    pub(crate) cow: CopyOnWrite<'r>,
    /// What the run uses is written down.
    pub(crate) recorder: Option<RefCell<Recorder>>,
    pub(crate) window: Window,
    runners: Runners,
    pub(crate) mark: u64,
    random: u64,
    /// The run's first process.
    pub(crate) person: Person,
    scratch: Box<Scratch>,
    /// Whether the first process is to stop, and has.
    pub(crate) watch: Arc<Watch>,
    /// Who waits for a slot of the window.
    pub(crate) shortage: Shortage,
    /// How many wait for their parents' word.
    pub(crate) newborns: usize,
    /// To whoever waits for the guest.
    pub(crate) line: Line,
    /// Who is kept on one processor with us.
    pub(crate) follow: RefCell<Follow>,
    /// The guest's program was started.
    started: bool,
}

/// Where a call is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its entry, where every call stops: its end stops too.
    Entry,
    /// By the filter.
    Filter,
}

impl<'r> Tracer<'r> {
    pub(crate) fn new(
        rules: Rules<'r>,
        view: Option<&'r View>,
        (every, old_order): (bool, bool),
        mark: u64,
        person: Person,
        line: Line,
    ) -> io::Result<Self> {
        Ok(Self {
            rules,
            every,
            old_order,
            armed: !every,
            main: 0,
            tracees: Tracees::new(),
            debuggers: Debuggers::default(),
            aliases: Aliases::default(),
            sockets: RefCell::default(),
            cow: CopyOnWrite::new(view),
            recorder: None,
            window: Window::new()?,
            runners: Runners::default(),
            mark,
            random: mark | 1,
            person,
            scratch: Box::new(Scratch::new()),
            watch: Arc::default(),
            shortage: Shortage::default(),
            newborns: 0,
            line,
            follow: RefCell::new(Follow::new()),
            started: false,
        })
    }

    /// Takes over the seized process `main`, which waits to be let go.
    pub(crate) fn adopt(&mut self, main: i32) -> io::Result<()> {
        self.main = main;
        self.line.tell(News::Main(main));
        self.watch.start(main)?;
        let window = self.window.address();
        let (process, person) = (Process::new(main, window), RefCell::new(self.person.clone()));
        let (side, filters) = (Side::default(), Filters::default());
        let first =
            Tracee { process, person, doing: Doing::Nothing, sprung: None, sent: 0, inside: false, filters, side };
        self.tracees.insert(main, first);
        if self.every {
            // It runs since it was seized: have it stop at calls from now on, before it makes any of the guest's.
            let mut status = 0;
            // SAFETY: PTRACE_INTERRUPT takes integers, waitpid writes one int.
            let stopped = unsafe {
                libc::ptrace(libc::PTRACE_INTERRUPT, main, 0_usize, 0_usize) == 0
                    && libc::waitpid(main, &raw mut status, libc::__WALL) == main
            };
            if !stopped || resume(main, Resume::ToSyscall, 0).is_err() {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    pub(crate) fn stopped(&mut self, thread: i32, signal: i32, event: i32) -> Result<(), Gone> {
        let mut watched = false;
        if let Some(tracee) = self.tracees.get_mut(&thread) {
            tracee.side.stopped();
            watched = tracee.process.borrow().watched;
        }
        self.settle(thread)?;
        if event != libc::PTRACE_EVENT_SECCOMP && signal != libc::SIGTRAP | 0x80 {
            self.end_sending(thread)?;
        }
        // After an execve(2) it may be known by another id: see there.
        if event != libc::PTRACE_EVENT_EXEC {
            self.follow.get_mut().stopped(thread, watched);
        }
        match event {
            libc::PTRACE_EVENT_SECCOMP => self.caught(thread),
            libc::PTRACE_EVENT_EXEC => self.executed(thread),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.gave_birth(thread, Event(event.unsigned_abs()))
            }
            libc::PTRACE_EVENT_STOP => self.stopped_as_group(thread, signal),
            0 if signal == libc::SIGTRAP | 0x80 => self.at_call(thread),
            0 if signal == libc::SIGTRAP && self.is_loading(thread) && is_at_breakpoint(thread) => self.loaded(thread),
            0 => self.signalled(thread, signal),
            _ => self.passed(thread, Event(event.unsigned_abs())),
        }
    }

    fn is_loading(&self, thread: i32) -> bool {
        self.tracees.get(&thread).is_some_and(|tracee| matches!(tracee.doing, Doing::Loading(_)))
    }

    /// Resumes a tracee as what it is doing asks.
    pub(crate) fn go_on(&mut self, thread: i32, signal: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get(&thread) else { return resume(thread, Resume::Run, signal) };
        let how = match &tracee.doing {
            Doing::Loading(_) => Resume::Run,
            Doing::Call(_) | Doing::Executing(..) => Resume::ToSyscall,
            _ => self.way_on(thread, tracee),
        };
        if let Some(tracee) = self.tracees.get_mut(&thread) {
            tracee.inside &= how == Resume::ToSyscall;
            tracee.side.resumes(thread, self.every);
        }
        resume(thread, how, signal)
    }

    /// At a call's entry or end.
    fn at_call(&mut self, thread: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return resume(thread, Resume::Run, 0) };
        tracee.inside = !tracee.inside;
        if !tracee.inside {
            return self.left(thread);
        }
        if matches!(tracee.doing, Doing::Call(_) | Doing::Executing(..)) {
            // The filter caught it before (Linux < 4.8).
            return self.go_on(thread, 0);
        }
        if self.shows_entry(thread) { Ok(()) } else { self.entered(thread, Place::Entry) }
    }

    /// A call of the table, or any, is being entered.
    pub(crate) fn entered(&mut self, thread: i32, place: Place) -> Result<(), Gone> {
        if !self.has_slot() {
            self.wait_for_slot(thread, place);
            return Ok(());
        }
        let now = registers(thread)?;
        let mut call = Call { abi: now.abi(), number: now.number(), args: now.args() };
        if !self.armed {
            let execve = libc::SYS_execve.cast_unsigned();
            if call.abi != Abi::X86_64 || call.number != execve {
                return self.go_on(thread, 0);
            }
            self.armed = true;
        }
        if follow::numbers(call.abi).contains(&u32::try_from(call.number).unwrap_or(u32::MAX)) {
            self.follow.get_mut().asked(thread, call.args[0] & u64::from(u32::MAX));
        }
        if call.number == u64::from(CONFINE) {
            return self.answer(thread, now, call, -i64::from(ENOSYS.0), place);
        }
        if !now.came_by_the_narrow_gate() && self.sandboxed(thread, now, &call, place)? {
            return Ok(());
        }
        if now.came_by_the_narrow_gate() {
            // Its numbers are the 32-bit ones, and no 32-bit argument can point to the window.
            let row = coracle_intercept::table::row_of(Abi::I386, call.number);
            return match row.filter(|row| self.rules.wants(row)) {
                Some(_) => self.answer(thread, now, call, -i64::from(ENOSYS.0), place),
                None => self.go_on(thread, 0),
            };
        }
        if self.debugging_call(thread, now, &call, place)? {
            return Ok(());
        }
        let sent = self.tracees.get_mut(&thread).map_or(0, |tracee| mem::take(&mut tracee.sent));
        let Some(tracee) = self.tracees.get(&thread) else { return Ok(()) };
        let (before, seen_at) = (call, tracee.process.borrow().window);
        let pretends = self.rules.identity.pretends();
        let shared = (&self.aliases, &self.sockets, &self.follow, self.recorder.as_ref());
        let peer = Peer::new(thread, &tracee.process, pretends, &self.tracees, shared, &self.cow);
        self.scratch.sent = sent;
        let verdict = enter(&self.rules, &peer, &mut call, &mut self.scratch);
        if let Some(recorder) = &self.recorder {
            recorder.borrow_mut().entered(&peer, &before, verdict, &self.scratch);
        }
        let pin = self.cow.take_pin().or_else(|| self.aliases.borrow_mut().shown.take());
        match verdict {
            Verdict::Pass => self.go_on(thread, 0),
            Verdict::Answer(answer) if answer == -i64::from(LATER.0) => {
                self.wait_for_copy(thread, place);
                Ok(())
            }
            Verdict::Answer(answer) => self.answer(thread, now, before, answer, place),
            Verdict::Make { outside, after } if outside::can_make(&call, outside) => {
                let left = {
                    let _turn = (outside == Outside::Plain).then(|| self.cow.turn());
                    outside::make(&self.rules, &peer, &call, (outside, after), (&before, &mut self.scratch))
                };
                match left {
                    Left::Result(answer) => self.answer(thread, now, before, answer, place),
                    Left::Again => self.entered(thread, place),
                }
            }
            Verdict::Make { after, .. } => match lend(&mut self.window, seen_at, self.scratch.lent(), &mut call) {
                Ok(Some(slot)) if pin.is_none() && self.may_spring(thread, (&before, &call), after, place) => {
                    self.spring(thread, now, &call, slot)
                }
                Ok(slot) => {
                    let then = Then::Leave(after, self.cow.turns());
                    if let Some(tracee) = self.tracees.get_mut(&thread) {
                        tracee.sent = sent;
                    }
                    self.hold(thread, now, call, Held { registers: now, call: before, then, slot, _pin: pin })
                }
                Err(errno) => self.answer(thread, now, before, -i64::from(errno.0), place),
            },
            Verdict::Execute { argv, descriptor, itself } => {
                let named = Named { descriptor, itself };
                let loading = program::prepare(&self.rules, &peer, named, &mut self.scratch, self.mark);
                let loading = loading.and_then(|loading| {
                    let runner = self.runners.of(loading.abi, loading.stack_kind)?;
                    let memory = Memory { pid: thread };
                    let slot = lend_program(&mut self.window, seen_at, memory, &mut call, argv, (&loading, runner))?;
                    Ok((loading, slot))
                });
                match loading {
                    Ok((loading, slot)) => {
                        let slot = Some(slot);
                        let then = Then::Leave(coracle_intercept::After::Nothing, 0);
                        self.hold(thread, now, call, Held { registers: now, call: before, then, slot, _pin: pin })?;
                        if let Some(tracee) = self.tracees.get_mut(&thread)
                            && let Doing::Call(held) = mem::replace(&mut tracee.doing, Doing::Nothing)
                        {
                            tracee.doing = Doing::Executing(held, Box::new(loading));
                        }
                        Ok(())
                    }
                    Err(E2BIG) if !self.window.is_large_free() => {
                        self.wait_for_slot(thread, place);
                        Ok(())
                    }
                    Err(errno) => self.answer(thread, now, before, -i64::from(errno.0), place),
                }
            }
        }
    }

    /// Has the kernel skip the call.
    pub(crate) fn answer(
        &mut self,
        thread: i32,
        now: Registers,
        call: Call,
        answer: i64,
        place: Place,
    ) -> Result<(), Gone> {
        let mut skipping = now;
        skipping.skip_with(answer);
        set_registers(thread, &skipping)?;
        if (place == Place::Entry || self.stops_at_calls(thread))
            && let Some(tracee) = self.tracees.get_mut(&thread)
        {
            // Its end will stop too, and there the kernel may have put an answer of its own.
            tracee.doing = Doing::Call(Box::new(Held {
                registers: now,
                call,
                then: Then::Answer(answer),
                slot: None,
                _pin: None,
            }));
        }
        self.go_on(thread, 0)
    }

    /// Has the kernel make the changed call, and stop at its end.
    pub(crate) fn hold(&mut self, thread: i32, now: Registers, call: Call, held: Held) -> Result<(), Gone> {
        let (mut changed, mut call) = (now, call);
        if let Some(tracee) = self.tracees.get(&thread) {
            sandbox::mark(tracee, self.mark, &mut call, (&held.call, now.instruction()));
        }
        changed.set_call(call.number, call.args);
        if set_registers(thread, &changed).is_err() {
            if let Some(slot) = held.slot {
                self.window.release(slot);
            }
            return Err(Gone);
        }
        if let Some(tracee) = self.tracees.get_mut(&thread) {
            tracee.doing = Doing::Call(Box::new(held));
            // With the old order the stop at the call's entry is still to come.
            tracee.inside |= self.every || !self.old_order;
            tracee.side.resumes(thread, self.every);
        }
        resume(thread, Resume::ToSyscall, 0)
    }

    /// A held call has ended.
    fn left(&mut self, thread: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return resume(thread, Resume::Run, 0) };
        let process = Rc::clone(&tracee.process);
        self.scratch.sent = mem::take(&mut tracee.sent);
        let held = match mem::replace(&mut tracee.doing, Doing::Nothing) {
            // execve(2) ends here only if it failed.
            Doing::Call(held) | Doing::Executing(held, _) => held,
            other => {
                tracee.doing = other;
                return self.call_ended(thread);
            }
        };
        if let Some(slot) = held.slot {
            self.window.release(slot);
        }
        let now = registers(thread)?;
        let left = match &held.then {
            Then::Wait(wanted) => return self.waited(thread, &held, wanted, now),
            Then::Answer(answer) => Left::Result(*answer),
            Then::Confined(taken) => {
                self.confined(thread, taken, now.result());
                Left::Result(now.result())
            }
            Then::Leave(after, turns) => {
                self.cow.look_back(*turns);
                let pretends = self.rules.identity.pretends();
                let shared = (&self.aliases, &self.sockets, &self.follow, self.recorder.as_ref());
                let peer = Peer::new(thread, &process, pretends, &self.tracees, shared, &self.cow);
                let result = self.sockets.borrow_mut().ended(thread, now.result());
                let made = Call { args: now.args(), ..held.call };
                leave(&self.rules, &peer, (&held.call, &made), *after, result, &mut self.scratch)
            }
        };
        let mut restored = held.registers;
        match left {
            Left::Result(result) => restored.set_result(result),
            Left::Again => {
                restored.call_again();
                if let Some(tracee) = self.tracees.get_mut(&thread) {
                    tracee.sent = self.scratch.sent;
                }
            }
        }
        set_registers(thread, &restored)?;
        self.call_ended(thread)
    }

    /// execve(2) has succeeded: the process is the runner now, and `process` is its only thread.
    fn executed(&mut self, process: i32) -> Result<(), Gone> {
        let former = event_message(process)?;
        self.follow.get_mut().renamed(former, process);
        self.follow.get_mut().stopped(process, true);
        if former != process
            && let Some(tracee) = self.tracees.remove(&former)
            && let Some(leader) = self.tracees.insert(process, tracee)
        {
            self.forget(leader);
            self.renamed(former, process);
        }
        let Some(tracee) = self.tracees.get_mut(&process) else { return self.go_on(process, 0) };
        let Doing::Executing(held, mut loading) = mem::replace(&mut tracee.doing, Doing::Nothing) else {
            return self.go_on(process, 0);
        };
        {
            let mut process = tracee.process.borrow_mut();
            process.exe = Rc::clone(&loading.exe);
            process.file = loading.file();
            (process.dumpable, process.springs) = (true, false);
        }
        if let Some((credentials, _)) = loading.person {
            tracee.person.borrow_mut().credentials = credentials;
        }
        tracee.inside = false;
        if let Some(bond) = &mut tracee.side.bond {
            bond.message = u64::from(former.unsigned_abs());
        }
        if let Some(slot) = held.slot {
            self.window.release(slot);
        }
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut now = registers(process)?;
        let Ok(script) =
            loading.begin(Memory { pid: process }, (now.instruction(), now.stack()), &self.window, self.random >> 13)
        else {
            return kill(process);
        };
        // The breakpoint would unblock its signal.
        loading.mask = Some(signal_mask(process)?).filter(|mask| mask & sigtrap() != 0);
        now.run_script(script);
        set_registers(process, &now)?;
        if let Some(tracee) = self.tracees.get_mut(&process) {
            tracee.doing = Doing::Loading(loading);
        }
        resume(process, Resume::Run, 0)
    }

    /// The runner has stopped at its breakpoint.
    fn loaded(&mut self, process: i32) -> Result<(), Gone> {
        let mut now = registers(process)?;
        let Some(tracee) = self.tracees.get_mut(&process) else { return self.go_on(process, 0) };
        let Doing::Loading(mut loading) = mem::replace(&mut tracee.doing, Doing::Nothing) else {
            return self.go_on(process, 0);
        };
        if now.result() != 0 {
            // What the kernel does to a process whose program cannot be mapped any more.
            return kill(process);
        }
        let Ok(started) = loading.finish(Memory { pid: process }) else { return kill(process) };
        {
            let mut process = tracee.process.borrow_mut();
            (process.window, process.springs) = (started.window, self.window.is_executable());
        }
        if !self.started {
            self.started = true;
            self.line.tell(News::Begun);
        }
        if let Some(mask) = loading.mask {
            set_signal_mask(process, mask)?;
        }
        now.start_program(started.entry, started.stack);
        set_registers(process, &now)?;
        self.program_begins(process)
    }
}

/// Whether a thread has just executed a breakpoint instruction, rather than that somebody sent it the same signal.
fn is_at_breakpoint(thread: i32) -> bool {
    let mut instruction = [0];
    let Ok(now) = registers(thread) else { return false };
    let read = Memory { pid: thread }.read(now.instruction().wrapping_sub(1), &mut instruction);
    read.is_ok() && instruction == [0xcc]
}

/// The breakpoint's signal in a mask.
fn sigtrap() -> u64 {
    1 << (libc::SIGTRAP - 1)
}

pub(crate) fn kill(process: i32) -> Result<(), Gone> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(process, libc::SIGKILL) } == 0 { Ok(()) } else { Err(Gone) }
}
