//! The bond between a guest thread that is debugged and the one that debugs it, and the stops that the latter is shown.

use std::mem;

use crate::request::set_options;

/// Options and events of ptrace(2) as numbers that fit each other: event N is wanted by option `1 << N`.
pub(crate) mod event {
    /// Values of `PTRACE_EVENT_…`.
    pub(crate) const EXEC: u32 = 4;
    pub(crate) const VFORK_DONE: u32 = 5;
    pub(crate) const EXIT: u32 = 6;
    pub(crate) const SECCOMP: u32 = 7;
    pub(crate) const STOP: u32 = 128;
}

/// `PTRACE_O_TRACESYSGOOD`.
pub(crate) const SYSGOOD: u32 = 1;
/// `PTRACE_O_EXITKILL`.
pub(crate) const EXITKILL: u32 = 1 << 20;
/// Every option that may be set without privileges.
pub(crate) const ALL_OPTIONS: u32 = 0xff | EXITKILL;
/// Options that the kernel itself must have been given for their events to come.
pub(crate) const REAL_OPTIONS: u32 = 1 << event::VFORK_DONE | 1 << event::EXIT | 1 << event::SECCOMP;

/// How a debugger last let its tracee go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Until something happens.
    Run,
    /// Until it enters or leaves a system call.
    ToSyscall,
    /// For one instruction.
    Step,
    /// Not at all: it stays in its group-stop, but tells when that ends.
    Listen,
}

/// Where a stopped tracee really is, which decides how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Entering a call, whose meaning is found when it goes on: its debugger sees and changes what the program wrote.
    Entry,
    /// The same, caught by a filter of the guest's own.
    Filter,
    /// Leaving a call.
    Exit,
    /// About to get a signal.
    Signal,
    /// Group-stop.
    Group,
    /// At an event, or newborn.
    Event,
}

/// What `PTRACE_GETSIGINFO` says of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Info {
    /// What the kernel says: the signal is real.
    Real,
    /// `EINVAL`, as in the group-stop of an attached tracee.
    None,
    /// `si_signo` and `si_code`; an address for a trap, else the process's own ids.
    Made(i32, i32),
}

/// A stop, as a debugger sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) at: At,
    /// Signal, and `event << 8`: what waits show.
    pub(crate) code: u32,
    pub(crate) info: Info,
    /// A wait has told of it.
    pub(crate) collected: bool,
    /// Earlier stops are told of first.
    pub(crate) order: u64,
    /// What `PTRACE_GET_SYSCALL_INFO` says.
    pub(crate) call: AboutCall,
}

/// What `PTRACE_GET_SYSCALL_INFO` says of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AboutCall {
    /// What the kernel says.
    Real,
    /// No call: a trap at the next instruction.
    None,
    /// No call, since calls are not told from other traps (`PTRACE_O_TRACESYSGOOD`).
    Hidden,
    /// A call's end, where the kernel knows of none.
    End,
}

impl Stop {
    pub(crate) fn new(at: At, code: u32, info: Info) -> Self {
        Self { at, code, info, collected: false, order: 0, call: AboutCall::Real }
    }

    /// A stop for an event, with what the kernel says of such.
    pub(crate) fn event(event: u32) -> Self {
        let code = number(libc::SIGTRAP) | event << 8;
        Self::new(At::Event, code, Info::Made(libc::SIGTRAP, code.cast_signed()))
    }

    /// A stop at a call's entry or end.
    pub(crate) fn call(at: At, options: u32) -> Self {
        let good = options & SYSGOOD != 0;
        let code = number(libc::SIGTRAP) | if good { 0x80 } else { 0 };
        let call = if good { AboutCall::Real } else { AboutCall::Hidden };
        Self { call, ..Self::new(at, code, Info::Made(libc::SIGTRAP, code.cast_signed())) }
    }

