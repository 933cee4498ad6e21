//! Staying beside the guest when something must outlive it: a scratch directory to remove, a private tree, a report.
//!
//! Two processes do. The *front* is this one, which the user knows: it passes signals on, mirrors stops so that the user's
//! shell sees a stopped job, and ends as the guest ended. The *guardian*, its child, is the guest's parent and a subreaper:
//! when the program has ended, it kills what that left running, as a container's is, since nothing may use the files
//! that are removed next; and it waits for every descendant, so what they used is known. Either does what is left to do
//! if the other is killed: SIGKILL for the front, as batch systems send it, takes all guests along and leaves nothing
//! on disk.
//!
//! The guardian has a process group of its own, and the guest has the front's: what is sent to the job's group reaches
//! the guest once, and the guardian not at all.

mod guardian;
mod line;
mod usage;

use std::{
    io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use coracle_api::{Ended, signals, stops};

use self::{
    guardian::Guardian,
    line::{Line, News},
};
pub use usage::Usage;

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Over {
    /// How the guest ended.
    pub ended: Ended,
    /// What it and its descendants used.
    pub usage: Usage,
}

/// What is to be done about a guest, beside running it. `T` is what has to be tidied up after it.
pub struct Duties<M, C, O> {
    /// Done in both processes once the guest is there: closing descriptors that only the guest needs.
    pub meanwhile: M,
    /// Tidies up when no guest is left, in whichever process there is to do it.
    pub clean: C,
    /// Done at the end by the guardian if the front was killed, in its stead.
    pub orphaned: O,
}

/// Runs `guest` in a child's child and waits for it. `guest` returns only if the program could not be started, or with the
/// exit status to use.
///
/// Called in a process with one thread. If signals were [held](Later) before, `later` ends that once they can be passed on.
///
/// # Errors
/// What fork(2) or waitpid(2) said; it is tidied up then, too.
pub fn beside<T>(
    later: Option<Later>,
    state: T,
    guest: impl FnOnce(&T) -> u8,
    duties: Duties<impl Fn(), impl FnOnce(T), impl FnOnce(Over)>,
) -> io::Result<Over> {
    let Duties { meanwhile, clean, orphaned } = duties;
    // SAFETY: prctl with these arguments sets a flag of this process and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let front = std::process::id();
    let blocked = Blocked::all();
    let forked = Children::waited_for().and_then(|children| {
        let (front_line, guardian_line) = line::pair()?;
        // SAFETY: the process has one thread (this function's contract), so the child may do anything its parent could.
        match unsafe { libc::fork() } {
            ..0 => Err(io::Error::last_os_error()),
            0 => Ok((0, guardian_line, children)),
            pid => Ok((pid, front_line, children)),
        }
    });
    let (guardian, line, children) = match forked {
        Ok(forked) => forked,
        Err(error) => {
            drop(blocked);
            clean(state);
            return Err(error);
        }
    };
    if guardian == 0 {
        let guest = || {
            children.as_before();
            drop(blocked);
            drop(later);
            guest(&state)
        };
        let (over, alone) = Guardian::new(line, front).watch(guest, &meanwhile);
        if alone {
            clean(state);
            orphaned(over);
        }
        // SAFETY: ends the child without running the parent's exit handlers, which are none of its business.
        unsafe { libc::_exit(0) };
    }
    let answer = watch(guardian, line, || {
        drop(blocked);
        drop(later);
        meanwhile();
    });
    clean(state);
    answer
}

/// The front's part, until no guest is left.
fn watch(guardian: i32, line: Line, begun: impl FnOnce()) -> io::Result<Over> {
    let mut usage = Usage::default();
    let guest = match line.hear() {
        Some(News::Guest(guest)) => guest,
        Some(News::Failed(errno)) => {
            usage.take(guardian, 0);
            return Err(io::Error::from_raw_os_error(errno));
        }
        _ => return Err(io::Error::other("the process that watches over it was killed")),
    };
    signals::forward_to(guest)?;
    leave_stopping_to(guest)?;
    begun();
    let told = loop {
        match line.hear() {
            Some(News::Stopped(signal)) => stops::stop_with(guest, signal),
            Some(News::Ending) => {
                // Once it is waited for its id may become another process's.
                signals::forward_to_nobody();
                GUEST.store(0, Ordering::SeqCst);
                line.answer();
            }
            Some(News::Over(over)) => break Some(over),
            Some(News::Guest(_) | News::Failed(_)) => {}
            None => break None,
        }
    };
    if let Some(over) = told {
        usage.take(guardian, 0);
        return Ok(over);
    }
    // Somebody killed the guardian, and with it the guest; its orphans are ours now.
    signals::forward_to_nobody();
    GUEST.store(0, Ordering::SeqCst);
    usage.take(guardian, 0);
    guardian::kill_the_rest(&mut usage);
    Ok(Over { ended: Ended::Signaled(libc::SIGKILL), usage })
}

/// While this lives, signals that end a job wait: so that none comes between the making of what must be removed and the
/// handlers that see to that.
#[derive(Debug)]
pub struct Later {
    _held: crate::unpack::Held,
}

impl Later {
    /// Holds them.
    ///
    /// # Errors
    /// Of sigprocmask(2).
    pub fn hold() -> io::Result<Self> {
        Ok(Self { _held: crate::unpack::hold_signals()? })
    }
}

/// What SIGCHLD does. Whoever ignores it has its children's ends thrown away (wait(2)), and a caller may have told us to.
struct Children(libc::sigaction);

impl Children {
    fn waited_for() -> io::Result<Self> {
        // SAFETY: an all-zero sigaction is valid and means the default; both structures outlive the call.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(before))
        }
    }

    /// For the guest.
    fn as_before(&self) {
        // SAFETY: the action is the one that the kernel gave; it was inherited, so it is the default or to ignore.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const self.0, ptr::null_mut()) };
    }
}

/// All signals blocked, until dropped: none may arrive between the fork and the handlers.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: sigset_t is plain data; both sets are initialised before use and outlive the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            Self(old)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by sigprocmask and lives in `self`.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// The guest, for [`stop_handler`].
static GUEST: AtomicI32 = AtomicI32::new(0);

/// From now on this process stops only when its guest does ([`stops::stop_with`]): a Ctrl-Z reaches both, and if both
/// stopped of it, this process would find out about the guest's stop only after the user's `fg`, and stop again.
fn leave_stopping_to(guest: i32) -> io::Result<()> {
    GUEST.store(guest, Ordering::SeqCst);
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: an all-zero sigaction is valid; the handler has the signature that SA_SIGINFO asks for, lives as long as
        // the process, and is async-signal-safe: it reads one atomic and calls kill(2).
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = stop_handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Passes on what somebody sent to this process alone; what the terminal sent has reached the guest as well.
extern "C" fn stop_handler(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let guest = GUEST.load(Ordering::SeqCst);
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler (sigaction(2)).
    let from_kernel = unsafe { (*info).si_code } == libc::SI_KERNEL;
    if guest > 0 && !from_kernel {
        // SAFETY: __errno_location is this thread's own and is put back; kill(2) takes two integers.
        unsafe {
            let errno = *libc::__errno_location();
            libc::kill(guest, signal);
            *libc::__errno_location() = errno;
        }
    }
}
