//! Keeping the tracer and the one thread that is busy on one processor.
//!
//! A stop wakes the tracer, and its answer wakes the tracee. Where each of them sleeps on a processor of its own, every
//! such word is an interrupt sent to a processor that idles, and on virtual machines that costs more than all the rest
//! of the stop. The two never run at one time, so nothing is lost if they share a processor: as long as one thread alone
//! makes calls, its affinity and the tracer's are narrowed to the processor at hand.
//!
//! Rules:
//! - One thread at most is narrowed. It is let go as soon as any other thread reports anything, when its affinity is asked
//!   for (and nobody is followed until the call of who asks is over: [`Follow::asked`]) or about to be read, when it
//!   makes no call for a while, and now and then in any case: what others run may have come to be there too, and they
//!   cannot see that this one may not move.
//! - A child that inherited the narrow mask gets its parent's back before it runs ([`Follow::bore`]).
//! - What somebody else has changed meanwhile stays as it is.
//! - Where any of this is refused, nothing is narrowed again. The tracer's end leaves nothing narrowed: its tracees end too.

use std::{
    io,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use coracle_intercept::Abi;

use crate::front::set_mask;

/// Reports of one thread in a row from which on it is followed.
const ENOUGH: u32 = 4;

/// How often it is looked whether the thread still makes calls, in microseconds.
const TICK: libc::suseconds_t = 2_000;

/// So many ticks at most until it may move again.
const LONGEST: u32 = 20;

/// Reports of others after which a call that asked for an affinity is over for sure: it takes a microsecond, they
/// milliseconds.
const ANSWERED: u32 = 1_000;

/// Processors that a mask has room for: as many as any kernel can be built for.
const WORDS: usize = 8192 / 64;

/// Numbers of sched_setaffinity(2) and sched_getaffinity(2).
pub(crate) fn numbers(abi: Abi) -> [u32; 2] {
    if abi == Abi::X86_64 { [203, 204] } else { [241, 242] }
}

/// Time has passed.
static TICKED: AtomicBool = AtomicBool::new(false);

/// Who is followed.
#[derive(Debug)]
pub(crate) struct Follow {
    /// What the tracer's own affinity is otherwise; none where there is nothing to follow to.
    home: Option<Home>,
    /// Who reported last, and how often in a row.
    thread: i32,
    reports: u32,
    held: Option<Box<Held>>,
    ticking: bool,
    /// A thread in a call that tells it another one's affinity, and how many reports of others are waited for its end.
    asking: Option<(i32, u32)>,
}

#[derive(Debug)]
struct Home {
    mask: Mask,
    /// Nobody has restricted it: it is all that there is, also when there will be more.
    whole: bool,
}

/// A thread that is narrowed.
#[derive(Debug)]
struct Held {
    thread: i32,
    /// Its affinity as it takes it to be.
    own: Mask,
    /// The processor.
    narrow: Mask,
    /// It has reported since the last tick.
    busy: bool,
    ticks: u32,
}

impl Follow {
    /// Follows nobody yet.
    pub(crate) fn new() -> Self {
        Self { home: None, thread: 0, reports: 0, held: None, ticking: false, asking: None }
    }

    /// Finds out where the tracer may run; before that, nobody is followed.
    pub(crate) fn begin(&mut self) {
        let home = Mask::of(0).and_then(|mask| {
            if mask.count() < 2 {
                return Ok(None);
            }
            Mask::all(mask.bytes).give(0)?;
            let whole = Mask::of(0)? == mask;
            if !whole {
                mask.give(0)?;
            }
            Ok(Some(Home { mask, whole }))
        });
        let Ok(Some(home)) = home else { return };
        // SAFETY: a sigaction of zeroes but for the handler, which only stores to an atomic.
        let handled = unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = note_tick as *const () as usize;
            libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) == 0
        };
        self.home = Some(home).filter(|_| handled);
    }

    /// Waits for the next report as wait4(2) does, and for the time to pass while somebody is followed.
    pub(crate) fn wait(&mut self, status: &mut i32, how: i32, usage: *mut libc::rusage) -> i32 {
        // Any other call of the tracer's must not be interrupted: there are file systems that would answer EINTR.
        let timed = self.held.is_some() && how & libc::WNOHANG == 0;
        if timed {
            set_mask(!(1 << (libc::SIGALRM - 1)));
        }
        // SAFETY: wait4 writes one int, and a rusage if it is given one (`Tracer::run` gives its own, or none).
        let thread = unsafe { libc::wait4(-1, status, how, usage) };
        if timed {
            set_mask(u64::MAX);
            if TICKED.swap(false, Ordering::Relaxed) {
                self.tick();
            }
        }
        thread
    }

    /// This thread has stopped, and others run or sleep. `watched`: its affinity can be read where the tracer does not
    /// see it.
    pub(crate) fn stopped(&mut self, thread: i32, watched: bool) {
        self.asking = match self.asking {
            Some((asking, left)) if asking != thread && left > 0 => Some((asking, left - 1)),
            _ => None,
        };
        if let Some(held) = &mut self.held {
            if held.thread == thread {
                held.busy = true;
                return;
            }
            self.let_go();
        }
        if self.thread != thread {
            (self.thread, self.reports) = (thread, 0);
        }
        self.reports += 1;
        if self.reports >= ENOUGH && !watched && self.asking.is_none() {
            self.hold(thread);
        }
    }

    /// This thread enters a call about a thread's affinity (0: its own). What it asks about another one is the kernel's
    /// to say some time later, and that one may run meanwhile.
    pub(crate) fn asked(&mut self, thread: i32, about: u64) {
        self.let_go();
        if about != 0 && u64::from(thread.unsigned_abs()) != about {
            self.asking = Some((thread, ANSWERED));
        }
    }

    /// This thread is no more.
    pub(crate) fn ended(&mut self, thread: i32) {
        self.let_go();
        if self.asking.is_some_and(|(asking, _)| asking == thread) {
            self.asking = None;
        }
        if self.thread == thread {
            self.thread = 0;
        }
    }

    /// A thread that executed a program has its process's id now.
    pub(crate) fn renamed(&mut self, former: i32, process: i32) {
        if let Some(held) = &mut self.held
            && held.thread == former
        {
            held.thread = process;
        }
    }

    /// Parent and child are stopped: the child starts with the affinity that its parent takes itself to have.
    pub(crate) fn bore(&mut self, parent: i32, child: i32) {
        self.let_go();
        if self.home.is_some()
            && let (Ok(of_parent), Ok(of_child)) = (Mask::of(parent), Mask::of(child))
            && of_parent != of_child
        {
            let _ = self.restore(child, &of_parent);
        }
    }

    fn tick(&mut self) {
        let Some(held) = &mut self.held else { return };
        held.ticks += 1;
        if !held.busy {
            self.let_go();
            self.set_timer(0);
        } else if held.ticks >= LONGEST {
            self.let_go();
        } else {
            held.busy = false;
        }
    }

    fn hold(&mut self, thread: i32) {
        if self.home.is_none() || !is_ordinary(thread) {
            return;
        }
        // A thread that was killed is no reason to stop following.
        let Ok(own) = Mask::of(thread) else { return };
        match narrow(thread, &own) {
            Ok(narrow) => {
                self.held = Some(Box::new(Held { thread, own, narrow, busy: true, ticks: 0 }));
                if !self.ticking {
                    self.set_timer(TICK);
                }
            }
            Err(error) => {
                self.return_home(None);
                let _ = self.restore(thread, &own);
                if error.raw_os_error() != Some(libc::ESRCH) {
                    self.home = None;
                }
            }
        }
    }

    /// Widens whatever is narrowed.
    pub(crate) fn let_go(&mut self) {
        self.reports = 0;
        let Some(held) = self.held.take() else { return };
        if held.own != held.narrow && Mask::of(held.thread).is_ok_and(|now| now == held.narrow) {
            let restored = self.restore(held.thread, &held.own);
            if restored.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH)) {
                // Processors were taken away meanwhile: all that are left.
                let _ = Mask::all(held.own.bytes).give(held.thread);
            }
        }
        self.return_home(Some(&held.narrow));
    }

    /// Gives the tracer its own affinity, if it has this one.
    fn return_home(&mut self, narrow: Option<&Mask>) {
        let now = Mask::of(0);
        let Some(home) = &mut self.home else { return };
        match now {
            Ok(now) if narrow.is_some_and(|narrow| now != *narrow) => *home = Home { mask: now, whole: false },
            _ => {
                let mask = if home.whole { &Mask::all(home.mask.bytes) } else { &home.mask };
                let _ = mask.give(0);
            }
        }
    }

    fn restore(&self, thread: i32, own: &Mask) -> io::Result<()> {
        let whole = self.home.as_ref().is_some_and(|home| home.whole && home.mask == *own);
        if whole { Mask::all(own.bytes).give(thread) } else { own.give(thread) }
    }

    fn set_timer(&mut self, microseconds: libc::suseconds_t) {
        self.ticking = microseconds != 0;
        let each = libc::timeval { tv_sec: 0, tv_usec: microseconds };
        let timer = libc::itimerval { it_interval: each, it_value: each };
        // SAFETY: setitimer reads one itimerval and writes to no place.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    }
}

