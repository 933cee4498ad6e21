//! Why a run cannot be planned. Prints as `what: why: what to do`; exit status 125.

use std::{io, path::PathBuf};

/// A run that cannot be planned as asked.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Neither the image nor the user names a program.
    #[error("the image names no program to run: give one as an argument, or start its shell with --coracle-shell")]
    NothingToRun,
    /// `--coracle-shell` on an image without one.
    #[error("the image has no shell: neither bash nor sh is on its PATH ({path}): give a program as an argument")]
    NoShell {
        /// The image's PATH.
        path: String,
    },
    /// A volume's host path does not exist.
    #[error("volume {}: {source}: create it, or correct the path", host.display())]
    Volume {
        /// Host path as resolved.
        host: PathBuf,
        /// What stat(2) said.
        source: io::Error,
    },
    /// An environment file that cannot be used.
    #[error("environment file {}{}: {why}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Its line, if it is one line's fault.
        line: Option<usize>,
        /// What is wrong, and what to do.
        why: String,
    },
    /// `--coracle-user` names nobody.
    #[error("user {asked:?}: {whose}'s {file} has no {name:?}: use a name that it has, or a number")]
    NoSuchUser {
        /// As asked for.
        asked: String,
        /// `the image`, `the host`.
        whose: &'static str,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The name that was not found.
        name: String,
    },
    /// A device.
    #[error(transparent)]
    Driver(#[from] crate::drivers::DriverError),
    /// `--coracle-engine` names none.
    #[error("engine {asked:?}: no such engine: choose one of {known}")]
    NoSuchEngine {
        /// As asked for.
        asked: String,
        /// All names.
        known: String,
    },
    /// The engine that was asked for refuses.
    #[error("engine {engine}: {refusal}")]
    EngineRefused {
        /// Its name.
        engine: &'static str,
        /// Its words.
        refusal: String,
    },
    /// None accepts.
    #[error("no engine can run this here: {refusals}: --coracle-explain tells more")]
    NoEngine {
        /// Each with its reason.
        refusals: String,
    },
    /// No directory for this run.
    #[error(transparent)]
    NoScratch(#[from] crate::cache::ScratchError),
    /// A file or directory of the launcher's own.
    #[error("{}: cannot {step}: {source}: free some space, or name another place with CORACLE_SCRATCH", path.display())]
    Scratch {
        /// `create it`…
        step: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}
