//! What an engine may want to know of the node, read once by the launcher.

use std::{ffi::OsString, fs};

/// The node as the launcher found it. Engines read `/proc/sys` themselves, and only to explain a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Kernel release as (major, minor), from `uname(2)`; (0, 0) if it could not be parsed.
    pub kernel: (u32, u32),
    /// Effective user id of the launcher.
    pub uid: u32,
    /// Effective group id of the launcher.
    pub gid: u32,
    /// The launcher's PATH: where an engine looks for a program of the host's that it needs.
    pub path: Option<OsString>,
}

impl Host {
    /// Reads the node's facts; `path` is the launcher's PATH.
    #[must_use]
    pub fn read(path: Option<OsString>) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // SAFETY: geteuid and getegid take no argument, touch no memory and cannot fail (getuid(2)).
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self { kernel: parse_release(&release).unwrap_or((0, 0)), uid, gid, path }
    }

    /// Whether the kernel is at least this release.
    #[must_use]
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }
}

/// `6.1.0-13-amd64` → (6, 1).
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn releases_of_distributions() {
        assert_eq!(parse_release("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(parse_release("3.10.0-1160.el7.x86_64\n"), Some((3, 10)));
        assert_eq!(parse_release("linux"), None);
    }
}
