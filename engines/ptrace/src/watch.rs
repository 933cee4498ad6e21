//! Stopping with the front: whoever sends SIGSTOP to the process that he sees means the guest.
//!
//! No process can catch that signal, and the kernel tells of it nobody but the parent, who is not ours. So a thread of the
//! tracer looks at the front five times a second, and when that stands still has the guest's first process stop too. That it
//! goes on again needs no looking: the front passes SIGCONT on. Rules:
//! - The signals of a terminal or a shell's job go to the whole group, so mostly the guest has stopped before, and its stop
//!   was what stopped the front: then there is nothing to do.
//! - A stop that was made here is not told to the front, which would stop once more when it goes on.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

const PAUSE: Duration = Duration::from_millis(200);

/// What tracer and watcher know of the guest's first process.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Its id; zero when it has ended.
    main: AtomicI32,
    /// It has stopped.
    stopped: AtomicBool,
    /// The next stop of it is the watcher's doing.
    own: AtomicBool,
}

impl Watch {
    /// Watches the front, our parent, from now on until it ends, for the sake of process `main`.
    ///
    /// # Errors
    /// What open(2) or clone(2) said.
    pub(crate) fn start(self: &Arc<Self>, main: i32) -> io::Result<()> {
        self.main.store(main, Ordering::SeqCst);
        // SAFETY: getppid returns an integer.
        let front = File::open(format!("/proc/{}/stat", unsafe { libc::getppid() }))?;
        let watch = Arc::clone(self);
        let name = "watch".to_owned();
        thread::Builder::new().name(name).stack_size(64 << 10).spawn(move || watch.run(&front)).map(drop)
    }

    fn run(&self, front: &File) {
        loop {
            thread::sleep(PAUSE);
            match stands_still(front) {
                // It has ended.
                None => return,
                Some(false) => continue,
                Some(true) => {}
            }
            if self.stopped.load(Ordering::SeqCst) || self.own.swap(true, Ordering::SeqCst) {
                continue;
            }
            self.signal(libc::SIGSTOP);
            // If it went on before, it has passed SIGCONT on before; from now on it will after.
            if stands_still(front) != Some(true) {
                self.own.store(false, Ordering::SeqCst);
                self.signal(libc::SIGCONT);
            }
        }
    }

    fn signal(&self, signal: i32) {
        let main = self.main.load(Ordering::SeqCst);
        if main != 0 {
            // SAFETY: kill takes two integers. The tracer says when the process has been waited for.
            unsafe { libc::kill(main, signal) };
        }
    }

    /// The guest's first process has stopped; whether the front is to be told.
    pub(crate) fn stops(&self) -> bool {
        self.stopped.store(true, Ordering::SeqCst);
        !self.own.swap(false, Ordering::SeqCst)
    }

    /// It goes on, if it had stopped; whether it had.
    pub(crate) fn goes_on(&self) -> bool {
        self.stopped.swap(false, Ordering::SeqCst)
    }

    /// It has ended.
    pub(crate) fn ends(&self) {
        self.main.store(0, Ordering::SeqCst);
    }
}

/// Whether the process of this `/proc/PID/stat` was stopped by a signal; none if it is no more.
fn stands_still(stat: &File) -> Option<bool> {
    let mut text = [0; 128];
    let len = stat.read_at(&mut text, 0).ok().filter(|len| *len > 0)?;
    // The name in parentheses may hold anything, but is short.
    let end = text[..len].iter().rposition(|byte| *byte == b')')?;
    match text.get(end + 2)? {
        b'Z' | b'X' => None,
        state => Some(*state == b'T'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_stopped_stands_still() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().expect("sleep");
        let id = i32::try_from(child.id()).expect("a number");
        let stat = File::open(format!("/proc/{id}/stat")).expect("stat");
        // SAFETY: kill takes two integers; the child has not been waited for. Waiting for a stop writes one int.
        let signal = |signal| unsafe { libc::kill(id, signal) };
        assert_eq!(stands_still(&stat), Some(false));
        signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        unsafe { libc::waitpid(id, &raw mut status, libc::WUNTRACED) };
        assert_eq!(stands_still(&stat), Some(true));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(stands_still(&stat), None);
    }
}
