//! The payload to a directory: as fast as the cores that the job may use allow, and nowhere but below that directory.
//!
//! Order: directories; files, in parallel; hard links; symbolic links; then modes and times of directories. So no symbolic
//! link exists while anything is written, and the target is closed to other users until the end. The index was checked
//! (plain relative names, parents that are directories) before anything here sees it.
//!
//! Frames are independent. A thread takes the next frame, checks its digest, decompresses it into a buffer that it
//! keeps, and writes the files straight from there: four system calls for a small file. Files of several frames are
//! written by several threads at once. The work is done by a forked child, because whoever launches a guest must never
//! have had threads.
//!
//! Ownership is not set: an ordinary user cannot, and the index has it. Devices are left out. Of the extended attributes,
//! `user.*` are set where the file system takes them.

mod failure;
mod files;
mod names;
mod plan;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use coracle_format::{Index, Kind};
use nix::{sys::stat, unistd};
use serde::{Deserialize, Serialize};

pub(crate) use self::worker::{Held, waiting};
use self::{
    failure::Failure,
    files::{Files, on_threads},
    names::Tree,
    plan::Plan,
    worker::WorkerError,
};
pub use view::{ViewOf, edited_len, make_view};

use crate::open::{Bundle, FrameReader};

/// Which permission bits files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// As a shared, read-only tree: files lose their write and set-id bits and are readable by their owner; directories
    /// keep their bits and can be entered, read and written by their owner. The true modes are in the index.
    Shared,
    /// As in the image, less set-id bits: they would speak for whoever unpacked, not for the image's owner of the file.
    True,
}

/// How to unpack.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Threads; `None` means all cores that the job may use.
    pub threads: Option<usize>,
    /// Permission bits.
    pub modes: Modes,
    /// Called by the worker's threads after each frame with the number of frames done and of all.
    pub progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

/// What unpacking did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Threads used.
    pub threads: usize,
    /// Files, directories and links made.
    pub inodes: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Device nodes left out.
    pub devices: u64,
    /// Files whose set-id bits were left off.
    pub set_ids: u64,
    /// Extended attributes of the `user.` class that the file system did not take.
    pub xattrs: u64,
}

/// The tree could not be written. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The directory to unpack to cannot be used.
    #[error("{}: cannot be unpacked to: {source}: name an empty directory of your own", path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed on one file.
    #[error("{}: cannot {step} it: {source}{}", path.display(), advice(source))]
    Step {
        /// `create`, `write`…
        step: String,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A frame of the payload cannot be had.
    #[error("{}: frame {frame} of the payload {why}: the file is damaged: copy or build it again", path.display())]
    Frame {
        /// The bundle.
        path: PathBuf,
        /// Number of the frame.
        frame: usize,
        /// As [`crate::open::FrameError`] says it.
        why: String,
    },
    /// The index describes what cannot be.
    #[error("{}: {why}: the file is damaged: copy or build it again", path.display())]
    Index {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The process that unpacks could not be made, or did not come to its end.
    #[error("unpacking: {0}: check the job's limits (memory, processes, open files, the size of files)")]
    Worker(String),
    /// A signal with this number stopped it. Whoever called tidies up and then dies of the same signal.
    #[error("unpacking: stopped by signal {0}")]
    Signal(i32),
}

impl UnpackError {
    /// The error number of a failed system call.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Step { source, .. } | Self::Target { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => ": free some space, or name another directory in CORACLE_CACHE",
        Some(libc::EDQUOT) => ": your quota is used up: free some space, or name another directory in CORACLE_CACHE",
        _ => "",
    }
}

/// Keeps the signals that end a job waiting; [`unpack`] hears them all the same, and stops.
///
/// # Errors
/// Of sigprocmask(2).
pub(crate) fn hold_signals() -> Result<Held, nix::errno::Errno> {
    Held::new()
}

/// Unpacks the whole tree into `target`, an empty directory of this user's. What is there after an error is not removed.
///
/// Called in a process with one thread, and returns in one.
///
/// # Errors
/// The first step that failed.
pub fn unpack(bundle: &Bundle, index: &Index, target: &Path, options: &Options<'_>) -> Result<Stats, UnpackError> {
    let refused = |source| UnpackError::Target { path: target.to_owned(), source };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let root = fs::File::options().read(true).custom_flags(flags).open(target).map_err(refused)?;
    if root.metadata().map_err(refused)?.uid() != unistd::geteuid().as_raw() {
        return Err(refused(io::Error::other("it belongs to another user")));
    }
    // Closed to others until its own mode is set, last of all.
    stat::fchmod(&root, stat::Mode::S_IRWXU).map_err(|errno| refused(errno.into()))?;
    let outcome = worker::run(|| {
        // This child's own: files get exactly the modes that they are created with.
        stat::umask(stat::Mode::empty());
        work(bundle, index, &Tree { root: root.as_fd() }, options)
    });
    match outcome {
        Ok(result) => result.map_err(|failure| failure.into_error(bundle, target)),
        Err(WorkerError::Signal(signal)) => Err(UnpackError::Signal(signal as i32)),
        Err(error) => Err(UnpackError::Worker(error.to_string())),
    }
}

fn work(bundle: &Bundle, index: &Index, tree: &Tree<'_>, options: &Options<'_>) -> Result<Stats, Failure> {
    let plan = Plan::new(index)?;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(cores).max(1);
    tree.make_directories(index)?;

    let files = Files::new(tree, index, &plan, options.modes);
    let done = AtomicUsize::new(0);
    let count = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = options.progress {
            progress(done, plan.frames());
        }
    };
    let offset = bundle.payload_offset();
    on_threads(threads.min(plan.frames()), &|| files.work(FrameReader::new(bundle.file(), offset), &count))?;

    names::make_hard_links(tree, index, options.modes)?;
    let next = AtomicUsize::new(0);
    on_threads(threads, &|| names::make_symlinks(tree, index, &next))?;
    let (next, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
    let finishers = if options.modes == Modes::True { 1 } else { threads };
    on_threads(finishers, &|| names::finish_directories(tree, index, options.modes, &next, &lost))?;

    let mut stats = Stats { threads, xattrs: files.lost_xattrs() + lost.into_inner(), ..Stats::default() };
    for entry in &index.entries {
        stats.set_ids += u64::from(entry.mode & 0o6000 != 0 && matches!(entry.kind, Kind::File { .. }));
        match entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => stats.devices += 1,
            Kind::File { size, .. } => (stats.inodes, stats.bytes) = (stats.inodes + 1, stats.bytes + size),
            _ => stats.inodes += 1,
        }
    }
    Ok(stats)
}
