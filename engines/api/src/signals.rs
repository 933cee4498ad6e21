//! Signals passed on to a guest by a process that stays beside it.
//!
//! Shared by the launcher's supervisor, the pid namespace's init and the ptrace engine. The handler is async-signal-safe:
//! it reads one atomic and calls kill(2).

use std::{
    io, mem, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

/// Signals that batch systems, terminals and users send to a job, all passed on.
pub const FORWARDED: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGWINCH,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGALRM,
    libc::SIGPIPE,
];

/// Process that gets the signals; 0 before there is one.
static TARGET: AtomicI32 = AtomicI32::new(0);

/// From now on every signal of [`FORWARDED`] that reaches this process goes to `pid`.
///
/// Terminal signals (INT, QUIT, WINCH) that the kernel sent to the whole foreground group (`SI_KERNEL`) have reached the
/// guest already when it shares the group, and are not sent twice.
///
/// # Errors
/// What sigaction(2) said.
pub fn forward_to(pid: i32) -> io::Result<()> {
    TARGET.store(pid, Ordering::SeqCst);
    for signal in FORWARDED {
        // SAFETY: an all-zero sigaction is valid; `handler` has the signature that SA_SIGINFO asks for, lives as long as
        // the process, and is async-signal-safe (module header).
        let done = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From now on they go nowhere: the process that got them has ended, and its id may become another's.
pub fn forward_to_nobody() {
    TARGET.store(0, Ordering::SeqCst);
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let pid = TARGET.load(Ordering::SeqCst);
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler (sigaction(2)).
    let from_kernel = unsafe { (*info).si_code } == libc::SI_KERNEL;
    if pid > 0 && !from_kernel {
        // SAFETY: __errno_location is this thread's own; kill(2) takes two integers. The saved errno is put back so that
        // the interrupted code never sees ours.
        unsafe {
            let errno = *libc::__errno_location();
            libc::kill(pid, signal);
            *libc::__errno_location() = errno;
        }
    }
}

/// Ends this process as the guest ended: by the same signal where it was killed by one. The exit status to use is
/// returned when the signal did not end us (it was blocked or ignored, or we are a pid namespace's init).
#[must_use]
pub fn die_as(ended: crate::Ended) -> u8 {
    match ended {
        crate::Ended::Exited(code) => code,
        crate::Ended::Signaled(signal) => {
            // SAFETY: resetting a signal to its default and raising it touches no memory of ours; the limit is an
            // initialised rlimit (no second core file for a guest that left one already).
            unsafe {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                let mut set: libc::sigset_t = mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, signal);
                libc::signal(signal, libc::SIG_DFL);
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
                libc::kill(libc::getpid(), signal);
            }
            u8::try_from(128 + signal).unwrap_or(255)
        }
    }
}
