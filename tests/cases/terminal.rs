//! A bundle on a terminal: Ctrl-C, Ctrl-Z and `fg` through the user's shell, whether the stub stays beside the program
//! or not.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{Sandbox, bundles, eventually, skip};

/// A command on a pseudo-terminal of its own, with what it has printed so far.
pub(super) struct Terminal {
    child: Child,
    master: File,
    pub(super) seen: String,
}

impl Terminal {
    pub(super) fn start(mut command: Command) -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: openpty writes two descriptors to the integers; no name, settings or size are asked for.
        let made = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
        };
        assert_eq!(made, 0);
        // SAFETY: both descriptors were just opened and belong to nobody else.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // SAFETY: between fork and exec these are plain system calls on integers.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
            libc::fcntl(master.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        }
        let child = command.spawn().unwrap();
        // The command holds copies of the slave side; only without them does the master see its end.
        drop(command);
        Self { child, master, seen: String::new() }
    }

    pub(super) fn send(&mut self, text: &str) {
        self.seen.clear();
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Gives the terminal's window a size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
        assert_eq!(unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
    }

    /// What was printed since the last [`send`](Self::send), without waiting for more.
    pub(super) fn look(&mut self) -> &str {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.master.read(&mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        &self.seen
    }

    /// The process group that the terminal's keys are for.
    fn foreground(&self) -> i32 {
        // SAFETY: tcgetpgrp takes an open descriptor; of the master it tells what it would of the other side.
        unsafe { libc::tcgetpgrp(self.master.as_raw_fd()) }
    }

    /// Waits until this group has the terminal.
    #[track_caller]
    fn expect_foreground(&self, group: i32) {
        eventually("the job has the terminal", 60, || self.foreground() == group);
    }

    /// Whether the command has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Reads until `part` was printed.
    #[track_caller]
    pub(super) fn expect(&mut self, part: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.seen.contains(part) {
            let mut buffer = [0; 4096];
            match self.master.read(&mut buffer) {
                Ok(count) if count > 0 => self.seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
            assert!(Instant::now() < deadline, "{part:?} was not printed, but: {}", self.seen);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host shell with job control in a sandbox; none where something is missing.
fn shell() -> Option<(Sandbox, Terminal, String)> {
    if skip::lacks(&["bash"]) {
        return None;
    }
    let app = bundles::alpine()?.display().to_string();
    let sandbox = Sandbox::new();
    // The first start unpacks; what is timed by hand later should not.
    sandbox.run(&app, ["true"]).ok();
    let mut command = sandbox.command("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "host> ").env("TERM", "dumb").stdin(Stdio::null());
    let mut terminal = Terminal::start(command);
    terminal.expect("host> ");
    Some((sandbox, terminal, app))
}

fn job_control(options: &str) {
    let Some((_sandbox, mut terminal, app)) = shell() else { return };
    // The words are split so that the echo of the typed line is not taken for the answer.
    terminal.send(&format!("{app} {options} sh -c 'echo sta''rted; sleep 100'\n"));
    terminal.expect("started");
    let job = terminal.foreground();
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.send("fg; echo status-$?\n");
    terminal.expect("sleep 100");
    terminal.expect_foreground(job);
    terminal.send("\x03");
    terminal.expect("host> ");
    terminal.send("echo sta''tus-$?; jobs\n");
    terminal.expect("status-130");
    terminal.expect("host> ");
    assert!(!terminal.seen.contains("Stopped"), "{}", terminal.seen);
}

#[test]
fn a_job_is_stopped_continued_and_interrupted() {
    job_control("");
}

#[test]
fn a_job_is_stopped_continued_and_interrupted_beside_the_stub() {
    job_control("--coracle-cache=none");
}

#[test]
fn a_job_is_stopped_continued_and_interrupted_under_ptrace() {
    job_control("--coracle-engine=ptrace");
}

fn shell_inside(options: &str) {
    let Some((_sandbox, mut terminal, app)) = shell() else { return };
    terminal.send(&format!("{app} {options} env PS1='gue''st> ' sh\n"));
    terminal.expect("guest> ");
    // Its word comes when it has the terminal.
    let job = "sh -c 'echo run''ning; exec sleep 100'\n";
    terminal.send(job);
    terminal.expect("running");
    terminal.send("\x03");
    terminal.expect("guest> ");
    terminal.send(job);
    terminal.expect("running");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.send("kill -KILL %1; sleep 1; jobs; echo do''ne\n");
    terminal.expect("done");
    // The guest's shell as a whole, from inside, then back.
    let inside = terminal.foreground();
    terminal.send("kill -STOP $$\n");
    terminal.expect("host> ");
    terminal.send("fg\n");
    terminal.expect_foreground(inside);
    terminal.send("\necho aga''in\n");
    terminal.expect("again");
    terminal.send("exit 6\n");
    terminal.expect("host> ");
    terminal.send("echo sta''tus-$?\n");
    terminal.expect("status-6");
}

#[test]
fn a_shell_inside_has_job_control() {
    shell_inside("");
}

#[test]
fn a_shell_inside_has_job_control_beside_the_stub() {
    shell_inside("--coracle-cache=none");
}

#[test]
fn a_shell_inside_has_job_control_under_ptrace() {
    shell_inside("--coracle-engine=ptrace");
}
