//! Staying beside the guest when something must outlive it: a scratch directory to remove, a private tree, a report.
//!
//! The guest runs in a forked child; this process is a subreaper, passes signals on, mirrors stops so that the user's shell
//! sees a stopped job, and ends as the guest ended. When the program has ended, what it left running is killed, as a
//! container's is: nothing may use the files that are removed next.

use std::{
    fs, io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use coracle_api::{Ended, signals, stops};

/// Runs `guest` in a child and waits for it. `guest` returns only if the program could not be started, or with the exit
/// status to use.
///
/// Called in a process with one thread.
///
/// # Errors
/// What fork(2) or waitpid(2) said.
pub fn beside(guest: impl FnOnce() -> u8) -> io::Result<Ended> {
    beside_and(guest, || {})
}

/// The same, doing something in this process once the child is there: closing descriptors that only the child needs.
///
/// # Errors
/// As [`beside`].
pub fn beside_and(guest: impl FnOnce() -> u8, meanwhile: impl FnOnce()) -> io::Result<Ended> {
    // SAFETY: prctl with these arguments sets a flag of this process and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let parent = std::process::id();
    let blocked = Blocked::all();
    // SAFETY: the process has one thread (this function's contract), so the child may do anything its parent could.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop(blocked);
        // SAFETY: as above; getppid cannot fail.
        let orphaned = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            u32::try_from(libc::getppid()) != Ok(parent)
        };
        let code = if orphaned { 125 } else { guest() };
        // SAFETY: ends the child without running the parent's exit handlers, which are none of its business.
        unsafe { libc::_exit(i32::from(code)) };
    }
    signals::forward_to(pid)?;
    leave_stopping_to(pid)?;
    drop(blocked);
    meanwhile();
    let ended = wait(pid);
    kill_the_rest();
    ended
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

fn wait(guest: i32) -> io::Result<Ended> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WUNTRACED) };
        if pid < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if pid != guest {
            continue;
        }
        if libc::WIFSTOPPED(status) {
            stops::stop_with(guest, libc::WSTOPSIG(status));
        } else if libc::WIFSIGNALED(status) {
            return Ok(Ended::Signaled(libc::WTERMSIG(status)));
        } else {
            return Ok(Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(255)));
        }
    }
}

/// The guest, for [`stop_handler`].
static GUEST: AtomicI32 = AtomicI32::new(0);

/// From now on this process stops only when its guest does ([`stops::stop_with`]): a Ctrl-Z reaches both, and if both stopped of it,
/// this process would find out about the guest's stop only after the user's `fg`, and stop again.
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

/// Kills and reaps what the guest left behind. As subreaper we inherit every orphan, so it ends when no child is left.
fn kill_the_rest() {
    let own = std::process::id();
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid < 0 {
            return;
        }
        if pid == 0 {
            let mut killed = false;
            for child in children(own) {
                // SAFETY: kill takes integers; a child that was not waited for keeps its id.
                killed |= unsafe { libc::kill(child, libc::SIGKILL) } == 0;
            }
            if !killed {
                return;
            }
            // SAFETY: as above; the children just killed make it return.
            unsafe { libc::waitpid(-1, &raw mut status, 0) };
        }
    }
}

/// Process ids whose parent is `parent`, from /proc: not every kernel has the `children` file.
fn children(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; the parent is the second field after it.
        let ppid = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if ppid == Some(parent) {
            found.push(pid);
        }
    }
    found
}