/// Narrows a stopped thread and the tracer to one processor.
fn narrow(thread: i32, own: &Mask) -> io::Result<Mask> {
    if !current().is_some_and(|processor| own.has(processor)) {
        own.give(0)?;
    }
    let processor = current().filter(|processor| own.has(*processor)).ok_or(io::ErrorKind::Unsupported)?;
    let narrow = Mask::one(processor, own.bytes);
    narrow.give(0)?;
    if narrow != *own {
        narrow.give(thread)?;
    }
    Ok(narrow)
}

extern "C" fn note_tick(_signal: i32) {
    TICKED.store(true, Ordering::Relaxed);
}

/// Whether a thread is scheduled as the tracer is: one of a real-time policy would not let it run beside.
fn is_ordinary(thread: i32) -> bool {
    // SAFETY: sched_getscheduler takes and returns integers.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) };
    let policy = i32::try_from(policy).unwrap_or(-1);
    matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE)
}

/// The processor that the tracer runs on.
fn current() -> Option<usize> {
    let mut processor = 0_u32;
    // SAFETY: getcpu writes one int, and nothing to where it is given no place.
    let done = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut processor, 0_usize, 0_usize) };
    usize::try_from(processor).ok().filter(|_| done == 0)
}

/// A set of processors.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mask {
    words: [u64; WORDS],
    /// As many of them as the kernel's masks have.
    bytes: usize,
}

