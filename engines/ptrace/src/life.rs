//! Births, stops and deaths: who of the guest there is.
//!
//! The front is told of the first process's end at once; the loop goes on while there is anybody else.

use std::{cell::RefCell, collections::hash_map::Entry, io, ptr, rc::Rc, time::Duration};

use coracle_api::Ended;

use crate::{
    front::News,
    nested::{Event, Side, parent_of},
    process::Process,
    request::{Gone, event_message},
    sandbox::Filters,
    tracee::{Doing, Tracee},
    tracer::{Tracer, kill},
};

impl Tracer<'_> {
    /// Traces the adopted process and its descendants until none is left.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.follow.get_mut().begin();
        let mut ended = None;
        loop {
            let mut status = 0;
            // Its end is told when it is known whether anybody is left.
            let short = self.shortage.is_any();
            let how = libc::__WALL | if ended.is_some() || short { libc::WNOHANG } else { 0 };
            let usage = if self.debuggers.are_any() { &raw mut self.debuggers.usage.0 } else { ptr::null_mut() };
            let thread = self.follow.get_mut().wait(&mut status, how, usage);
            if thread < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ECHILD) => {
                        ended.into_iter().for_each(|ended| self.line.tell(News::Ended(ended)));
                        return Ok(());
                    }
                    _ => return Err(error),
                }
            }
            if thread == 0 {
                if let Some(ended) = ended.take() {
                    self.line.part();
                    self.line.tell(News::Ended(ended));
                } else {
                    // Nobody tells when a call falls asleep.
                    std::thread::sleep(Duration::from_millis(1));
                }
            } else {
                ended = self.happened(thread, status).or(ended);
            }
            if short {
                self.end_shortage();
            }
        }
    }

    /// Handles one report of wait; how the main process ended, if that is it.
    fn happened(&mut self, thread: i32, status: i32) -> Option<Ended> {
        if libc::WIFSTOPPED(status) {
            // An error means that the tracee is no more: see the header of `tracer`.
            let _ = self.stopped(thread, libc::WSTOPSIG(status), status >> 16);
            return None;
        }
        self.follow.get_mut().ended(thread);
        if self.copied(thread, status) {
            return None;
        }
        if let Some(mut tracee) = self.tracees.remove(&thread) {
            self.ended(thread, tracee.id(), tracee.side.bond.take(), status);
            self.forget(tracee);
            self.sockets.borrow_mut().forget(thread);
            self.shortage.forget(thread);
            self.forget_copy(thread);
        }
        if self.newborns > 0 {
            self.end_orphans();
        }
        if thread != self.main {
            return None;
        }
        self.main = 0;
        self.watch.ends();
        let ended = if libc::WIFEXITED(status) {
            Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
        } else {
            Ended::Signaled(libc::WTERMSIG(status))
        };
        if let Some(recorder) = &self.recorder {
            recorder.borrow_mut().ended(ended);
        }
        Some(ended)
    }

    pub(crate) fn forget(&mut self, tracee: Tracee) {
        if let Some(sprung) = tracee.sprung {
            self.window.release(sprung.slot);
        }
        match tracee.doing {
            Doing::Call(held) | Doing::Executing(held, _) => {
                if let Some(slot) = held.slot {
                    self.window.release(slot);
                }
            }
            Doing::WaitingForParent => self.newborns -= 1,
            Doing::Nothing | Doing::Loading(_) => {}
        }
    }

    /// A newborn whose parent was killed before it could tell of it: as if the parent had been killed before the birth.
    fn end_orphans(&self) {
        for (thread, tracee) in &self.tracees {
            if matches!(tracee.doing, Doing::WaitingForParent) {
                let parent = parent_of(*thread);
                let known = self.tracees.values().any(|other| Some(other.id()) == parent);
                if !known && parent != Some(std::process::id().cast_signed()) {
                    let _ = kill(*thread);
                }
            }
        }
    }

    /// A newborn's first stop, a group-stop, or the answer to our interrupt.
    pub(crate) fn stopped_as_group(&mut self, thread: i32, signal: i32) -> Result<(), Gone> {
        if let Entry::Vacant(place) = self.tracees.entry(thread) {
            // Its parent's event is still to come.
            let (process, person) = (Process::new(thread, 0), RefCell::new(self.person.clone()));
            let (doing, side) = (Doing::WaitingForParent, Side::default());
            place.insert(Tracee {
                process,
                person,
                doing,
                sprung: None,
                sent: 0,
                inside: false,
                filters: Filters::default(),
                side,
            });
            self.newborns += 1;
            return Ok(());
        }
        if thread == self.main {
            if matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
                if self.watch.stops() {
                    self.line.tell(News::Stopped(signal));
                }
            } else if self.watch.goes_on() {
                self.line.wake();
            }
        }
        self.group_stopped(thread, signal)
    }

    pub(crate) fn gave_birth(&mut self, parent: i32, event: Event) -> Result<(), Gone> {
        let child = event_message(parent)?;
        // Killed at once, it may have been waited for before its parent told of it: a record would be of nobody, and one day
        // of another process by the same id.
        if let Some(known) = self.tracees.get(&parent)
            && is_traced(child)
        {
            // SAFETY: tgkill with signal 0 only asks whether the thread is in the process.
            let is_thread = unsafe { libc::syscall(libc::SYS_tgkill, known.id(), child, 0) } == 0;
            let process = if is_thread { Rc::clone(&known.process) } else { known.process.borrow().fork(child) };
            let side = Side::of(parent, self.inherited(parent, child, event));
            let (person, filters) = (known.person.clone(), known.filters.clone());
            self.follow.get_mut().bore(parent, child);
            let newborn =
                Tracee { process, person, doing: Doing::Nothing, sprung: None, sent: 0, inside: false, filters, side };
            if let Some(waited) = self.tracees.insert(child, newborn) {
                self.forget(waited);
                // It may have been killed while it waited.
                let _ = self.stopped(child, libc::SIGTRAP, libc::PTRACE_EVENT_STOP);
            }
        }
        self.bore(parent, child, event)
    }
}

/// Whether a thread is ours to wait for, alive or not.
fn is_traced(thread: i32) -> bool {
    let Ok(id) = libc::id_t::try_from(thread) else { return false };
    let asked = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: waitid writes nothing where it is given no place to, and with WNOWAIT it takes nothing away.
    unsafe { libc::waitid(libc::P_PID, id, ptr::null_mut(), asked) == 0 }
}
