//! The record of one run, for a site's accounting: one line of JSON.
//!
//! Written by a bundle (`--coracle-report`), summed by `coracle accounting`. Field names carry their unit; fields may be
//! added, so a reader ignores those that it does not know, and takes a missing one for nothing.

use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning.
pub const RECORD_VERSION: u32 = 1;

/// One run of one bundle, from its start to its end, however that came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub record: u32,
    /// Version of Coracle that wrote it.
    pub coracle: String,
    /// Path of the bundle's file.
    pub bundle: String,
    /// Digest of its manifest (`sha256:…`), which names all else that is in it: the bundle's own name.
    pub manifest: String,
    /// Digest of its index: the name of its tree in the cache.
    pub tree: String,
    /// What it was built from, as the builder was told.
    pub source: String,
    /// Digest of the image's manifest, if it had one.
    pub image: Option<String>,
    /// The program, without its arguments: they may hold what is nobody's business.
    pub program: Option<String>,
    /// The engine that ran it.
    pub engine: Option<String>,
    /// Engines that would not.
    pub refusals: Vec<Refused>,
    /// The node's name.
    pub node: String,
    /// The batch job that it was part of.
    pub job: Option<JobId>,
    /// Login name of whoever ran it, if the node knows one.
    pub user: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// When it began, in UTC: `2026-11-21T05:00:00.123Z` (RFC 3339).
    pub start: String,
    /// From then to its end.
    pub wall_s: f64,
    /// Time on processors in programs' own code.
    pub user_s: f64,
    /// Time on processors in the kernel for them.
    pub system_s: f64,
    /// Most memory that a single process had at a time.
    pub max_rss_bytes: u64,
    /// Bytes read and written, if the kernel counts them.
    pub io: Option<RecordIo>,
    /// Exit status, if it exited.
    pub exit: Option<u8>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// Why the program was not started, if it was not.
    pub error: Option<String>,
    /// Its tree was in the cache.
    pub cache_hit: bool,
    /// Time until the tree was there, found, unpacked or waited for.
    pub ready_s: f64,
    /// What unpacking took, if it was done.
    pub unpack: Option<Unpacked>,
}

/// An engine that would not run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name.
    pub engine: String,
    /// Why not.
    pub reason: String,
}

/// A batch system's name for a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobId {
    /// `slurm`, `htcondor`, `pbs`, `lsf`, `sge`…
    pub system: String,
    /// Its number; that of the whole array for a task of one.
    pub id: String,
    /// Number of the task, in an array or a cluster of jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The step within the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Bytes read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordIo {
    /// By read(2) and its like, from whatever.
    pub read_chars: u64,
    /// By write(2) and its like.
    pub written_chars: u64,
    /// Really fetched from storage.
    pub read_bytes: u64,
    /// Sent to storage.
    pub written_bytes: u64,
}

/// An unpacking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unpacked {
    /// How long it took.
    pub seconds: f64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories and links.
    pub files: u64,
    /// Threads that did it: as many as the job may use processors.
    pub threads: usize,
}

/// A time as people and programs read it, in UTC: `2026-11-21T05:00:00Z` (RFC 3339).
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days since 0000-03-01, by the calendar's 400-year cycles.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, era * 400 + year) } else { (month - 9, era * 400 + year + 1) };
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
