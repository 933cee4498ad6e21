//! Staying beside the guest when something must outlive it: a scratch directory to remove, a private tree, a report.
//!
//! The guest runs in a forked child; this process is a subreaper, passes signals on, mirrors stops so that the user's shell
//! sees a stopped job, and ends as the guest ended. When the program has ended, what it left running is killed, as a
//! container's is: nothing may use the files that are removed next.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use coracle_api::{Ended, signals};

/// Runs `guest` in a child and waits for it. `guest` returns only if the program could not be started, or with the exit
/// status to use.
///
/// Called in a process with one thread.
///
/// # Errors
/// What fork(2) or waitpid(2) said.
pub fn beside(guest: impl FnOnce() -> u8) -> io::Result<Ended> {
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
    drop(blocked);
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
            stop_too(guest);
        } else if libc::WIFSIGNALED(status) {
            return Ok(Ended::Signaled(libc::WTERMSIG(status)));
        } else {
            return Ok(Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(255)));
        }
    }
}

/// The guest stopped: stop as well, so that the shell that waits for us takes over; on its `fg` or `bg`, go on together.
fn stop_too(guest: i32) {
    let terminal = terminal();
    let foreground = |terminal: &OwnedFd| {
        // SAFETY: tcgetpgrp takes an open descriptor, which `terminal` owns.
        unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }
    };
    // SAFETY: calls that take and return integers; the guest is our child and not yet waited for, so its id is its own.
    let (own_group, guest_group) = unsafe { (libc::getpgrp(), libc::getpgid(guest)) };
    // A guest that made a process group of its own (an interactive shell) has to be given the terminal again.
    let had_terminal = terminal.as_ref().is_some_and(|terminal| foreground(terminal) == guest_group);
    // SAFETY: as above; raising SIGSTOP returns when somebody continues us.
    unsafe { libc::raise(libc::SIGSTOP) };
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

fn terminal() -> Option<OwnedFd> {
    fs::File::open("/dev/tty").ok().map(OwnedFd::from)
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
