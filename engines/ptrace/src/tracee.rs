//! What the tracer knows of each thread of a guest.

use std::{cell::RefCell, collections::HashMap, os::fd::OwnedFd};

use coracle_intercept::{After, Call};

use crate::{
    loading::Loading,
    nested::{Side, Wanted},
    person::Person,
    process::Shared,
    registers::Registers,
    sandbox::{Filters, Taken},
    spring::Sprung,
    window::Slot,
};

/// One traced thread.
#[derive(Debug)]
pub(crate) struct Tracee {
    /// Its process, shared by all its threads.
    pub(crate) process: Shared,
    /// Whom it takes itself for; changed while others are looked at.
    pub(crate) person: RefCell<Person>,
    /// What it is in the middle of.
    pub(crate) doing: Doing,
    /// How its last call returns, if that is by a spring and it has not stopped since.
    pub(crate) sprung: Option<Box<Sprung>>,
    /// How many messages of its sendmmsg(2) have been sent, if it is about to enter that again.
    pub(crate) sent: u32,
    /// Where calls stop: whether the next such stop is a call's end.
    pub(crate) inside: bool,
    /// Those of its own.
    pub(crate) filters: Filters,
    /// What it is to guests that debug.
    pub(crate) side: Side,
}

impl Tracee {
    /// The id of its process.
    pub(crate) fn id(&self) -> i32 {
        self.process.borrow().id
    }

    /// The guest thread that debugs it; 0: none.
    pub(crate) fn debugger(&self) -> i32 {
        self.side.bond.as_ref().map_or(0, |bond| bond.tracer)
    }
}

/// What a tracee is in the middle of, beyond running by itself.
#[derive(Debug)]
pub(crate) enum Doing {
    /// Nothing.
    Nothing,
    /// It waits, newborn, until its parent has told whose child it is.
    WaitingForParent,
    /// A call whose registers must be restored at its end.
    Call(Box<Held>),
    /// execve(2), prepared; it has succeeded when the event of it comes.
    Executing(Box<Held>, Box<Loading>),
    /// The new program is being mapped.
    Loading(Box<Loading>),
}

/// A call that was changed, and what it was: restored at its end, so that the program sees its registers as it left them
/// and a call that the kernel restarts is translated again.
#[derive(Debug)]
pub(crate) struct Held {
    /// As the program set them.
    pub(crate) registers: Registers,
    /// The call as it was.
    pub(crate) call: Call,
    /// What becomes of the result.
    pub(crate) then: Then,
    /// Where its strings are.
    pub(crate) slot: Option<Slot>,
    /// What its path leads to, if that is a descriptor of ours.
    pub(crate) _pin: Option<OwnedFd>,
}

/// What becomes of a held call's result.
#[derive(Debug)]
pub(crate) enum Then {
    /// It was not made: this is the answer.
    Answer(i64),
    /// It was made; when it was entered names had been changed so often ([`crate::cow::CopyOnWrite::turns`]).
    Leave(After, u64),
    /// It puts the thread under a filter.
    Confined(Taken),
    /// It is a wait of a process that debugs.
    Wait(Wanted),
}

/// All tracees, by thread id.
pub(crate) type Tracees = HashMap<i32, Tracee>;

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "call {} at {:#x}", self.number(), self.instruction())
    }
}
