//! Why an engine will not run, and how a run failed: both in words for the user.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// Why an engine declines a run on this node. Shown by `explain`, and by an error when no engine accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The exact reason: which call or rule refused, and its error.
    pub reason: String,
    /// What the user or the administrator can do about it, if anything.
    pub advice: Option<String>,
}

impl Refusal {
    /// A refusal with nothing to be done about it.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: None }
    }

    /// Adds what can be done.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.advice {
            Some(advice) => write!(f, "{}: {advice}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// A run that failed in an engine, before or around the guest.
///
/// It prints as `what: why: what to do`; the launcher puts `coracle:` before it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guest's program does not exist (exit status 127).
    #[error("{program}: not found in the image: give an absolute path, or a name on the image's PATH ({path})")]
    NotFound {
        /// The program as asked for.
        program: String,
        /// The PATH that was searched.
        path: String,
    },
    /// The guest's program exists and cannot be executed (exit status 126).
    #[error("{program}: cannot be executed: {source}{}", hint(.advice))]
    NotExecutable {
        /// The program as asked for.
        program: String,
        /// What execve(2) said.
        source: io::Error,
        /// What to do, if known.
        advice: Option<String>,
    },
    /// One of the engine's own steps failed (exit status 125).
    #[error("{what}: {source}{}", hint(.advice))]
    Step {
        /// The step and its object: `mount /proc in the container`.
        what: String,
        /// The system's answer.
        source: io::Error,
        /// What to do, if known.
        advice: Option<String>,
    },
    /// The engine cannot do what was asked (exit status 125).
    #[error("{0}")]
    Refused(Refusal),
}

impl RunError {
    /// A failed step; `source` is usually [`io::Error::last_os_error`].
    #[must_use]
    pub fn step(what: impl Into<String>, source: io::Error) -> Self {
        Self::Step { what: what.into(), source, advice: None }
    }

    /// The exit status that Docker's users expect: 127, 126 or 125.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Step { .. } | Self::Refused(_) => 125,
        }
    }
}

fn hint(advice: &Option<String>) -> String {
    advice.as_ref().map_or_else(String::new, |advice| format!(": {advice}"))
}
