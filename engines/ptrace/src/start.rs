//! The guest's first process, from fork to the first execve(2).
//!
//! It waits until it is seized, enters its working directory, puts itself under the filter and executes the program as any
//! guest process would: through the table. What went wrong comes back through a pipe, since only that process knows; the
//! tracer, between it and whoever is told, uses the same pipe.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use coracle_api::{Refusal, RunError, exec::Prepared};
use nix::{
    fcntl::OFlag,
    unistd::{ForkResult, fork, pipe2},
};

use crate::{filter, front, request};

/// Where an error is told.
#[derive(Debug)]
pub(crate) struct Tell(pub(crate) OwnedFd);

/// Where it is read.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) OwnedFd);

impl Tell {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(crate) fn error(self, error: &RunError) {
        tell_of(error, self.0);
    }
}

impl Report {
    /// Why the program could not be started, if somebody said so. Returns when all who could are gone or have started it.
    pub(crate) fn read(self) -> Option<RunError> {
        let mut text = Vec::new();
        File::from(self.0).read_to_end(&mut text).ok()?;
        read_report(&text)
    }
}

/// A first process that waits to be let go.
pub(crate) struct Child {
    pub(crate) pid: i32,
    go: OwnedFd,
}

impl Child {
    /// Forks. The child keeps `prepared` and waits; it starts the program with the signals of `mask` blocked.
    pub(crate) fn fork(
        prepared: &Prepared,
        cwd: &CStr,
        filter: Option<&[libc::sock_filter]>,
        tell: Tell,
        mask: u64,
    ) -> Result<Self, RunError> {
        let step = |error: nix::Error| RunError::step("start the guest's first process", error.into());
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).map_err(step)?;
        // SAFETY: the launcher has one thread (the contract of `Engine::run`), so the child may do anything.
        match unsafe { fork() }.map_err(step)? {
            ForkResult::Parent { child } => Ok(Self { pid: child.as_raw(), go }),
            ForkResult::Child => {
                drop(go);
                front::set_mask(mask);
                let error = begin(prepared, cwd, filter, wait);
                tell.error(&error);
                // SAFETY: ends the child at once; nothing of the parent's is flushed or run twice.
                unsafe { libc::_exit(i32::from(error.exit_code())) }
            }
        }
    }

    /// Becomes its tracer.
    pub(crate) fn seize(&self, seccomp: bool) -> io::Result<()> {
        request::seize(self.pid, seccomp)
    }

    /// Lets it go.
    pub(crate) fn go(&self) -> io::Result<()> {
        File::from(self.go.try_clone()?).write_all(b"g")
    }
}

/// Returns only on failure.
fn begin(prepared: &Prepared, cwd: &CStr, filter: Option<&[libc::sock_filter]>, wait: OwnedFd) -> RunError {
    let mut byte = [0];
    if File::from(wait).read_exact(&mut byte).is_err() {
        return RunError::step("wait for the tracer", io::ErrorKind::BrokenPipe.into());
    }
    // SAFETY: a NUL-terminated path.
    if unsafe { libc::chdir(cwd.as_ptr()) } != 0 {
        let error = io::Error::last_os_error();
        return RunError::step(format!("enter the working directory {}", cwd.to_string_lossy()), error);
    }
    if let Some(filter) = filter
        && let Err(error) = filter::install(filter)
    {
        return RunError::step("install the seccomp filter", error);
    }
    prepared.exec()
}

/// Kind, errno, then two strings, each with a NUL.
fn tell_of(error: &RunError, tell: OwnedFd) {
    let (kind, errno, first, second) = match error {
        RunError::NotFound { program, path } => (b'f', 0, program.clone(), path.clone()),
        RunError::NotExecutable { program, source, advice } => {
            (b'x', source.raw_os_error().unwrap_or(0), program.clone(), advice.clone().unwrap_or_default())
        }
        RunError::Step { what, source, advice } => {
            (b's', source.raw_os_error().unwrap_or(0), what.clone(), advice.clone().unwrap_or_default())
        }
        RunError::Refused(refusal) => (b'r', 0, refusal.reason.clone(), refusal.advice.clone().unwrap_or_default()),
    };
    let mut text = vec![kind];
    text.extend_from_slice(&errno.to_ne_bytes());
    text.extend_from_slice(first.as_bytes());
    text.push(0);
    text.extend_from_slice(second.as_bytes());
    text.push(0);
    // Nobody is left to be told of a failure here; the parent sees the exit status.
    let _ = File::from(tell).write_all(&text);
}

fn read_report(text: &[u8]) -> Option<RunError> {
    let (kind, rest) = text.split_first()?;
    let (errno, rest) = rest.split_first_chunk::<4>()?;
    let source = io::Error::from_raw_os_error(i32::from_ne_bytes(*errno));
    let mut strings = rest.split(|byte| *byte == 0).map(|string| String::from_utf8_lossy(string).into_owned());
    let (first, second) = (strings.next()?, strings.next()?);
    let advice = (!second.is_empty()).then(|| second.clone());
    Some(match kind {
        b'f' => RunError::NotFound { program: first, path: second },
        b'x' => RunError::NotExecutable { program: first, source, advice },
        b's' => RunError::Step { what: first, source, advice },
        _ => RunError::Refused(Refusal { reason: first, advice }),
    })
}
