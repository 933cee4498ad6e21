//! The process that whoever started the guest waits for, and what the tracer tells it.
//!
//! Why it is not the tracer: a tracer must stay as long as any guest process lives, for a traced process cannot be handed
//! over, but the caller is to be told of the first program's end when it ends, daemons or not. So the front forks the
//! tracer, and the tracer forks the guest. The front looks to the outside as the guest's first process does: it passes
//! signals on, stops when that stops, and ends as it ended, at once. Rules:
//! - If the front is killed, the tracer is (PDEATHSIG), and all guests are (EXITKILL): until the first program has ended.
//!   From then on what it left behind goes on as it would without a tracer.
//! - Front and tracer hold open nothing that somebody may wait for the end of: no pipe, socket or terminal.
//! - The tracer has a process group of its own, and blocks all signals: what a terminal sends is for the guest.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use coracle_api::{Ended, LaunchSpec, RunError, stops};
use nix::{
    fcntl::OFlag,
    unistd::{ForkResult, fork, pipe2},
};

use crate::start::{Report, Tell};

/// What a tracer tells its front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The guest's first process has this id.
    Main(i32),
    /// Its program begins.
    Begun,
    /// It was stopped by this signal.
    Stopped(i32),
    /// It goes on.
    Continued,
    /// It has ended, and the tracer stays for others: the next word is how.
    Staying,
    /// It has ended.
    Ended(Ended),
}

impl News {
    fn to_bytes(self) -> [u8; 8] {
        let (kind, value) = match self {
            Self::Main(id) => (1_i32, id),
            Self::Begun => (2, 0),
            Self::Stopped(signal) => (3, signal),
            Self::Continued => (4, 0),
            Self::Staying => (7, 0),
            Self::Ended(Ended::Exited(code)) => (5, i32::from(code)),
            Self::Ended(Ended::Signaled(signal)) => (6, signal),
        };
        (u64::from(kind.cast_unsigned()) << 32 | u64::from(value.cast_unsigned())).to_ne_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let word = u64::from_ne_bytes(bytes);
        let value = u32::try_from(word & 0xffff_ffff).ok()?.cast_signed();
        Some(match word >> 32 {
            1 => Self::Main(value),
            2 => Self::Begun,
            3 => Self::Stopped(value),
            4 => Self::Continued,
            7 => Self::Staying,
            5 => Self::Ended(Ended::Exited(u8::try_from(value).unwrap_or(u8::MAX))),
            6 => Self::Ended(Ended::Signaled(value)),
            _ => return None,
        })
    }
}

/// The tracer's end of the line.
#[derive(Debug)]
pub(crate) struct Line(File);

impl Line {
    /// Tells; a front that is no more need not be told.
    pub(crate) fn tell(&self, news: News) {
        let _ = (&self.0).write_all(&news.to_bytes());
    }

    /// Tells that the guest goes on, to a front that may have stopped with it.
    pub(crate) fn wake(&self) {
        self.tell(News::Continued);
        // SAFETY: kill and getppid take and return integers; while it has not been told of the end, our parent is the
        // front, or we are being killed.
        unsafe { libc::kill(libc::getppid(), libc::SIGCONT) };
    }

    /// From now on the tracer outlives its front.
    pub(crate) fn part(&self) {
        // SAFETY: PR_SET_PDEATHSIG takes integers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0) };
        self.tell(News::Staying);
    }
}

/// What the tracer needs of the process that it was forked from.
pub(crate) struct Tracing {
    pub(crate) line: Line,
    pub(crate) tell: Tell,
    /// The signals that the guest starts with blocked.
    pub(crate) mask: u64,
}

/// Forks; `trace` runs in the child, which ends with it, and this returns how the guest ended.
///
/// Called in a process with one thread.
pub(crate) fn beside(
    spec: &LaunchSpec,
    trace: impl FnOnce(Tracing) -> Result<(), RunError>,
) -> Result<Ended, RunError> {
    let step = |error: nix::Error| RunError::step("start the tracer", error.into());
    let (news, line) = pipe2(OFlag::O_CLOEXEC).map_err(step)?;
    let (report, tell) = pipe2(OFlag::O_CLOEXEC).map_err(step)?;
    let (report, tell) = (Report(report), Tell(tell));
    let front = std::process::id();
    let mask = set_mask(u64::MAX);
    // SAFETY: the process has one thread (this function's contract), so the child may do anything its parent could.
    let forked = unsafe { fork() };
    match forked {
        Err(error) => {
            set_mask(mask);
            Err(step(error))
        }
        Ok(ForkResult::Child) => {
            drop((news, report));
            // SAFETY: as above; getppid cannot fail.
            let orphaned = unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                u32::try_from(libc::getppid()) != Ok(front)
            };
            spec.let_go();
            if !orphaned {
                let told = tell.try_clone();
                if let Err(error) = trace(Tracing { line: Line(File::from(line)), tell, mask })
                    && let Ok(tell) = told
                {
                    tell.error(&error);
                }
            }
            // SAFETY: ends the child without running the parent's exit handlers, which are none of its business.
            unsafe { libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child: tracer }) => {
            drop((line, tell));
            let outcome =
                Front { spec, tracer: tracer.as_raw(), main: 0, begun: false, stays: false }.wait(news, report);
            set_mask(mask);
            outcome
        }
    }
}

