//! Large files of a copy-on-write view are copied beside the loop: only those who wait for the copy wait.
//!
//! A child of the tracer makes the copy, and its end, which the loop waits for with all others, says that it is ready or
//! what went wrong. Meanwhile the call that needs it stands at its entry; then it is entered anew, and finds the copy.
//! Rules:
//! - The child only writes the copy. Names are changed by the tracer alone, in its turn.
//! - A copy that nobody waits for any more is not made, and not kept.

use std::{cell::RefCell, collections::HashMap, ffi::CStr};

use coracle_intercept::{Errno, FileId};
use coracle_view::{Aside, View};

use crate::tracer::{Place, Tracer};

/// From so many bytes on a file is large: to copy fewer takes no longer than to start a process.
const LARGE: i64 = 4 << 20;

/// By which status a child says that the name means another file by now.
const MEANWHILE: i32 = 255;

/// Device and inode.
type Key = (u64, u64);

/// Copies under way, and those that have been made and not been used yet.
#[derive(Debug, Default)]
pub(crate) struct Copying {
    running: Vec<Running>,
    ready: HashMap<Key, Aside>,
    failed: HashMap<Key, Errno>,
}

#[derive(Debug)]
struct Running {
    child: i32,
    file: Key,
    aside: Aside,
    /// Threads, and where their calls are caught.
    waiting: Vec<(i32, Place)>,
}

/// How far a copy is.
pub(crate) enum State {
    Ready(Aside),
    Failed(Errno),
    /// It is being made.
    Running,
    /// It is to be made at once, by whoever asks.
    None,
}

impl Copying {
    /// Looks for the copy of a file, and begins it if that is large.
    pub(crate) fn find(&mut self, view: &View, host: &CStr, shared: &FileId, mode: u32) -> State {
        let file = key(shared);
        if let Some(aside) = self.ready.remove(&file) {
            return State::Ready(aside);
        }
        if let Some(errno) = self.failed.remove(&file) {
            return State::Failed(errno);
        }
        if self.running.iter().any(|running| running.file == file) {
            return State::Running;
        }
        if !is_large(host) {
            return State::None;
        }
        let Ok(aside) = view.aside() else { return State::None };
        // SAFETY: the child makes system calls, and allocates at most, which the C library makes possible after fork;
        // it ends without running anything of its parent's. It is killed with the tracer.
        let child = unsafe { libc::fork() };
        match child {
            0 => {
                // SAFETY: prctl takes numbers here, as _exit does.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
                let status = match view.copy_aside(&aside, host, shared, mode) {
                    Ok(true) => 0,
                    Ok(false) => MEANWHILE,
                    Err(errno) => errno as i32,
                };
                // SAFETY: as above.
                unsafe { libc::_exit(status) }
            }
            child if child > 0 => {
                self.running.push(Running { child, file, aside, waiting: Vec::new() });
                State::Running
            }
            _ => State::None,
        }
    }

    /// A thread's call waits for the copy of this file.
    fn wait(&mut self, file: Key, thread: i32, place: Place) {
        if let Some(running) = self.running.iter_mut().find(|running| running.file == file) {
            running.waiting.push((thread, place));
        }
    }

    /// A thread is no more.
    fn forget(&mut self, thread: i32) {
        for running in &mut self.running {
            let before = running.waiting.len();
            running.waiting.retain(|(waiting, _)| *waiting != thread);
            if before > 0 && running.waiting.is_empty() {
                // SAFETY: kill takes two numbers; the child has not been waited for, so the id is its own.
                unsafe { libc::kill(running.child, libc::SIGKILL) };
            }
        }
    }

    /// A process has ended: if it made a copy, those who wait for that.
    fn ended(&mut self, process: i32, status: i32) -> Option<Vec<(i32, Place)>> {
        let at = self.running.iter().position(|running| running.child == process)?;
        let Running { file, aside, waiting, .. } = self.running.swap_remove(at);
        if waiting.is_empty() {
            return Some(waiting);
        }
        match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
            (true, 0) => drop(self.ready.insert(file, aside)),
            (true, MEANWHILE) => {}
            (true, errno) => drop(self.failed.insert(file, Errno(u16::try_from(errno).unwrap_or(5)))),
            // Killed: for want of memory, perhaps.
            (false, _) => drop(self.failed.insert(file, Errno(5))),
        }
        Some(waiting)
    }
}

fn key(file: &FileId) -> Key {
    (file.device, file.inode)
}

/// Whether a copy of this file is made beside.
pub(crate) fn is_large(host: &CStr) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a NUL-terminated path; lstat writes one struct stat, which is read only when it succeeded.
    unsafe { libc::lstat(host.as_ptr(), stat.as_mut_ptr()) == 0 && stat.assume_init().st_size >= LARGE }
}

/// The copies of a run, and the file for whose copy the call at hand is to wait.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    all: RefCell<Copying>,
    wanted: std::cell::Cell<Key>,
}

impl Copies {
    /// See [`Copying::find`].
    pub(crate) fn find(&self, view: &View, host: &CStr, shared: &FileId, mode: u32) -> State {
        self.wanted.set(key(shared));
        self.all.borrow_mut().find(view, host, shared, mode)
    }
}

impl Tracer<'_> {
    /// The call that a thread is entering waits for a copy.
    pub(crate) fn wait_for_copy(&self, thread: i32, place: Place) {
        let copies = self.cow.copies();
        copies.all.borrow_mut().wait(copies.wanted.get(), thread, place);
    }

    /// A thread is no more: its id may become another's.
    pub(crate) fn forget_copy(&self, thread: i32) {
        self.cow.copies().all.borrow_mut().forget(thread);
    }

    /// Lets those go on who waited for the copy that a process has made; whether it was such a process.
    pub(crate) fn copied(&mut self, process: i32, status: i32) -> bool {
        let Some(waiting) = self.cow.copies().all.borrow_mut().ended(process, status) else { return false };
        for (thread, place) in waiting {
            if self.tracees.contains_key(&thread) {
                // It may have been killed while it waited.
                let _ = self.entered(thread, place);
            }
        }
        true
    }
}
