//! A process that works with threads on behalf of one that must not have any.
//!
//! `unshare(CLONE_NEWUSER)` fails in a process that has, or has just had, several threads. So whoever will launch a guest
//! forks while it has one thread; the child makes threads, sends its result through a pipe as JSON, and ends. The child dies
//! with its parent. While the child works, the parent takes the signals that end a job through a signalfd, so that it can
//! stop the child and tidy up.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2},
};
use serde::{Serialize, de::DeserializeOwned};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    /// No process could be made.
    #[error("{step}: {source}")]
    Start { step: &'static str, source: io::Error },
    /// The worker ended before it had a result: killed, most likely for its memory.
    #[error("the process that unpacks was {0}")]
    Ended(String),
    /// A signal told this process to end; the worker was stopped.
    #[error("stopped by {0}")]
    Signal(Signal),
}

/// Signals that end a job and leave time to tidy up.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

fn ending() -> SigSet {
    ENDING.into_iter().collect()
}

/// A signal that ends the job and waits for that, if there is one.
pub(crate) fn waiting() -> Option<i32> {
    // SAFETY: sigpending fills in a set, which was initialised and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if libc::sigpending(&raw mut set) != 0 {
            return None;
        }
        ENDING.into_iter().map(|signal| signal as i32).find(|signal| libc::sigismember(&raw const set, *signal) == 1)
    }
}

/// While this lives, the signals that end a job wait.
#[derive(Debug)]
pub(crate) struct Held(SigSet);

impl Held {
    pub(crate) fn new() -> Result<Self, Errno> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ending()), Some(&mut before))?;
        Ok(Self(before))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The mask was this thread's own, so setting it again cannot fail. A signal that waited comes now.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Runs `work` in a child process and returns its result.
pub(super) fn run<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> T) -> Result<T, WorkerError> {
    let start = |step| move |errno: Errno| WorkerError::Start { step, source: errno.into() };
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(start("pipe"))?;
    let held = Held::new().map_err(start("sigprocmask"))?;
    let parent = getpid();
    // SAFETY: the callers' contract (`unpack`, `acquire`) is one thread, so no lock can be held by a thread that the child
    // lacks; the child leaves by _exit and returns to nobody.
    let forked = unsafe { fork() };
    let result = match forked {
        Ok(ForkResult::Child) => {
            drop(reader);
            child(parent, &mut File::from(writer), work);
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            wait(child, File::from(reader), &ending())
        }
        Err(errno) => Err(start("fork")(errno)),
    };
    drop(held);
    result
}

fn child<T: Serialize>(parent: Pid, pipe: &mut File, work: impl FnOnce() -> T) -> ! {
    // Not to outlive the parent, also if it died before the call took effect. The parent stops us on the other signals.
    let dies = prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent;
    let sent = dies && {
        let result = work();
        serde_json::to_vec(&result).is_ok_and(|json| pipe.write_all(&json).is_ok())
    };
    // SAFETY: ends this child process at once; no destructor or buffer of the parent's copy may run twice.
    unsafe { libc::_exit(i32::from(!sent)) }
}

/// Waits for the result, the worker's end or a signal, whichever comes first.
fn wait<T: DeserializeOwned>(child: Pid, mut pipe: File, ending: &SigSet) -> Result<T, WorkerError> {
    let signals = SignalFd::with_flags(ending, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| WorkerError::Start { step: "signalfd", source: errno.into() });
    let received = signals.and_then(|signals| receive(&mut pipe, &signals));
    if received.is_err() {
        // It may have ended already.
        let _ = kill(child, Signal::SIGKILL);
    }
    let status = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    let json = received?;
    serde_json::from_slice(&json).map_err(|_| {
        WorkerError::Ended(match status {
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
            _ => "lost before it was done".to_owned(),
        })
    })
}

fn receive(pipe: &mut File, signals: &SignalFd) -> Result<Vec<u8>, WorkerError> {
    let failed = |step| move |source: io::Error| WorkerError::Start { step, source };
    let mut json = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let mut polled =
            [PollFd::new(pipe.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed("poll")(errno.into())),
        }
        if let Ok(Some(info)) = signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM);
            return Err(WorkerError::Signal(Signal::try_from(number).unwrap_or(Signal::SIGTERM)));
        }
        let ready = PollFd::new(pipe.as_fd(), PollFlags::POLLIN);
        if poll(&mut [ready], PollTimeout::ZERO) == Ok(0) {
            continue;
        }
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(json),
            Ok(len) => json.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read from the worker")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_from_another_process() {
        let here = std::process::id();
        let there: u32 = run(std::process::id).unwrap();
        assert_ne!(here, there);
    }

    #[test]
    fn a_killed_worker_is_an_error() {
        let result: Result<(), _> = run(|| {
            // SAFETY: kills this very child.
            unsafe { libc::raise(libc::SIGKILL) };
        });
        assert!(matches!(result, Err(WorkerError::Ended(why)) if why.contains("SIGKILL")));
    }
}
