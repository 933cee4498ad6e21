//! Staying beside the guest when something must outlive it: a scratch directory to remove, a private tree, a report.
//!
//! The guest runs in a forked child; this process is a subreaper, passes signals on, mirrors stops so that the user's shell
//! sees a stopped job, and ends as the guest ended. When the program has ended, what it left running is killed, as a
//! container's is: nothing may use the files that are removed next. Every descendant is waited for, so what they used is
//! known.

mod usage;

use std::{
    fs, io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use coracle_api::{Ended, signals, stops};

pub use usage::Usage;

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Over {
    /// How the guest ended.
    pub ended: Ended,
    /// What it and its descendants used.
    pub usage: Usage,
}

/// Runs `guest` in a child and waits for it. `guest` returns only if the program could not be started, or with the exit
/// status to use.
///
/// Called in a process with one thread. If signals were [held](Later) before, `later` ends that once they can be passed on.
///
/// # Errors
/// What fork(2) or waitpid(2) said.
pub fn beside(later: Option<Later>, guest: impl FnOnce() -> u8) -> io::Result<Over> {
    beside_and(later, guest, || {})
}

/// The same, doing something in this process once the child is there: closing descriptors that only the child needs.
///
/// # Errors
/// As [`beside`].
pub fn beside_and(later: Option<Later>, guest: impl FnOnce() -> u8, meanwhile: impl FnOnce()) -> io::Result<Over> {
    // SAFETY: prctl with these arguments sets a flag of this process and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let parent = std::process::id();
    let mut usage = Usage::begin();
    let blocked = Blocked::all();
    let children = Children::waited_for()?;
    // SAFETY: the process has one thread (this function's contract), so the child may do anything its parent could.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        children.as_before();
        drop(blocked);
        drop(later);
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
    drop(later);
    meanwhile();
    let ended = wait(pid, &mut usage)?;
    kill_the_rest(&mut usage);
    usage.end();
    Ok(Over { ended, usage })
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

fn wait(guest: i32, usage: &mut Usage) -> io::Result<Ended> {
    loop {
        let (pid, over) = next()?;
        if pid == guest && over {
            // From here on its id may become another process's.
            signals::forward_to_nobody();
            GUEST.store(0, Ordering::SeqCst);
        }
        let Some(status) = usage.take(pid, libc::WUNTRACED) else { continue };
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

/// The next child of which there is news, which stays to be waited for, and whether it has ended.
fn next() -> io::Result<(i32, bool)> {
    loop {
        // SAFETY: an all-zero siginfo is valid, and outlives the call.
        let (answer, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let asked = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
            (libc::waitid(libc::P_ALL, 0, &raw mut info, asked), info)
        };
        if answer == 0 {
            // SAFETY: waitid has filled in what these read.
            return Ok((unsafe { info.si_pid() }, info.si_code != libc::CLD_STOPPED));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
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
fn kill_the_rest(usage: &mut Usage) {
    let own = std::process::id();
    loop {
        match usage.take_any(libc::WNOHANG) {
            None => return,
            Some(0) => {}
            Some(_) => continue,
        }
        let mut killed = false;
        for child in children(own) {
            // SAFETY: kill takes integers; a child that was not waited for keeps its id.
            killed |= unsafe { libc::kill(child, libc::SIGKILL) } == 0;
        }
        // The children just killed make the wait return.
        if !killed || usage.take_any(0).is_none() {
            return;
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