impl Mask {
    /// A thread's affinity; 0 is the tracer.
    fn of(thread: i32) -> io::Result<Self> {
        let mut words = [0; WORDS];
        // SAFETY: the kernel writes at most as many bytes as it is told that there are.
        let got =
            unsafe { libc::syscall(libc::SYS_sched_getaffinity, thread, size_of_val(&words), words.as_mut_ptr()) };
        let bytes = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok(Self { words, bytes })
    }

    fn all(bytes: usize) -> Self {
        Self { words: [u64::MAX; WORDS], bytes }
    }

    fn one(processor: usize, bytes: usize) -> Self {
        let mut words = [0; WORDS];
        if let Some(word) = words.get_mut(processor / 64) {
            *word = 1 << (processor % 64);
        }
        Self { words, bytes }
    }

    fn has(&self, processor: usize) -> bool {
        self.words.get(processor / 64).is_some_and(|word| word >> (processor % 64) & 1 != 0)
    }

    fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Sets a thread's affinity.
    fn give(&self, thread: i32) -> io::Result<()> {
        // SAFETY: the kernel reads as many bytes as `words` has at most.
        let done = unsafe {
            libc::syscall(libc::SYS_sched_setaffinity, thread, self.bytes.min(WORDS * 8), self.words.as_ptr())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
