//! What a guest and its descendants used, as the kernel counts it: gathered while they are waited for.

use std::{fs, ops::Sub, time::Duration};

use serde::{Deserialize, Serialize};

/// Bytes read and written (proc(5), `/proc/PID/io`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// By read(2) and its like, from whatever.
    pub read_chars: u64,
    /// By write(2) and its like.
    pub written_chars: u64,
    /// Really fetched from storage.
    pub read_bytes: u64,
    /// Sent to storage.
    pub written_bytes: u64,
}

impl Io {
    /// Of this process and of the children that it has waited for; none where the kernel does not count.
    fn own() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/io").ok()?;
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.next()?.trim().parse().ok()
        };
        Some(Self {
            read_chars: field("rchar")?,
            written_chars: field("wchar")?,
            read_bytes: field("read_bytes")?,
            written_bytes: field("write_bytes")?,
        })
    }
}

impl Sub for Io {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            read_chars: self.read_chars.saturating_sub(before.read_chars),
            written_chars: self.written_chars.saturating_sub(before.written_chars),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// What was used, all processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time on processors in programs' own code.
    pub user: Duration,
    /// Time on processors in the kernel for them.
    pub system: Duration,
    /// Most memory that a single process had at a time, in bytes.
    pub max_rss: u64,
    /// Bytes read and written, if the kernel counts them.
    pub io: Option<Io>,
}

impl Usage {
    /// Before there is a guest.
    pub(super) fn begin() -> Self {
        Self { io: Io::own(), ..Self::default() }
    }

    /// After all have been waited for.
    pub(super) fn end(&mut self) {
        self.io = self.io.and_then(|before| Some(Io::own()? - before));
    }

    /// Waits for this child, which has news, and adds what it used if it has ended. The status as wait4(2) gives it.
    pub(super) fn take(&mut self, pid: i32, how: i32) -> Option<i32> {
        loop {
            // SAFETY: an all-zero rusage is valid; it and the status outlive the call.
            let (got, status, usage) = unsafe {
                let (mut status, mut usage): (i32, libc::rusage) = (0, std::mem::zeroed());
                (libc::wait4(pid, &raw mut status, how, &raw mut usage), status, usage)
            };
            if got > 0 {
                if !libc::WIFSTOPPED(status) {
                    self.add(&usage);
                }
                return Some(status);
            }
            if got == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                return None;
            }
        }
    }

    /// Waits for any child: its id, 0 if none has ended yet, or nothing if there is none.
    pub(super) fn take_any(&mut self, how: i32) -> Option<i32> {
        loop {
            // SAFETY: as in `take`.
            let (got, usage) = unsafe {
                let (mut status, mut usage): (i32, libc::rusage) = (0, std::mem::zeroed());
                (libc::wait4(-1, &raw mut status, how, &raw mut usage), usage)
            };
            if got > 0 {
                self.add(&usage);
            }
            if got >= 0 {
                return Some(got);
            }
            if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                return None;
            }
        }
    }

    /// The kernel's count holds what a process's own children used, if it waited for them.
    fn add(&mut self, usage: &libc::rusage) {
        let time = |value: libc::timeval| {
            Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(value.tv_usec).unwrap_or(0))
        };
        self.user += time(usage.ru_utime);
        self.system += time(usage.ru_stime);
        // In kilobytes (getrusage(2)).
        self.max_rss = self.max_rss.max(u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10);
    }
}
