//! ptrace(2) as a guest makes it: who may debug whom, and how a tracee goes on. What only reads and writes is in
//! [`super::data`].

use std::fs;

use coracle_intercept::{
    Call, Errno, Ids,
    errno::{EIO, EPERM, ESRCH},
};

use super::{
    bond::{ALL_OPTIONS, At, Bond, How, Next, REAL_OPTIONS, Stop, event},
    kernel::{self, ask},
};
use crate::{
    peer::last_errno,
    request::{self, Gone, Resume, resume},
    tracee::{Doing, Tracee},
    tracer::{Place, Tracer},
};

impl Tracer<'_> {
    /// The result of ptrace(2), called by guest thread `caller`.
    pub(super) fn guest_ptrace(&mut self, caller: i32, call: &Call) -> Result<i64, Errno> {
        let (which, pid, data) = (call.arg(0), call.int(1), call.arg(3));
        match which {
            ask::TRACEME => self.trace_me(caller),
            ask::ATTACH => self.attach(caller, pid, None),
            ask::SEIZE => {
                let options = u32::try_from(data).ok().filter(|options| options & !ALL_OPTIONS == 0);
                match options {
                    Some(options) if call.arg(2) == 0 => self.attach(caller, pid, Some(options)),
                    _ => Err(EIO),
                }
            }
            _ => {
                let tracee = self.tracees.get(&pid).ok_or(ESRCH)?;
                let bond = tracee.side.bond.as_ref().filter(|bond| bond.tracer == caller).ok_or(ESRCH)?;
                match which {
                    ask::KILL => {
                        kernel::send(tracee.id(), pid, libc::SIGKILL);
                        return Ok(0);
                    }
                    ask::INTERRUPT if !bond.seized => return Err(EIO),
                    ask::INTERRUPT => {
                        self.with_bond(pid, |bond| bond.interrupted = true);
                        self.kick(pid);
                        return Ok(0);
                    }
                    _ => {}
                }
                let stop = bond.stop.ok_or(ESRCH)?;
                self.ask_of_stopped(caller, pid, call, stop)
            }
        }
    }

    fn ask_of_stopped(&mut self, caller: i32, pid: i32, call: &Call, stop: Stop) -> Result<i64, Errno> {
        let data = call.arg(3);
        match call.arg(0) {
            ask::CONT => self.go(pid, How::Run, data),
            ask::SYSCALL => self.go(pid, How::ToSyscall, data),
            ask::SINGLESTEP => self.go(pid, How::Step, data),
            ask::LISTEN => {
                if stop.code >> 8 != event::STOP {
                    return Err(EIO);
                }
                self.go(pid, How::Listen, 0)
            }
            ask::DETACH => {
                let signal = signal_of(data)?;
                // What it is told now, it is told of its own accord.
                let _ = self.detach(pid, signal);
                Ok(0)
            }
            ask::SETOPTIONS => {
                let options = u32::try_from(data).ok().filter(|options| options & !ALL_OPTIONS == 0);
                let options = options.ok_or(Errno::EINVAL)?;
                self.with_bond(pid, |bond| bond.options = options);
                request::set_options(pid, !self.every, options & REAL_OPTIONS).map_err(|_| ESRCH)?;
                Ok(0)
            }
            _ => self.data_of_stopped(caller, pid, call, stop),
        }
    }

    fn go(&mut self, pid: i32, how: How, data: u64) -> Result<i64, Errno> {
        let signal = signal_of(data)?;
        // If it was killed meanwhile, that comes as its end.
        let _ = self.resume_guest(pid, how, signal);
        Ok(0)
    }

    /// A child has itself traced by the thread that made it.
    fn trace_me(&mut self, caller: i32) -> Result<i64, Errno> {
        let tracee = self.tracees.get(&caller).ok_or(EPERM)?;
        if tracee.side.bond.is_some() {
            return Err(EPERM);
        }
        // If that thread is gone, its process is the parent.
        let parent = Some(tracee.side.parent).filter(|parent| self.tracees.contains_key(parent));
        let parent = parent.or_else(|| parent_of(tracee.id())).ok_or(EPERM)?;
        let process = self.tracees.get(&parent).ok_or(EPERM)?.id();
        let own_child = parent_of(tracee.id()) == Some(process) && tracee.id() == caller;
        self.tie(caller, Bond::new((parent, process), own_child, false, 0));
        Ok(0)
    }

    fn attach(&mut self, caller: i32, pid: i32, seize: Option<u32>) -> Result<i64, Errno> {
        let process = self.tracees.get(&caller).ok_or(EPERM)?.id();
        let Some(target) = self.tracees.get(&pid) else {
            // SAFETY: kill with signal 0 only asks whether there is such a process.
            let exists = pid > 0 && (unsafe { libc::kill(pid, 0) } == 0 || last_errno() == EPERM);
            return Err(if exists { EPERM } else { ESRCH });
        };
        if target.id() == process || target.side.bond.is_some() || matches!(target.doing, Doing::WaitingForParent) {
            return Err(EPERM);
        }
        if !self.may_look_into(caller, target) {
            return Err(EPERM);
        }
        let (group, listening) = (target.id(), target.side.listening);
        let own_child = parent_of(group) == Some(process) && group == pid;
        let options = seize.unwrap_or(0);
        let mut bond = Bond::new((caller, process), own_child, seize.is_some(), options);
        bond.unset = options & REAL_OPTIONS != 0;
        let unset = bond.unset;
        self.tie(pid, bond);
        if seize.is_none() {
            kernel::send(group, pid, libc::SIGSTOP);
        }
        if listening || unset {
            // A group-stop is told of at once; or it is to stop for us, to be given its options.
            self.kick(pid);
        }
        Ok(0)
    }

    /// Whether a thread may look into another's memory: `__ptrace_may_access` in the kernel, by the ids that guests believe
    /// to have. Their root may.
    fn may_look_into(&self, caller: i32, target: &Tracee) -> bool {
        let Some(caller) = self.tracees.get(&caller) else { return false };
        let (own, other) = (caller.person.borrow().credentials, target.person.borrow().credentials);
        let all = |ids: Ids, id| [ids.real, ids.effective, ids.saved] == [id; 3];
        own.user.effective == 0
            || (target.process.borrow().dumpable && all(other.user, own.user.real) && all(other.group, own.group.real))
    }

    /// The user id that a thread believes to have, as signals and waits tell of it.
    pub(super) fn uid_of(&self, thread: i32) -> u32 {
        let tracee = self.tracees.get(&thread);
        tracee.map_or(self.rules.identity.uid, |tracee| tracee.person.borrow().credentials.user.real)
    }

    /// Records a bond, and has all calls of its debugger stop from now on.
    pub(super) fn tie(&mut self, pid: i32, bond: Bond) {
        let process = bond.process;
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            tracee.side.bond = Some(Box::new(bond));
        }
        if self.debuggers.hold(process) {
            // New: its threads run until something happens, and must be made to stop at calls; or sleep in a wait already.
            let threads: Vec<i32> =
                self.tracees.iter().filter(|(_, tracee)| tracee.id() == process).map(|(thread, _)| *thread).collect();
            for thread in threads {
                self.kick(thread);
            }
        }
    }

    /// Interrupts a tracee for ourselves.
    pub(super) fn kick(&mut self, thread: i32) {
        if let Some(tracee) = self.tracees.get_mut(&thread)
            && !tracee.side.kicked
        {
            let done = kernel::order(ask::INTERRUPT, thread, 0, 0).is_ok();
            // From a group-stop it comes at once, and for no other reason.
            tracee.side.kicked = done && !tracee.side.listening;
        }
    }

    /// Ends a bond; the tracee goes on by itself.
    pub(super) fn detach(&mut self, pid: i32, signal: i32) -> Result<(), Gone> {
        let Some(bond) = self.tracees.get_mut(&pid).and_then(|tracee| tracee.side.bond.take()) else { return Ok(()) };
        self.release(bond.process);
        let Some(stop) = bond.stop else { return Ok(()) };
        request::set_options(pid, !self.every, 0)?;
        if stop.at == At::Group {
            self.listen(pid)?;
            if signal != 0 {
                self.send(pid, signal);
            }
            return Ok(());
        }
        self.go_from(pid, stop, signal)
    }

    /// One bond less, or one end that has been told of.
    pub(super) fn release(&mut self, process: i32) {
        self.debuggers.release(process);
        // Perhaps there is nothing to wait for any more.
        self.kick_waits(process);
    }

    /// Lets a tracee go on as its debugger says.
    pub(super) fn resume_guest(&mut self, pid: i32, how: How, signal: i32) -> Result<(), Gone> {
        let Some(bond) = self.tracees.get_mut(&pid).and_then(|tracee| tracee.side.bond.as_mut()) else { return Ok(()) };
        let Some(stop) = bond.stop.take() else { return Ok(()) };
        bond.how = how;
        if how == How::Listen {
            return self.listen(pid);
        }
        while let Some(next) = self.with_bond(pid, |bond| bond.next.pop()).flatten() {
            let options = self.with_bond(pid, |bond| bond.options).unwrap_or(0);
            let stop = match (next, how) {
                (Next::End, How::ToSyscall) => Stop::end_of_execve(options),
                (Next::End, How::Step) => Stop::step(),
                (Next::End, _) => continue,
                (Next::Trap, _) => Stop::signal(libc::SIGTRAP),
            };
            self.report(pid, stop, None);
            return Ok(());
        }
        self.go_from(pid, stop, signal)
    }

    /// Lets a tracee go on from where it really is.
    fn go_from(&mut self, pid: i32, stop: Stop, signal: i32) -> Result<(), Gone> {
        match stop.at {
            At::Signal => self.go_on(pid, signal),
            At::Entry | At::Filter | At::Exit | At::Event | At::Group => {
                let is_plain = stop.code >> 8 == 0 && !matches!(stop.at, At::Group);
                if signal != 0 && is_plain {
                    self.send(pid, signal);
                }
                match stop.at {
                    At::Entry => self.entered(pid, Place::Entry),
                    At::Filter => self.entered(pid, Place::Filter),
                    _ => self.go_on(pid, 0),
                }
            }
        }
    }

    fn send(&self, thread: i32, signal: i32) {
        if let Some(tracee) = self.tracees.get(&thread) {
            kernel::send(tracee.id(), thread, signal);
        }
    }

    /// Lets a tracee stay in its group-stop.
    pub(super) fn listen(&mut self, thread: i32) -> Result<(), Gone> {
        if let Some(tracee) = self.tracees.get_mut(&thread) {
            tracee.side.listening = true;
            tracee.inside = false;
        }
        resume(thread, Resume::Listen, 0)
    }

    pub(super) fn with_bond<T>(&mut self, thread: i32, what: impl FnOnce(&mut Bond) -> T) -> Option<T> {
        self.tracees.get_mut(&thread).and_then(|tracee| tracee.side.bond.as_deref_mut()).map(what)
    }
}

/// The data of a request that resumes, as a signal.
fn signal_of(data: u64) -> Result<i32, Errno> {
    i32::try_from(data).ok().filter(|signal| *signal <= 64).ok_or(EIO)
}

/// The real parent of a process.
pub(crate) fn parent_of(process: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; then come the state and the parent.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