    /// A stop at the end of execve(2), where the kernel knows of none.
    pub(crate) fn end_of_execve(options: u32) -> Self {
        let stop = Self::call(At::Event, options);
        Self { call: if options & SYSGOOD == 0 { AboutCall::Hidden } else { AboutCall::End }, ..stop }
    }

    /// The trap after one instruction.
    pub(crate) fn step() -> Self {
        const TRAP_BRKPT: i32 = 1;
        let info = Info::Made(libc::SIGTRAP, TRAP_BRKPT);
        Self { call: AboutCall::None, ..Self::new(At::Event, number(libc::SIGTRAP), info) }
    }

    /// A signal that is made up.
    pub(crate) fn signal(signal: i32) -> Self {
        Self::new(At::Event, number(signal), Info::Made(signal, libc::SI_USER))
    }
}

/// What follows the stop that tells of an execve(2), while the tracee waits at its program's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The call's end, for those who look at calls or step.
    End,
    /// The trap of those who asked for no event.
    Trap,
}

/// One thread's debugger.
#[derive(Debug)]
pub(crate) struct Bond {
    /// Its debugger: the thread, and its process.
    pub(crate) tracer: i32,
    pub(crate) process: i32,
    /// The debugger is its real parent too: then the kernel tells of its end.
    pub(crate) own_child: bool,
    /// By `PTRACE_SEIZE` rather than `PTRACE_ATTACH` or `PTRACE_TRACEME`.
    pub(crate) seized: bool,
    pub(crate) options: u32,
    /// Options of the kernel's that must be set when it stops.
    pub(crate) unset: bool,
    pub(crate) how: How,
    pub(crate) stop: Option<Stop>,
    /// What follows, the last first.
    pub(crate) next: Vec<Next>,
    /// `PTRACE_INTERRUPT` was asked for.
    pub(crate) interrupted: bool,
    /// It came with its parent's event and has not stopped yet.
    pub(crate) newborn: bool,
    /// Its process group, as of its last stop.
    pub(crate) group: i32,
    /// What `PTRACE_GETEVENTMSG` says.
    pub(crate) message: u64,
    /// Signals that came while its program was being loaded.
    pub(crate) deferred: Vec<i32>,
    /// Resources used, as of its last stop.
    pub(crate) usage: Usage,
}

impl Bond {
    pub(crate) fn new((tracer, process): (i32, i32), own_child: bool, seized: bool, options: u32) -> Self {
        Self {
            tracer,
            process,
            own_child,
            seized,
            options,
            unset: false,
            how: How::Run,
            stop: None,
            next: Vec::new(),
            interrupted: false,
            newborn: false,
            group: 0,
            message: 0,
            deferred: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Gives the kernel the options whose events it alone can tell of, if it has not got them. The tracee is stopped.
    pub(crate) fn apply_options(&mut self, thread: i32, every: bool) {
        if mem::take(&mut self.unset) {
            let _ = set_options(thread, !every, self.options & REAL_OPTIONS);
        }
    }

    /// Whether it is to stop at this event.
    pub(crate) fn wants(&self, event: u32) -> bool {
        event < 32 && self.options & 1 << event != 0
    }
}

/// The end of a tracee, of which its debugger has not heard yet.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The debugger's thread and process.
    pub(crate) tracer: i32,
    pub(crate) process: i32,
    pub(crate) thread: i32,
    pub(crate) group: i32,
    /// As wait(2) gives it.
    pub(crate) status: i32,
    pub(crate) usage: Usage,
    pub(crate) order: u64,
}

/// A `struct rusage`, as wait4(2) gave it.
#[derive(Clone, Copy)]
pub(crate) struct Usage(pub(crate) libc::rusage);

impl Default for Usage {
    fn default() -> Self {
        // SAFETY: rusage holds integers only, for which all-zero is a value.
        Self(unsafe { mem::zeroed() })
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.ru_utime.tv_sec)
    }
}

/// A signal as an unsigned number.
pub(crate) fn number(signal: i32) -> u32 {
    signal.unsigned_abs()
}
