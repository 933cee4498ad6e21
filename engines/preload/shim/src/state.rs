//! What the shim knows of its run: made once in each process, by whatever call comes first.
//!
//! The C library calls our names before it calls our constructor: constructors of other libraries may come before it. So
//! every name asks [`get`], and whoever asks first makes the state while others wait. It never changes after that, but for
//! what has cells of its own.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_entry::Run;
use coracle_intercept::Rules;
use coracle_sys as sys;

use crate::{arch, cow, start};

/// What a process of a run knows.
#[derive(Debug)]
pub(crate) struct State {
    /// The run's description.
    pub(crate) run: Run<'static>,
    /// What the guest is to see.
    pub(crate) rules: Rules<'static>,
    /// The view that its tree is, if that is copy-on-write.
    pub(crate) cow: Option<cow::View>,
    /// The tree's names can be told without the kernel, and nothing is told of files but what it says.
    pub(crate) plain: bool,
}

// The first is not zero, so that it lies among what the loader has written to already, in a page that is there.
const NOT_MADE: u32 = 1;
const BEING_MADE: u32 = 2;
const MADE: u32 = 3;

struct Holder(UnsafeCell<MaybeUninit<State>>);

// SAFETY: written once, by the thread that took STAGE from NOT_MADE to BEING_MADE, and read only after it is MADE.
unsafe impl Sync for Holder {}

static STATE: Holder = Holder(UnsafeCell::new(MaybeUninit::uninit()));
static STAGE: AtomicU32 = AtomicU32::new(NOT_MADE);

/// The state; the process ends if there can be none.
#[inline]
pub(crate) fn get() -> &'static State {
    if STAGE.load(Ordering::Acquire) != MADE {
        make();
    }
    // SAFETY: MADE was seen, so it is written, and nobody writes it again.
    unsafe { (*STATE.0.get()).assume_init_ref() }
}

#[cold]
fn make() {
    match STAGE.compare_exchange(NOT_MADE, BEING_MADE, Ordering::Acquire, Ordering::Acquire) {
        Ok(_) => {
            arch::relocate();
            let state = start::start();
            // SAFETY: we alone made it BEING_MADE.
            unsafe { (*STATE.0.get()).write(state) };
            STAGE.store(MADE, Ordering::Release);
        }
        Err(_) => {
            while STAGE.load(Ordering::Acquire) != MADE {
                // SAFETY: takes nothing and touches nothing.
                unsafe { sys::syscall0(sys::kernel::__NR_sched_yield) };
            }
        }
    }
}
