//! The guest's parent: see the header of this folder.
//!
//! It blocks all signals but the one that tells of the front's death, so nothing ends it by the way; whoever kills it kills
//! the guest.

use std::{fs, io, ptr};

use coracle_api::Ended;

use super::{
    Over, Usage,
    line::{Line, News},
};

/// The front's death; whoever sends it means the same.
const DEATH: i32 = libc::SIGTERM;

pub(super) struct Guardian {
    line: Line,
    front: u32,
    usage: Usage,
}

impl Guardian {
    /// In the process that is to be it, with all signals blocked.
    pub(super) fn new(line: Line, front: u32) -> Self {
        // SAFETY: prctl and setpgid take integers. Without a group of its own it would only end with the front's.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, DEATH, 0, 0, 0);
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            libc::setpgid(0, 0);
        }
        Self { line, front, usage: Usage::begin() }
    }

    /// Runs the guest until nothing of it is left. How that ended, and whether the front is no more.
    pub(super) fn watch(mut self, guest: impl FnOnce() -> u8, meanwhile: impl Fn()) -> (Over, bool) {
        // SAFETY: getpgid takes an integer; the front is our parent or has just died.
        let group = unsafe { libc::getpgid(self.front.cast_signed()) };
        let own = std::process::id();
        // SAFETY: this process has one thread, as its parent had.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
            self.line.tell(&News::Failed(errno));
            return (Over { ended: Ended::Exited(125), usage: self.usage }, false);
        }
        if pid == 0 {
            // SAFETY: calls that take and return integers. Not to outlive the guardian, also if that died before this.
            let orphaned = unsafe {
                libc::setpgid(0, group);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                u32::try_from(libc::getppid()) != Ok(own)
            };
            let code = if orphaned { 125 } else { guest() };
            // SAFETY: ends the child without running the parent's exit handlers, which are none of its business.
            unsafe { libc::_exit(i32::from(code)) };
        }
        meanwhile();
        let mut alone = !self.line.tell(&News::Guest(pid));
        let mut ended = None;
        while ended.is_none() && !alone {
            ended = self.look(pid);
            alone = ended.is_none() && self.sleep();
        }
        if alone {
            // SAFETY: the guest was not waited for, so the id is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        kill_the_rest(&mut self.usage);
        self.usage.end();
        // What the batch system kills by SIGKILL is on record as killed by that.
        let over = Over { ended: ended.unwrap_or(Ended::Signaled(libc::SIGKILL)), usage: self.usage };
        alone = alone || !self.line.tell(&News::Over(over));
        (over, alone)
    }

    /// Waits for what there is to wait for; how the guest ended, if it has.
    fn look(&mut self, guest: i32) -> Option<Ended> {
        while let Some((pid, over)) = next() {
            if pid == guest && over {
                self.line.tell(&News::Ending);
                self.line.is_answered();
            }
            let status = self.usage.take(pid, libc::WUNTRACED)?;
            if pid != guest {
                continue;
            }
            if libc::WIFSTOPPED(status) {
                self.line.tell(&News::Stopped(libc::WSTOPSIG(status)));
            } else if libc::WIFSIGNALED(status) {
                return Some(Ended::Signaled(libc::WTERMSIG(status)));
            } else {
                return Some(Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(255)));
            }
        }
        None
    }

    /// Sleeps until there is news. `true`: the front has died.
    fn sleep(&self) -> bool {
        // SAFETY: the set is initialised and outlives the call; both of its signals are blocked. getppid cannot fail.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigaddset(&raw mut set, DEATH);
            if u32::try_from(libc::getppid()) != Ok(self.front) {
                return true;
            }
            libc::sigwaitinfo(&raw const set, ptr::null_mut()) == DEATH
        }
    }
}

/// The next child of which there is news, which stays to be waited for, and whether it has ended.
fn next() -> Option<(i32, bool)> {
    // SAFETY: an all-zero siginfo is valid and outlives the call, which leaves it so if there is no news; what is read of it
    // is filled in otherwise.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let asked = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
        let answer = libc::waitid(libc::P_ALL, 0, &raw mut info, asked);
        (answer == 0 && info.si_pid() != 0).then(|| (info.si_pid(), info.si_code != libc::CLD_STOPPED))
    }
}

/// Kills and reaps what the guest left behind. As subreaper we inherit every orphan, so it ends when no child is left.
pub(super) fn kill_the_rest(usage: &mut Usage) {
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
