//! `coracle attach`: a run in the background, seen and spoken to as if it were in the foreground.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
    os::unix::fs::OpenOptionsExt as _,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
};

use anyhow::{Context as _, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{
    logs::{Printer, follow},
    stop::running,
};
use crate::{
    cli::{args::AttachArgs, source},
    launch::{
        log::Reader,
        monitor, processes,
        window::{self, Window},
    },
    source::open_store,
    store::containers::{Container, State},
};

/// The program that gets our signals.
static TARGET: AtomicI32 = AtomicI32::new(0);

/// Ctrl-P Ctrl-Q, Docker's keys for leaving a program alone.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Set by the reader of the keyboard when these were typed.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Stays until the run ends, and ends as it does.
pub(super) fn run(args: &AttachArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    let runs = running(&container)?;
    let Some(run) = runs.iter().find(|run| !run.exec) else {
        bail!("container {} is not running: start it", args.container);
    };
    if !run.detached {
        bail!("container {} runs in the foreground of another terminal: see `coracle exec`", args.container);
    }
    let mut reader =
        Reader::open(container.directory()).context("cannot read the log")?.context("it has no log yet")?;
    // What was written before is the past; `logs` tells it.
    reader.more().context("cannot read the log")?;
    let mut raw = None;
    if !args.no_stdin {
        let fifo = monitor::input(container.directory());
        let to_program = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
        if let Ok(to_program) = to_program {
            if run.tty && io::stdin().is_terminal() {
                raw = Some(Raw::set()?);
                window::listen();
                tell_window(&container, run.pid);
            }
            thread::spawn(move || pass(to_program));
        }
    }
    if args.sig_proxy {
        proxy(processes::program(run.pid).unwrap_or(run.pid));
    }
    let mut printer = Printer { timestamps: false, mid_line: [false; 2] };
    let outcome = follow(&container, &mut reader, |entries| {
        printer.print(entries)?;
        if window::changed() {
            tell_window(&container, run.pid);
        }
        if LEFT.load(Ordering::SeqCst) { Err(Left.into()) } else { Ok(()) }
    });
    drop(raw);
    match outcome {
        Err(error) if error.is::<Left>() => return Ok(0),
        outcome => outcome?,
    }
    Ok(match container.state()? {
        State::Exited(run) => run.status.and_then(|status| u8::try_from(status).ok()).unwrap_or(137),
        _ => 0,
    })
}

/// Gives the program's terminal the size of ours. Without it the program draws for another size, and works.
fn tell_window(container: &Container, launcher: i32) {
    let monitor = processes::describe(launcher).map(|(_, parent, _)| parent).filter(|parent| *parent > 1);
    if let (Some(window), Some(monitor)) = (Window::of(io::stdin().as_fd()), monitor) {
        let _ = window.tell(container.directory(), monitor);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("left")]
struct Left;

/// Carries what is typed to the program's fifo.
fn pass(mut to_program: File) {
    let mut buffer = [0; 4096];
    let mut last = 0;
    loop {
        let count = match io::stdin().lock().read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        for byte in &buffer[..count] {
            if [last, *byte] == LEAVE {
                LEFT.store(true, Ordering::SeqCst);
                return;
            }
            last = *byte;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match to_program.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
    }
}

/// Passes on what a terminal or a batch system sends.
fn proxy(program: i32) {
    TARGET.store(program, Ordering::SeqCst);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the handler is async-signal-safe: it reads one atomic and calls kill(2).
        unsafe { libc::signal(signal, pass_on as *const () as libc::sighandler_t) };
    }
}

extern "C" fn pass_on(signal: i32) {
    // SAFETY: kill takes two integers.
    unsafe { libc::kill(TARGET.load(Ordering::SeqCst), signal) };
}

/// The terminal without its own editing of lines, put back when dropped: the program's terminal does that.
struct Raw(Termios);

impl Raw {
    fn set() -> anyhow::Result<Self> {
        let old = tcgetattr(io::stdin()).map_err(io::Error::from).context("cannot read the terminal's settings")?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).map_err(io::Error::from).context("cannot set the terminal")?;
        Ok(Self(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
