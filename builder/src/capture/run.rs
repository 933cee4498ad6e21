//! The command, run by the stub on this host while a record of it is kept.
//!
//! To the outside this process is the command: its streams, terminal and process group are shared, signals are passed
//! on, and a stop is shared too. If this process is killed, the command is.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use coracle_api::{Access, NotStarted, Order, signals, stops};

use crate::launch::{LaunchError, stub};

/// The one engine that sees every path.
const ENGINE: &str = "ptrace";

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit status as a shell counts it.
    pub status: u8,
    /// The program has run at all.
    pub started: bool,
}

/// What the job does about files that become too large, which the command inherits.
#[derive(Debug, Clone, Copy)]
pub struct FileSize(libc::sighandler_t);

impl FileSize {
    /// From here on a file that becomes larger than the job allows is an error of this process, which it tells and tidies up
    /// after, and not its end.
    #[must_use]
    pub fn as_error() -> Self {
        // SAFETY: to ignore a signal installs no function of ours.
        Self(unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) })
    }
}

/// Runs a command; the record goes to `recording`, an empty directory of ours, and `made` is one for the launcher's own
/// files.
///
/// `places` are directories to try a file in where memory may not be executed.
///
/// # Errors
/// The launcher cannot be executed, or not be waited for.
pub fn run(
    argv: &[OsString],
    recording: &Path,
    made: &Path,
    places: &[PathBuf],
    FileSize(inherited): FileSize,
) -> Result<Ran, LaunchError> {
    let mut order = Order::new("/".into());
    order.access = Access::Direct;
    order.argv = argv.to_vec();
    order.engine = Some(ENGINE.to_owned());
    order.made = Some(made.to_owned());
    order.recording = Some(recording.to_owned());
    let step = || LaunchError::step("run the command");
    let (told, tell) = pipe().map_err(step())?;
    order.started = Some(tell.as_raw_fd());
    let mut child = stub::by_path(places, |path| {
        let order = serde_json::to_vec(&order).map_err(io::Error::from).and_then(|text| stub::inherited(&text))?;
        let argument = stub::argument(&order);
        let mut command = Command::new(path);
        command.arg0("coracle").arg(argument.to_str().unwrap_or_default());
        let tell = tell.as_raw_fd();
        // SAFETY: between fork and exec the closure makes system calls on integers; a disposition that was inherited is no
        // function of ours.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGXFSZ, inherited);
                libc::fcntl(tell, libc::F_SETFD, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                Ok(())
            });
        }
        let child = command.spawn();
        debug_assert!(order.as_raw_fd() >= 0, "open until the child has it");
        child
    })?;
    drop(tell);
    let id = i32::try_from(child.id()).unwrap_or(0);
    signals::forward_to(id).map_err(step())?;
    stop_only_with_it();
    let status = wait(id).map_err(step());
    signals::forward_to_nobody();
    // It has been waited for: this only tells the library so.
    let _ = child.try_wait();
    let mut line = String::new();
    let heard = File::from(told).read_to_string(&mut line).is_ok() && !line.is_empty();
    match serde_json::from_str::<NotStarted>(&line) {
        Ok(not_started) => Ok(Ran { status: not_started.status, started: false }),
        Err(_) => Ok(Ran { status: status?, started: !heard }),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (told, tell) = io::pipe()?;
    Ok((told.into(), tell.into()))
}

/// The command stops first, and this process with it: what a terminal sends reaches both.
fn stop_only_with_it() {
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: to ignore a signal installs no function of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn wait(child: i32) -> io::Result<u8> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int; the child is ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
        if waited < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if libc::WIFSTOPPED(status) {
            stops::stop_with(child, libc::WSTOPSIG(status));
        } else if libc::WIFSIGNALED(status) {
            return Ok(u8::try_from(128 + libc::WTERMSIG(status)).unwrap_or(u8::MAX));
        } else {
            return Ok(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX));
        }
    }
}
