//! What a finished command left: status and both streams, with assertions that show everything when they fail.

use std::{fmt, os::unix::process::ExitStatusExt, process};

/// A finished command.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit status, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output, as bytes.
    pub stdout_bytes: Vec<u8>,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    pub(crate) fn new(command: String, output: process::Output) -> Self {
        Self {
            command,
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stdout_bytes: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that a case prepared itself.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn of(command: process::Command) -> Self {
        crate::sandbox::finish(command)
    }

    /// Asserts exit status 0, and returns standard output without the last line break.
    ///
    /// # Panics
    /// If the command failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout.trim_end_matches('\n')
    }

    /// Asserts an exit status.
    ///
    /// # Panics
    /// On any other.
    #[track_caller]
    pub fn code_is(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Asserts one of Coracle's own failures: exit status 125, and on standard error one line
    /// `coracle: what: why…` that holds each of `parts`. Progress lines before it are allowed.
    ///
    /// # Panics
    /// On any other outcome.
    #[track_caller]
    pub fn fails_with(&self, parts: &[&str]) -> &Self {
        self.fails_as(125, parts)
    }

    /// As [`fails_with`](Self::fails_with), with another exit status.
    ///
    /// # Panics
    /// On any other outcome.
    #[track_caller]
    pub fn fails_as(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        let last = self.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("coracle: "), "the last line is no message of ours: {self}");
        for part in parts {
            assert!(last.contains(part), "no {part:?} in the message: {self}");
        }
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n$ {}\nstatus {:?}, signal {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.signal, self.stdout, self.stderr
        )
    }
}
