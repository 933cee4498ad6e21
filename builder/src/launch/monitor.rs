//! What stays with a run in the background: a process of its own session that keeps the output, the input and the record.
//!
//! `run -d` starts `coracle monitor FD` (a fresh process: a fork of one that has had threads may not do much) and waits
//! until the program has started or cannot be. The monitor starts the stub below itself with pipes, or with a terminal
//! of its own, writes what comes to the container's log, passes on what `attach` writes to the container's `stdin` (a
//! fifo), and puts on record how the run ended. If the monitor is killed, the kernel kills the stub, and with it the
//! program.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use coracle_api::{NotStarted, Order};
use coracle_format::Health;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::{Deserialize, Serialize};

use super::{
    LaunchError, Options,
    health::Checker,
    log::{Stream, Writer},
    stub,
    window::{self, Window},
};
use crate::store::{
    Store,
    containers::{Container, RunRecord},
};

/// How long a program may take to start or to show that it cannot be started. Engines tell as soon as they know.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a program's output may be silent within a line before the piece is written to the log.
const SILENCE: Duration = Duration::from_millis(50);

/// How often a program whose output is closed is looked after, and one that is quiet.
const QUIET: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(1);

/// A run to watch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watch {
    /// The store's directory.
    pub store: PathBuf,
    /// The container's id.
    pub container: String,
    /// What the stub is to do.
    pub order: Order,
    /// Terminal, input, limits, removal.
    pub options: Options,
    /// The engine, for the record.
    pub engine: Option<String>,
    /// What runs, for the record.
    pub command: Vec<String>,
    /// Started by `exec`.
    pub exec: bool,
    /// The size that its terminal begins with.
    pub window: Window,
    /// How to ask whether it works.
    pub health: Option<Health>,
    /// Where a file may be put to be executed.
    pub places: Vec<PathBuf>,
}

/// Where `attach` writes what the program is to read.
#[must_use]
pub fn input(container: &Path) -> PathBuf {
    container.join("stdin")
}

