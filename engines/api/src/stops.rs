//! Stopping together with a guest, so that the shell that waits for us takes over.
//!
//! Shared by the launcher's supervisor and the ptrace engine's front. A guest that made a process group of its own (an
//! interactive shell) has to be given the terminal again when the user's shell lets us go on.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

/// The guest stopped of `signal`: stop of the same as well; on the user's `fg` or `bg`, go on together.
///
/// `guest` is a process that has not been waited for.
pub fn stop_with(guest: i32, signal: i32) {
    let terminal = fs::File::open("/dev/tty").ok().map(OwnedFd::from);
    let foreground = |terminal: &OwnedFd| {
        // SAFETY: tcgetpgrp takes an open descriptor, which `terminal` owns.
        unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }
    };
    // SAFETY: calls that take and return integers.
    let (own_group, guest_group) = unsafe { (libc::getpgrp(), libc::getpgid(guest)) };
    let had_terminal = terminal.as_ref().is_some_and(|terminal| foreground(terminal) == guest_group);
    stop(signal);
    if let Some(terminal) = terminal.filter(|terminal| had_terminal && foreground(terminal) == own_group) {
        // SAFETY: as above; we are the foreground group, so the call does not stop us.
        unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), guest_group) };
    }
    // SAFETY: as above.
    unsafe {
        if guest_group != own_group && guest_group > 0 {
            libc::kill(-guest_group, libc::SIGCONT);
        } else {
            libc::kill(guest, libc::SIGCONT);
        }
    }
}

/// Stops this process by `signal`; returns when somebody lets it go on.
fn stop(signal: i32) {
    if !matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
        // SAFETY: raising SIGSTOP takes an integer.
        unsafe { libc::raise(libc::SIGSTOP) };
        return;
    }
    // SAFETY: the sets and actions are plain data, initialised before use; the former action and mask are put back. The
    // signal is raised before it is unblocked, so that one which waits already (a terminal sends it to us as well as to the
    // guest) is the same, and stops us once; it is delivered before kill(2) or sigprocmask(2) returns.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const default, &raw mut action);
        let (mut set, mut mask): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::kill(libc::getpid(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, &raw mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut());
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}
