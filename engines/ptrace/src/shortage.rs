//! When more calls are under way than the window has slots.
//!
//! A call that blocks (open(2) of a FIFO, connect(2)) may hold its slot for ever, and hundreds of threads may be in one. But
//! the kernel copies paths and addresses before it does anything that waits: who sleeps in a call has no more need of its
//! slot, and if the call is restarted it is caught and lent to anew. So slots are taken back from sleepers, and who
//! finds none meanwhile waits, stopped. Only execve(2) keeps its slot: it reads arguments late.

use std::{collections::VecDeque, fs};

use crate::{
    request::Gone,
    tracee::Doing,
    tracer::{Place, Tracer},
};

/// Those who wait for a slot, at the entry of a call.
#[derive(Debug, Default)]
pub(crate) struct Shortage(VecDeque<(i32, Place)>);

impl Shortage {
    pub(crate) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// The thread is no more: its id may become another's.
    pub(crate) fn forget(&mut self, thread: i32) {
        self.0.retain(|(waiting, _)| *waiting != thread);
    }
}

impl Tracer<'_> {
    /// Whether there is a slot for the next call.
    pub(crate) fn has_slot(&mut self) -> bool {
        self.window.is_free() || self.take_back()
    }

    /// The tracee stays stopped until there is room.
    pub(crate) fn wait_for_slot(&mut self, thread: i32, place: Place) {
        self.shortage.0.push_back((thread, place));
    }

    /// Lets those go on who waited, as far as there is room.
    pub(crate) fn end_shortage(&mut self) {
        for _ in 0..self.shortage.0.len() {
            if !self.has_slot() {
                return;
            }
            let Some((thread, place)) = self.shortage.0.pop_front() else { return };
            if self.tracees.contains_key(&thread) {
                // It may have been killed while it waited.
                let _: Result<(), Gone> = self.entered(thread, place);
            }
        }
    }

    fn take_back(&mut self) -> bool {
        for (thread, tracee) in &mut self.tracees {
            if let Doing::Call(held) = &mut tracee.doing
                && held.slot.is_some()
                && sleeps(*thread)
                && let Some(slot) = held.slot.take()
            {
                self.window.release(slot);
            }
        }
        self.window.is_free()
    }
}

/// Whether a thread sleeps in a call that a signal could interrupt.
fn sleeps(thread: i32) -> bool {
    let stat = fs::read(format!("/proc/{thread}/stat")).unwrap_or_default();
    // The name in parentheses may hold any bytes; the state follows it.
    stat.iter().rposition(|byte| *byte == b')').is_some_and(|end| stat[end..].starts_with(b") S"))
}