/// Starts the monitor `coracle` and waits until the program has started.
///
/// # Errors
/// [`LaunchError::Step`]; inside, why the program did not start.
pub fn start(mut watch: Watch, coracle: &Path) -> Result<Result<(), NotStarted>, LaunchError> {
    let step = LaunchError::step;
    let (heard, told) = nix::unistd::pipe().map_err(|error| step("make a pipe")(error.into()))?;
    fcntl(&heard, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .map_err(|error| step("keep a pipe")(error.into()))?;
    watch.order.started = Some(told.as_raw_fd());
    let text = serde_json::to_vec(&watch).map_err(|error| step("write down the run")(error.into()))?;
    let text = stub::inherited(&text).map_err(step("hand the run to its monitor"))?;
    let mut command = Command::new(coracle);
    command.arg("monitor").arg(text.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: setsid touches no memory; the child leaves the terminal and the job.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut monitor = command.spawn().map_err(LaunchError::step(format!("start {}", coracle.display())))?;
    drop((told, text));
    let mut ready = [PollFd::new(heard.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::NONE);
    let known = poll(&mut ready, patience).map_err(|error| step("hear of the program's start")(error.into()))? > 0;
    let mut line = String::new();
    if known {
        BufReader::new(File::from(heard)).read_line(&mut line).map_err(step("hear of the program's start"))?;
    }
    let Ok(not_started) = serde_json::from_str(&line) else { return Ok(Ok(())) };
    // It tidies up, and ends soon; one that has a program to watch outlives us.
    let _ = monitor.wait();
    Ok(Err(not_started))
}

/// The monitor itself, given the descriptor that [`start`] made. Nobody sees what it might print.
///
/// # Errors
/// [`LaunchError`]; then nothing runs.
pub fn run(descriptor: i32, coracle: &Path) -> Result<(), LaunchError> {
    let step = LaunchError::step;
    let mut text = Vec::new();
    if descriptor < 3 {
        return Err(step("read the run")(io::Error::from_raw_os_error(libc::EBADF)));
    }
    // SAFETY: `start` gave this descriptor to this process for good, by its number.
    unsafe { File::from_raw_fd(descriptor) }.read_to_end(&mut text).map_err(step("read the run"))?;
    let watch: Watch = serde_json::from_slice(&text).map_err(|error| step("read the run")(error.into()))?;
    let failed = |error: LaunchError| {
        tell(watch.order.started, &error);
        error
    };
    let outcome = supervise(&watch, coracle).map_err(failed);
    if let Some(lease) = watch.order.lease {
        // SAFETY: as above; `start`'s caller took it for this run.
        drop(unsafe { OwnedFd::from_raw_fd(lease) });
    }
    if watch.options.remove {
        let mut command = Command::new(coracle);
        command.args(["rm", &watch.container]).env("CORACLE_DIR", &watch.store);
        // What is left is seen in `ps`.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    outcome
}

fn tell(started: Option<i32>, error: &LaunchError) {
    let Some(fd) = started else { return };
    let news = NotStarted { status: 125, message: error.to_string() };
    // SAFETY: the descriptor was given to this process for good; nothing uses it afterwards.
    let mut pipe = unsafe { File::from_raw_fd(fd) };
    let _ = pipe.write_all(&[serde_json::to_vec(&news).unwrap_or_default(), b"\n".to_vec()].concat());
}

fn supervise(watch: &Watch, coracle: &Path) -> Result<(), LaunchError> {
    let step = LaunchError::step;
    let store = Store::open(&watch.store).map_err(|error| step("open the store")(io::Error::other(error)))?;
    let container = store.containers().resolve(&watch.container);
    let container = container.map_err(|error| step("find the container")(io::Error::other(error)))?;
    let directory = container.directory();
    let fifo = (watch.options.interactive || watch.options.tty).then(|| input(directory));
    if let Some(fifo) = &fifo {
        let _ = fs::remove_file(fifo);
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU)
            .map_err(|error| LaunchError::step(format!("make {}", fifo.display()))(error.into()))?;
    }
    // SAFETY: prctl with these arguments sets a flag of this process. What the stub leaves if it is killed comes to us.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let order = serde_json::to_vec(&watch.order).map_err(|error| step("write down the run")(error.into()))?;
    let order = stub::inherited(&order).map_err(step("hand the run to the launcher"))?;
    let mut streams =
        Streams::new(directory, &watch.options, watch.window, fifo.as_deref()).map_err(step("connect the program"))?;
    let mut child = stub::by_path(&watch.places, |path| streams.spawn(path, &order, &watch.options))?;
    drop(order);
    streams.let_go();
    let mut record = RunRecord::of(i32::try_from(child.id()).unwrap_or(0), watch.command.clone()).unwrap_or_default();
    record.detached = true;
    record.tty = watch.options.tty;
    record.exec = watch.exec;
    record.engine.clone_from(&watch.engine);
    let recorded = container.record_run(&record);
    if let Some(fd) = watch.order.started {
        // SAFETY: given to this process for good; the stub has its own copy, and its end is what is waited for.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let checker = (!watch.exec).then(|| watch.health.clone()).flatten();
    let mut checker =
        checker.map(|health| Checker::new(health, coracle.to_owned(), watch.store.clone(), watch.container.clone()));
    let mut beside = || {
        let Some(checker) = &mut checker else { return None };
        if checker.step(&mut record) {
            // What cannot be written now is written with the next check.
            let _ = still_there(&container, &record);
        }
        Some(checker.idle())
    };
    window::listen();
    let status = streams.carry(&mut child, &mut beside).map_err(step("watch the program"))?;
    drop(checker);
    record.status = Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
    record.ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs());
    reap_the_rest();
    if let Some(fifo) = &fifo {
        let _ = fs::remove_file(fifo);
    }
    let recorded = recorded.and_then(|_| still_there(&container, &record));
    recorded.map_err(|error| step("put the run on record")(io::Error::other(error)))
}

/// Writes the record unless the container was removed by force meanwhile.
fn still_there(container: &Container, record: &RunRecord) -> Result<(), crate::store::containers::ContainerError> {
    if container.directory().is_dir() { container.record_run(record).map(drop) } else { Ok(()) }
}

/// Ends what a killed stub has left, which is ours now.
fn reap_the_rest() {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for pid in super::processes::of_run(own) {
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// The program's streams, from the monitor's side.
struct Streams {
    /// What is read from the program, and where it goes.
    outputs: Vec<(OwnedFd, Writer)>,
    /// What the program reads from.
    to_program: Option<OwnedFd>,
    /// Where that comes from.
    from_user: Option<File>,
    /// On its way from the one to the other.
    pending: Vec<u8>,
    /// The program's side.
    theirs: [Option<OwnedFd>; 3],
    tty: bool,
    /// The container's directory.
    container: PathBuf,
}

impl Streams {
    fn new(container: &Path, options: &Options, window: Window, fifo: Option<&Path>) -> io::Result<Self> {
        let (tty, bound) = (options.tty, options.log);
        // Open for writing too, so that it never ends.
        let from_user = match fifo {
            Some(fifo) => {
                use std::os::unix::fs::OpenOptionsExt as _;
                Some(File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(fifo)?)
            }
            None => None,
        };
        let cloexec = OFlag::O_CLOEXEC;
        if tty {
            let pty = nix::pty::openpty(Some(&window.size()), None)?;
            for end in [&pty.master, &pty.slave] {
                fcntl(end, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
            }
            fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            return Ok(Self {
                outputs: vec![(pty.master.try_clone()?, Writer::open(container, Stream::Out, bound)?)],
                to_program: Some(pty.master),
                from_user,
                pending: Vec::new(),
                theirs: [Some(pty.slave.try_clone()?), Some(pty.slave.try_clone()?), Some(pty.slave)],
                tty,
                container: container.to_owned(),
            });
        }
        let (out, their_out) = nix::unistd::pipe2(cloexec)?;
        let (err, their_err) = nix::unistd::pipe2(cloexec)?;
        let (mut to_program, mut their_in) = (None, None);
        if from_user.is_some() {
            let (theirs, ours) = nix::unistd::pipe2(cloexec)?;
            fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            (to_program, their_in) = (Some(ours), Some(theirs));
        }
        Ok(Self {
            outputs: vec![
                (out, Writer::open(container, Stream::Out, bound)?),
                (err, Writer::open(container, Stream::Err, bound)?),
            ],
            to_program,
            from_user,
            pending: Vec::new(),
            theirs: [their_in, Some(their_out), Some(their_err)],
            tty,
            container: container.to_owned(),
        })
    }

    fn spawn(&self, path: &str, order: &OwnedFd, options: &Options) -> io::Result<Child> {
        let stdio = |end: &Option<OwnedFd>| match end {
            Some(end) => end.try_clone().map(Stdio::from),
            None => Ok(Stdio::null()),
        };
        let mut command = Command::new(path);
        command.arg0("coracle").arg(stub::argument(order).to_string_lossy().into_owned());
        command.stdin(stdio(&self.theirs[0])?).stdout(stdio(&self.theirs[1])?).stderr(stdio(&self.theirs[2])?);
        let parent = std::process::id();
        let (tty, options) = (self.tty, options.clone());
        // SAFETY: the monitor has one thread, so its child may do anything it could itself.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                if tty {
                    libc::ioctl(0, libc::TIOCSCTTY, 0);
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if u32::try_from(libc::getppid()) != Ok(parent) {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                stub::settle(&options).map_err(io::Error::other)
            });
        }
        command.spawn()
    }

    /// The program has its side; only when all copies are closed there is an end to read.
    fn let_go(&mut self) {
        self.theirs = [None, None, None];
    }

    /// Carries bytes until the program has ended and its output too.
    ///
    /// `beside` is what else is to be done: it is called often, and says for how long it need not be.
    fn carry(&mut self, child: &mut Child, beside: &mut dyn FnMut() -> Option<Duration>) -> io::Result<ExitStatus> {
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            let idle = if ended.is_none() { beside() } else { None };
            if window::changed()
                && let (true, Some(terminal)) = (self.tty, &self.to_program)
            {
                window::apply(&self.container, terminal.as_fd());
            }
            if ended.is_none() {
                ended = child.try_wait()?.map(|status| (status, Instant::now()));
            }
            if let Some((status, since)) = ended
                && (self.outputs.is_empty() || since.elapsed() > Duration::from_secs(2))
            {
                return Ok(status);
            }
            if self.outputs.is_empty() && self.from_user.is_none() && idle.is_none() {
                return child.wait();
            }
            self.step(ended.is_some(), idle.unwrap_or(LOOK))?;
        }
    }

    fn step(&mut self, ending: bool, idle: Duration) -> io::Result<()> {
        let mut watched: Vec<(BorrowedFd, PollFlags)> =
            self.outputs.iter().map(|(end, _)| (end.as_fd(), PollFlags::POLLIN)).collect();
        let outputs = watched.len();
        if let (Some(user), true) = (&self.from_user, self.pending.is_empty()) {
            watched.push((user.as_fd(), PollFlags::POLLIN));
        } else if let (Some(program), false) = (&self.to_program, self.pending.is_empty()) {
            watched.push((program.as_fd(), PollFlags::POLLOUT));
        }
        let mut polled: Vec<PollFd> = watched.iter().map(|(fd, what)| PollFd::new(*fd, *what)).collect();
        // The end of the program is seen by that of its output, unless something else keeps that open.
        let silence = match self.outputs.iter().any(|(_, log)| log.waits()) {
            true => SILENCE,
            false if ending || outputs == 0 => QUIET,
            false => LOOK,
        };
        let silence = silence.min(idle);
        let ready = match poll(&mut polled, PollTimeout::try_from(silence).unwrap_or(PollTimeout::NONE)) {
            Err(nix::errno::Errno::EINTR) => return Ok(()),
            answer => answer?,
        };
        if ready == 0 {
            // A full disk costs the log some lines, and must not stop the program.
            self.outputs.iter_mut().for_each(|(_, log)| drop(log.flush()));
            return Ok(());
        }
        let is_ready: Vec<bool> =
            polled.iter().map(|it| it.revents().is_some_and(|events| !events.is_empty())).collect();
        let mut closed = Vec::new();
        for (at, (end, log)) in self.outputs.iter_mut().enumerate().filter(|(at, _)| is_ready[*at]) {
            let mut buffer = [0; 16 << 10];
            match nix::unistd::read(&*end, &mut buffer) {
                Ok(0) | Err(nix::errno::Errno::EIO) => {
                    let _ = log.flush();
                    closed.push(at);
                }
                Ok(count) => drop(log.take(&buffer[..count])),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for at in closed.into_iter().rev() {
            self.outputs.remove(at);
        }
        if is_ready.get(outputs) == Some(&true) {
            self.pass_input();
        }
        Ok(())
    }

    fn pass_input(&mut self) {
        if self.pending.is_empty()
            && let Some(user) = &mut self.from_user
        {
            let mut buffer = [0; 4096];
            if let Ok(count) = user.read(&mut buffer) {
                self.pending.extend_from_slice(&buffer[..count]);
            }
        }
        if let Some(program) = &self.to_program {
            match nix::unistd::write(program, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                // It reads no more.
                Err(_) => (self.to_program, self.from_user, self.pending) = (None, None, Vec::new()),
            }
        }
    }
}
