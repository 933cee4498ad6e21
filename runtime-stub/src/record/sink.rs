//! Where records go: a file that many jobs append to, or standard error.
//!
//! A record is one write to a file opened for appending, which a node's kernel does not tear apart. Other nodes append to
//! a file of NFS as well, whose clients write where they think its end is; so the file is locked for the moment, as far as
//! the file system has locks. A *directory* gets a file for each node.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{launch::Caller, options::Report};

/// Nobody keeps the lock for longer than a write takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// An open one.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File(File, PathBuf),
}

impl Sink {
    pub(super) fn open(to: &Report, caller: &Caller, node: &str) -> Result<Self, String> {
        let Report::File(path) = to else { return Ok(Self::Stderr) };
        let mut path = caller.absolute(path);
        if path.is_dir() {
            let name = if node.is_empty() || node.starts_with('.') { "node" } else { node };
            path.push(format!("{}.jsonl", name.replace('/', "_")));
        }
        let flags = libc::O_CLOEXEC | libc::O_NOCTTY;
        match File::options().append(true).create(true).custom_flags(flags).open(&path) {
            Ok(file) => Ok(Self::File(file, path)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    pub(super) fn append(&self, line: &[u8]) -> Result<(), String> {
        match self {
            Self::Stderr => io::stderr().write_all(line).map_err(|error| format!("standard error: {error}")),
            Self::File(file, path) => append(file, line).map_err(|error| format!("{}: {error}", path.display())),
        }
    }
}

fn append(mut file: &File, line: &[u8]) -> io::Result<()> {
    let locked = lock(file);
    let before = file.metadata()?;
    let done = file.write_all(line);
    if done.is_err() && locked && before.is_file() {
        // A disk that was full in the middle of it: half a record would spoil the next one. What cannot be undone stays.
        let _ = file.set_len(before.len());
    }
    done
}

/// Takes the lock, which goes with the process. `false`: there is none to be had.
fn lock(file: &File) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        // SAFETY: flock touches no memory of this process.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return true;
        }
        let busy = matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EWOULDBLOCK | libc::EINTR));
        if !busy || Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
}
