//! Starting the runtime, and what became of it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, Command},
    time::Duration,
};

use coracle_api::{Ended, INSIDE, Inside, LaunchSpec, RunError, signals};

use crate::installed::Installed;

/// Settings of the runtime's that would add to what the specification says, under both of its names.
const SETTINGS: [&str; 18] = [
    "BIND",
    "BINDPATH",
    "MOUNT",
    "OVERLAYIMAGE",
    "CONTAIN",
    "CONTAINALL",
    "CLEANENV",
    "COMPAT",
    "FAKEROOT",
    "HOME",
    "HOSTNAME",
    "NETWORK",
    "NO_MOUNT",
    "NV",
    "PWD",
    "ROCM",
    "WRITABLE",
    "WRITABLE_TMPFS",
];

/// Runs the program to its end.
pub(crate) fn start(installed: &Installed, arguments: &[OsString], spec: &LaunchSpec) -> Result<Ended, RunError> {
    let step = |what: &'static str| move |error: io::Error| RunError::step(what, error);
    let program = inherited(File::open("/proc/self/exe").map_err(step("open our own executable"))?.into())
        .map_err(step("pass our own executable on"))?;
    let (mut told, tell) = pipe().map_err(step("make a pipe"))?;
    let order = Inside {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        close: vec![program.as_raw_fd()],
        tell: tell.as_raw_fd(),
    };
    let order = memory(&order).map_err(step("write the order for the program"))?;
    let mut command = Command::new(&installed.program);
    command.args(arguments);
    command.arg(format!("/proc/self/fd/{}", program.as_raw_fd())).arg(format!("{INSIDE}{}", order.as_raw_fd()));
    for setting in SETTINGS {
        command.env_remove(format!("APPTAINER_{setting}")).env_remove(format!("SINGULARITY_{setting}"));
    }
    let name = installed.program.display();
    let mut child = command.spawn().map_err(|error| RunError::step(format!("start {name}"), error))?;
    drop(tell);
    signals::forward_to(i32::try_from(child.id()).unwrap_or(0)).map_err(step("pass signals on to the program"))?;
    let began = begins(&mut told, &mut child).map_err(step("wait for the program"))?;
    if began {
        spec.let_go();
    }
    let status = child.wait().map_err(step("wait for the program"))?;
    match (status.code(), status.signal()) {
        (Some(code), _) if !began => Err(RunError::step(
            format!("start the tree with {name}"),
            io::Error::other(format!("it ended with {code}")),
        )),
        (Some(code), _) => Ok(Ended::Exited(u8::try_from(code).unwrap_or(u8::MAX))),
        (None, Some(signal)) => Ok(Ended::Signaled(signal)),
        (None, None) => Ok(Ended::Exited(u8::MAX)),
    }
}

/// Waits for the word that the program begins; false if the runtime ends without it.
fn begins(told: &mut File, child: &mut Child) -> io::Result<bool> {
    loop {
        let ended = child.try_wait()?.is_some();
        let mut ready = libc::pollfd { fd: told.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: poll reads and writes the one entry.
        unsafe { libc::poll(&raw mut ready, 1, if ended { 0 } else { 50 }) };
        let mut word = [0; 1];
        match told.read(&mut word) {
            Ok(count) if count == 1 || ended => return Ok(count == 1),
            // Nobody holds the other end any more.
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) if ended => return Ok(false),
            Err(_) => {}
        }
    }
}

/// The same file under a descriptor that executed programs keep.
fn inherited(file: OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD takes integers; the descriptor that it returns is new and nobody else's.
    unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 3);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// A pipe: our end, and the end that is passed on.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    let theirs = inherited(theirs.into())?;
    // A read must not wait for a grandchild that kept the other end.
    // SAFETY: fcntl with F_SETFL takes integers.
    if unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((OwnedFd::from(ours).into(), theirs))
}

/// The order in a nameless file.
fn memory(order: &Inside) -> io::Result<OwnedFd> {
    // SAFETY: a NUL-terminated name; the descriptor that is returned is new and nobody else's.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"coracle-inside".as_ptr(), 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.write_all(&serde_json::to_vec(order).map_err(io::Error::other)?)?;
    file.rewind()?;
    Ok(file.into())
}
