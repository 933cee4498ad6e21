//! The pid namespace: the launcher stays outside as supervisor, process 1 inside is this engine's init, the guest is its
//! child.
//!
//! Init builds the root (only a process of the new namespace can mount its `/proc`), starts the guest, reaps orphans and
//! passes signals on. A process 1 cannot die of a signal it sends itself, so the guest's end travels to the supervisor
//! through a pipe, as do failures on the way. If the supervisor dies, init is killed, and the kernel with it everything
//! inside.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd as _, OwnedFd},
};

use coracle_api::{Ended, LaunchSpec, Refusal, RunError, exec::Prepared, signals};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork, pipe2},
};
use serde::{Deserialize, Serialize};

use crate::{credentials, ids::Ids, net, root, shared::Turn, sys::Step};

/// What init, or the guest's process before it becomes the guest, tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
enum News {
    Ended(Ended),
    NotFound { program: String, path: String },
    NotExecutable { program: String, errno: i32, advice: Option<String> },
    Step { what: String, errno: Option<i32>, why: String, advice: Option<String> },
    Refused(Refusal),
}

/// Starts init and the guest in the pid namespace that this process's children are in, and waits for the guest's end.
pub(crate) fn supervise(
    spec: &LaunchSpec,
    ids: Ids<'_>,
    turn: Option<Turn>,
    program: &Prepared,
) -> Result<Ended, RunError> {
    let (from_init, to_supervisor) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
    // Of this one only the guest's process keeps an end, until it becomes the program.
    let (begun, until_exec) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe")?;
    // SAFETY: this process has one thread (the contract of `Engine::run`), so the child may do anything.
    match unsafe { fork() }.step(|| "fork the init of the pid namespace")? {
        ForkResult::Child => {
            drop((from_init, begun));
            spec.let_go();
            let mut to_supervisor = File::from(to_supervisor);
            let news = match init(spec, ids, turn, program, &mut to_supervisor, until_exec) {
                Ok(ended) => News::Ended(ended),
                Err(error) => error.into(),
            };
            tell(&mut to_supervisor, &news)
        }
        ForkResult::Parent { child } => {
            drop((to_supervisor, until_exec));
            signals::forward_to(child.as_raw()).step(|| "pass signals on")?;
            let mut text = Vec::new();
            if has_started(&begun, &from_init) {
                spec.let_go();
            }
            File::from(from_init).read_to_end(&mut text).step(|| "hear from the init of the pid namespace")?;
            let status = wait(child).step(|| "wait for the init of the pid namespace")?;
            // The guest's process and init may both have spoken; the first word is the cause.
            let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            match (serde_json::from_slice::<News>(first), status) {
                (Ok(news), _) => news.into_answer(),
                // Killed from outside before it could say anything: so was the guest.
                (Err(_), ended) => Ok(ended),
            }
        }
    }
}

/// Waits until nobody holds the other end of `begun`: whether it is the program that has begun, and no failure.
fn has_started(begun: &OwnedFd, from_init: &OwnedFd) -> bool {
    let wait = |fd: &OwnedFd, timeout: PollTimeout| poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
    while wait(begun, PollTimeout::NONE) == Err(Errno::EINTR) {}
    wait(from_init, PollTimeout::ZERO) == Ok(0)
}

/// Process 1. Returns when the guest has ended.
fn init(
    spec: &LaunchSpec,
    ids: Ids<'_>,
    turn: Option<Turn>,
    program: &Prepared,
    to_supervisor: &mut File,
    until_exec: OwnedFd,
) -> Result<Ended, RunError> {
    // SAFETY: this option takes plain integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    net::name_and_loopback(spec)?;
    root::enter(spec, ids, turn)?;
    // SAFETY: init has one thread.
    match unsafe { fork() }.step(|| "fork the program's process")? {
        ForkResult::Child => {
            let error = match credentials::settle(spec, ids) {
                Ok(()) => program.exec(),
                Err(error) => error,
            };
            tell(to_supervisor, &error.into())
        }
        ForkResult::Parent { child } => {
            drop(until_exec);
            signals::forward_to(child.as_raw()).step(|| "pass signals on")?;
            reap_until(child).step(|| "wait for the program")
        }
    }
}

/// Waits for every child that ends, until it is the guest.
fn reap_until(guest: Pid) -> nix::Result<Ended> {
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(guest) => {
                if let Some(ended) = ended(status) {
                    return Ok(ended);
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait(child: Pid) -> nix::Result<Ended> {
    loop {
        match waitpid(child, None) {
            Ok(status) => {
                if let Some(ended) = ended(status) {
                    return Ok(ended);
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    match status {
        WaitStatus::Exited(_, code) => Some(Ended::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX))),
        WaitStatus::Signaled(_, signal, _) => Some(Ended::Signaled(signal as i32)),
        _ => None,
    }
}

/// Writes the news and ends this forked process.
fn tell(to_supervisor: &mut File, news: &News) -> ! {
    let mut line = serde_json::to_vec(news).unwrap_or_default();
    line.push(b'\n');
    // If the supervisor is gone there is nobody to tell.
    let _ = to_supervisor.write_all(&line);
    // SAFETY: _exit ends this forked child at once, running none of the launcher's exit handlers.
    unsafe { libc::_exit(125) }
}

impl News {
    fn into_answer(self) -> Result<Ended, RunError> {
        Err(match self {
            Self::Ended(ended) => return Ok(ended),
            Self::NotFound { program, path } => RunError::NotFound { program, path },
            Self::NotExecutable { program, errno, advice } => {
                RunError::NotExecutable { program, source: io::Error::from_raw_os_error(errno), advice }
            }
            Self::Step { what, errno, why, advice } => {
                let source = errno.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error);
                RunError::Step { what, source, advice }
            }
            Self::Refused(refusal) => RunError::Refused(refusal),
        })
    }
}

impl From<RunError> for News {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotFound { program, path } => Self::NotFound { program, path },
            RunError::NotExecutable { program, source, advice } => {
                Self::NotExecutable { program, errno: source.raw_os_error().unwrap_or(libc::EIO), advice }
            }
            RunError::Step { what, source, advice } => {
                Self::Step { what, errno: source.raw_os_error(), why: source.to_string(), advice }
            }
            RunError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}