/// Sets the mask of blocked signals, also of those that the C library keeps for itself; returns the former.
pub(crate) fn set_mask(mask: u64) -> u64 {
    let mut former = 0_u64;
    // SAFETY: the kernel's mask is 8 bytes; it reads one and writes the other.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut former, size_of::<u64>());
    }
    former
}

/// What the tracer does once it has forked the guest.
pub(crate) fn stand_aside() {
    let_go();
    raise(libc::RLIMIT_NOFILE);
    raise(libc::RLIMIT_FSIZE);
    // SAFETY: setpgid takes integers, chdir a NUL-terminated path. Where they fail, nothing of ours depends on it.
    unsafe {
        libc::setpgid(0, 0);
        libc::chdir(c"/".as_ptr());
    }
}

/// Lets the tracer have as much as it may: it holds a descriptor for each call of a guest that waits at a long path, and
/// whoever started it may have thought of no more than a shell needs; what it copies for a guest is not what that writes.
fn raise(resource: Resource) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take one struct rlimit, which the first fills.
    unsafe {
        if libc::getrlimit(resource, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(resource, &raw const limit);
        }
    }
}

/// A limit's number, as each C library's functions take it.
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;
/// A limit's number, as each C library's functions take it.
#[cfg(target_env = "musl")]
type Resource = libc::c_int;

struct Front<'a> {
    spec: &'a LaunchSpec,
    tracer: i32,
    main: i32,
    begun: bool,
    stays: bool,
}

