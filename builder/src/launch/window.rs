//! The size of a terminal's window, on its way from who attaches to the monitor that keeps the program's terminal.
//!
//! `attach` writes it to the container's `window` and sends the monitor SIGWINCH; the monitor sets it, and the kernel tells
//! the program.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

/// Whether SIGWINCH has come since the last look.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for Window {
    /// The size of a terminal of old.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

fn path(container: &Path) -> PathBuf {
    container.join("window")
}

impl Window {
    /// That of the terminal which a descriptor is, if it is one and has a size.
    #[must_use]
    pub fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCGWINSZ fills one winsize, which outlives the call.
        let got = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        (got == 0 && size.ws_row > 0 && size.ws_col > 0).then_some(Self { rows: size.ws_row, columns: size.ws_col })
    }

    /// Leaves it for a container's monitor, and wakes that.
    ///
    /// # Errors
    /// The file cannot be written, or there is no such process.
    pub fn tell(self, container: &Path, monitor: i32) -> io::Result<()> {
        let path = path(container);
        // A reader meanwhile must not see the half of it.
        let new = path.with_extension("new");
        fs::write(&new, format!("{} {}\n", self.rows, self.columns))?;
        fs::rename(&new, &path)?;
        // SAFETY: kill takes two integers.
        if unsafe { libc::kill(monitor, libc::SIGWINCH) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// What was left for a container's monitor.
    fn told(container: &Path) -> Option<Self> {
        let text = fs::read_to_string(path(container)).ok()?;
        let (rows, columns) = text.trim().split_once(' ')?;
        Some(Self { rows: rows.parse().ok()?, columns: columns.parse().ok()? })
    }

    /// As the kernel has it.
    #[must_use]
    pub fn size(self) -> libc::winsize {
        libc::winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// From now on [`changed`] tells of SIGWINCH.
pub fn listen() {
    // SAFETY: the handler is async-signal-safe: it sets one atomic.
    unsafe { libc::signal(libc::SIGWINCH, note as *const () as libc::sighandler_t) };
}

extern "C" fn note(_: i32) {
    CHANGED.store(true, Ordering::SeqCst);
}

/// Whether the signal came since this was asked last.
#[must_use]
pub fn changed() -> bool {
    CHANGED.swap(false, Ordering::SeqCst)
}

/// Gives a terminal the size that was left for a container's monitor.
pub fn apply(container: &Path, terminal: BorrowedFd<'_>) {
    if let Some(window) = Window::told(container) {
        let size = window.size();
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}