impl Front<'_> {
    fn wait(mut self, news: OwnedFd, report: Report) -> Result<Ended, RunError> {
        let signals = signal_file().map_err(|error| RunError::step("listen to signals", error))?;
        let (mut news, mut signals) = (File::from(news), File::from(signals));
        loop {
            let mut ready =
                [&news, &signals].map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 });
            // SAFETY: poll reads and writes the two entries.
            if unsafe { libc::poll(ready.as_mut_ptr(), 2, -1) } < 0 {
                continue;
            }
            if ready[0].revents != 0 {
                let mut bytes = [0; 8];
                let Some(told) = news.read_exact(&mut bytes).ok().and_then(|()| News::from_bytes(bytes)) else {
                    return self.tracer_ended(report);
                };
                if let News::Ended(ended) = told {
                    return self.ended(ended, report);
                }
                // Where it goes on already, there is no time to stop with it.
                if !matches!(told, News::Stopped(_)) || !is_ready(&news) {
                    self.hear(told);
                }
            }
            // Only once there is somebody to pass them on to.
            if ready[1].revents != 0 && self.main != 0 {
                let mut record = [0; size_of::<libc::signalfd_siginfo>()];
                if signals.read_exact(&mut record).is_ok() {
                    // SAFETY: signalfd_siginfo is plain old data of exactly this size, which the kernel filled.
                    let told = unsafe { ptr::read_unaligned(record.as_ptr().cast::<libc::signalfd_siginfo>()) };
                    self.pass_on(&told);
                }
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Main(id) => self.main = id,
            News::Begun => {
                self.begun = true;
                self.spec.let_go();
                let_go();
            }
            News::Staying => self.stays = true,
            News::Stopped(signal) => stops::stop_with(self.main, signal),
            // The tracer has woken us, if we had stopped.
            News::Continued | News::Ended(_) => {}
        }
    }

    /// The guest has ended; the tracer ends too, unless it stays for others.
    fn ended(&self, ended: Ended, report: Report) -> Result<Ended, RunError> {
        if !self.stays {
            // SAFETY: waitpid is given no place to write to; the tracer is our child.
            unsafe { libc::waitpid(self.tracer, ptr::null_mut(), 0) };
        }
        let error = if self.begun { None } else { report.read() };
        error.map_or(Ok(ended), Err)
    }

    /// The tracer is gone without a word of the guest's end: then the guest is, too.
    fn tracer_ended(&self, report: Report) -> Result<Ended, RunError> {
        let mut status = 0;
        // SAFETY: waitpid writes one int; the tracer is our child.
        let waited = unsafe { libc::waitpid(self.tracer, &raw mut status, 0) };
        if let Some(error) = report.read() {
            return Err(error);
        }
        if waited == self.tracer && libc::WIFSIGNALED(status) {
            return Ok(Ended::Signaled(libc::WTERMSIG(status)));
        }
        Err(RunError::step("trace the guest", io::Error::other("the tracer ended before it")))
    }

    /// Passes a signal on to the guest's first process, unless it has that already.
    fn pass_on(&self, told: &libc::signalfd_siginfo) {
        let Ok(signal) = i32::try_from(told.ssi_signo) else { return };
        if told.ssi_pid == self.tracer.unsigned_abs() && matches!(signal, libc::SIGCHLD | libc::SIGCONT) {
            return;
        }
        // SAFETY: calls that take and return integers.
        let (own_group, guest_group) = unsafe { (libc::getpgrp(), libc::getpgid(self.main)) };
        let of_terminal = [
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
            libc::SIGWINCH,
            libc::SIGHUP,
            libc::SIGCONT,
        ];
        // What the terminal sends goes to the whole group; timers and limits send to one process.
        if told.ssi_code == libc::SI_KERNEL && of_terminal.contains(&signal) && own_group == guest_group {
            return;
        }
        // What was queued with a value goes on with it: the kernel lets a process pass on such a signal as it came.
        if told.ssi_code == libc::SI_QUEUE {
            let mut info = [0_u64; 16];
            info[0] = u64::from(told.ssi_signo);
            info[1] = u64::from(told.ssi_code.cast_unsigned());
            info[2] = u64::from(told.ssi_pid) | u64::from(told.ssi_uid) << 32;
            info[3] = told.ssi_ptr;
            // SAFETY: rt_sigqueueinfo reads a siginfo of 128 bytes, laid out as the kernel has it: number, error and code,
            // sender and user, value.
            let sent = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, self.main, signal, info.as_ptr()) };
            if sent == 0 {
                return;
            }
        }
        // SAFETY: kill takes integers. The guest is not ours to wait for, but its id is its own until the tracer has told
        // of its end, which is read first.
        unsafe { libc::kill(self.main, signal) };
    }
}

/// Whether there is more to read.
fn is_ready(file: &File) -> bool {
    let mut ready = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: poll reads and writes the one entry.
    unsafe { libc::poll(&raw mut ready, 1, 0) == 1 }
}

/// A descriptor that reads every signal that reaches this process, all of which are blocked.
fn signal_file() -> io::Result<OwnedFd> {
    let all = u64::MAX;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: signalfd4 reads a mask of 8 bytes.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const all, size_of::<u64>(), flags) };
    match i32::try_from(fd) {
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes what this process inherited and is the guest's now, but files and directories: a lease is among them, and
/// nobody waits for their end.
pub(crate) fn let_go() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let descriptors: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    // SAFETY: a NUL-terminated path.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    for descriptor in descriptors {
        // SAFETY: fcntl with integers, and fstat into one struct stat that is read only if it was filled. What is not
        // marked close-on-exec was made by nobody here, so no owner of it is left with a closed descriptor.
        unsafe {
            let flags = libc::fcntl(descriptor, libc::F_GETFD);
            let mut stat: libc::stat = std::mem::zeroed();
            if flags < 0 || flags & libc::FD_CLOEXEC != 0 || libc::fstat(descriptor, &raw mut stat) != 0 {
                continue;
            }
            let kind = stat.st_mode & libc::S_IFMT;
            if kind == libc::S_IFREG || kind == libc::S_IFDIR {
                continue;
            }
            if descriptor <= 2 && null >= 0 {
                libc::dup2(null, descriptor);
            } else {
                libc::close(descriptor);
            }
        }
    }
    if null > 2 {
        // SAFETY: opened above, and known to nobody else.
        unsafe { libc::close(null) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_arrive_as_told() {
        let all = [
            News::Main(i32::MAX),
            News::Begun,
            News::Stopped(20),
            News::Continued,
            News::Staying,
            News::Ended(Ended::Exited(255)),
            News::Ended(Ended::Signaled(64)),
        ];
        for news in all {
            assert_eq!(News::from_bytes(news.to_bytes()), Some(news));
        }
        assert_eq!(News::from_bytes([0; 8]), None);
    }
}
