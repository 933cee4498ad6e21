//! The cache: unpacked trees, shared by all of a user's jobs on the node, each unpacked once.
//!
//! ```text
//! PLACE/coracle-UID/             0700, this user's; trusted only if nobody else can have written to it
//!     DIGEST/                    one tree, named by the SHA-256 of its index; whole from the moment it has this name
//!         canary                 written first, read never (`trust`)
//!         lease                  flocked by every job that uses the tree; a line per start (`lease`)
//!         index                  the index, decompressed, for engines
//!         names                  the tree's names as a table, for engines that resolve paths; older trees have none
//!         truths                 true modes and owners of its files, for engines that make views of it
//!         root                   a link to the tree (`roots`)
//!         view-ENGINE-…/         the tree with files edited for an engine (`view`); all as here
//!         trust                  under which boots the tree was found whole (`trust`)
//!     root-…/                    a tree, or a view of one: as few directories as can be lie above it
//!     DIGEST.lock                who unpacks, and how far (`lock`)
//!     .new-… .old-…              being unpacked; replaced, and kept until its last job ends
//!     .run-…                     one run's own tree or files
//! ```
//!
//! Rules:
//! - Correctness rests on rename alone: a tree gets its name when it is whole, and loses it before it is removed.
//! - A start that finds its tree makes about 35 short system calls and reads nothing of the tree.
//! - A tree found damaged is unpacked anew beside the old one and takes its name in one step; jobs in the old one go on.
//! - What a killed process left is removed by the next one that unpacks: it holds no lock any more.

mod base;
mod fill;
mod lease;
mod limit;
mod lock;
mod places;
mod roots;
mod scratch;
#[cfg(test)]
mod tests;
mod trust;
mod unused;
mod view;

use std::{
    fmt, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_format::{Index, hex};

use self::{
    base::Base,
    fill::{Filler, NoFill},
};
use crate::{
    open::{Bundle, OpenError},
    unpack::{Stats, UnpackError},
};

pub use places::{Place, Settings, Skipped};
pub use scratch::{Scratch, ScratchError};
pub use view::{ViewError, view};

/// How to get a tree.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Where to look and unpack.
    pub settings: Settings,
    /// `cache=none`: a directory of this run's own, below the scratch places, gone at its end.
    pub private: bool,
    /// Threads that unpack; `None` means all cores that the job may use.
    pub threads: Option<usize>,
    /// Bytes that the trees of a place may take together; none: as many as there is room for.
    pub limit: Option<u64>,
    /// How long another process may unpack without getting anywhere before this one stops waiting for it.
    pub patience: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            private: false,
            threads: None,
            limit: None,
            patience: Duration::from_secs(20),
        }
    }
}

/// A tree that is ready and stays so while the lease is held.
#[derive(Debug)]
pub struct Cached {
    /// The directory of this tree: `…/coracle-<uid>/<index digest>`.
    pub dir: PathBuf,
    /// The tree itself, as an absolute path without symbolic links; `dir/root` leads there.
    pub root: PathBuf,
    /// The index as a file, decompressed, for engines: `dir/index`.
    pub index: PathBuf,
    /// The table of the tree's names (`coracle_paths::table`): `dir/names`, which trees of older versions lack.
    pub names: PathBuf,
    /// What the image says of modes and owners (`coracle_view::truths`): `dir/truths`, which trees of older versions lack.
    pub truths: PathBuf,
    /// Keeps the tree from being cleaned up. Inherited over exec: it must stay open until the last process ends.
    pub lease: OwnedFd,
    /// It was there already.
    pub hit: bool,
    /// What unpacking did, if it was not there.
    pub stats: Option<Stats>,
    /// The bundle's index, if it was read for that: a view that is made next needs it, too.
    decoded: Option<Box<Index>>,
    /// Whoever called removes it at the end, with [`Cached::remove`].
    pub private: bool,
    /// Places that were passed over.
    pub skipped: Vec<Skipped>,
}

/// What happens meanwhile, for the user to see.
#[derive(Debug)]
pub enum Event {
    /// Unpacking begins. For `verbose`.
    Unpacking {
        /// Where.
        dir: PathBuf,
        /// Bytes that it takes.
        bytes: u64,
    },
    /// A view of a tree begins, with some files edited. For `verbose`.
    Editing {
        /// Where.
        dir: PathBuf,
        /// The engine that needs it.
        engine: String,
    },
    /// Somebody else unpacks this tree, and this process waits.
    Waiting {
        /// Process id of the other, as it wrote it down.
        pid: Option<u32>,
        /// Where.
        dir: PathBuf,
    },
    /// The other one does not get anywhere; this process unpacks itself.
    GaveUp {
        /// Process id of the other, as it wrote it down.
        pid: Option<u32>,
        /// How long nothing moved.
        after: Duration,
    },
    /// The tree was damaged and is unpacked again.
    Damaged {
        /// Where.
        dir: PathBuf,
        /// What is missing or different.
        why: String,
    },
    /// A place that the user chose is passed over.
    Skipped(Skipped),
    /// A tree had to make room. For `verbose`.
    Evicted {
        /// Where it was.
        dir: PathBuf,
    },
    /// The trees that jobs use take more than the limit. For `verbose`.
    OverLimit {
        /// Bytes too much.
        over: u64,
        /// The limit.
        limit: u64,
    },
    /// This tree alone would exceed the limit, so it is unpacked for this run alone.
    TooLarge {
        /// Bytes that it takes.
        weight: u64,
        /// The limit.
        limit: u64,
    },
}

impl Event {
    /// Whether it is to be shown without being asked for.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        let quiet = matches!(
            self,
            Self::Unpacking { .. } | Self::Editing { .. } | Self::Evicted { .. } | Self::OverLimit { .. }
        );
        !quiet
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other =
            |pid: &Option<u32>| pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        match self {
            Self::Unpacking { dir, bytes } => {
                write!(f, "unpacking {} MB to {}", bytes.div_ceil(1 << 20), dir.display())
            }
            Self::Editing { dir, engine } => {
                write!(f, "making a view of the tree for the {engine} engine in {}", dir.display())
            }
            Self::Waiting { pid, dir } => write!(f, "waiting for {}, which unpacks {}", other(pid), dir.display()),
            Self::GaveUp { pid, after } => {
                write!(f, "{} made no progress for {} s: unpacking here as well", other(pid), after.as_secs())
            }
            Self::Damaged { dir, why } => write!(f, "{}: {why}: unpacking it again", dir.display()),
            Self::Skipped(skipped) => write!(f, "cache {skipped}: using another place"),
            Self::Evicted { dir } => write!(f, "removed {}, to keep to the cache's limit", dir.display()),
            Self::OverLimit { over, limit } => write!(
                f,
                "the trees in use take {} MB more than the cache's limit of {} MB",
                over.div_ceil(1 << 20),
                limit >> 20
            ),
            Self::TooLarge { weight, limit } => write!(
                f,
                "the image takes {} MB and the cache's limit is {} MB: unpacking it for this run alone: raise the limit",
                weight.div_ceil(1 << 20),
                limit >> 20
            ),
        }
    }
}

/// No tree could be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No place will do.
    #[error(
        "no directory to unpack to: {}: name one with room and permission to execute in CORACLE_CACHE",
        list(.0)
    )]
    NoPlace(Vec<Skipped>),
    /// Unpacking failed, for a reason that no other place would cure.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

fn list(skipped: &[Skipped]) -> String {
    skipped.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Finds the bundle's tree in the cache, or unpacks it there.
///
/// Called in a process with one thread, and returns in one.
///
/// # Errors
/// [`CacheError`] tells what was tried.
pub fn acquire(bundle: &Bundle, options: &CacheOptions, report: &mut dyn FnMut(Event)) -> Result<Cached, CacheError> {
    let boot = trust::boot_id();
    let name = hex(bundle.index_digest());
    let filler = Filler { bundle, options, boot: &boot, name: &name, view: None };
    let places = if options.private { options.settings.scratch_places() } else { options.settings.cache_places() };
    // What the user chose comes first in everything: a tree that lies somewhere else does not keep it from going there.
    let (chosen, mut rest): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.chosen);
    // Memory is charged to the job: only if nothing else will do.
    rest.sort_by_key(|place| base::is_tmpfs(&place.path));
    let mut skipped = Vec::new();
    for group in [chosen, rest] {
        let found = if options.private { None } else { group.iter().find_map(|place| filler.find_in(place)) };
        if let Some(mut cached) = found {
            cached.skipped = skipped;
            return Ok(cached);
        }
        for place in group {
            let reason = match filler.fill_place(&place, report) {
                Ok(mut cached) => {
                    cached.skipped = skipped;
                    return Ok(cached);
                }
                Err(NoFill::Place(reason)) => reason,
                Err(NoFill::Fatal(error)) => return Err(error),
            };
            let one = Skipped { place, reason };
            if one.place.chosen {
                report(Event::Skipped(one.clone()));
            }
            skipped.push(one);
        }
    }
    Err(CacheError::NoPlace(skipped))
}

/// The place in whose `coracle-UID` a tree lies.
pub(crate) fn place_of(root: &Path) -> Option<&Path> {
    // A tree of one run's own, or of an older version, is one directory deeper.
    let name = format!("coracle-{}", nix::unistd::geteuid());
    let own = root.ancestors().skip(1).take(2).find(|dir| dir.file_name().is_some_and(|found| *found == *name))?;
    own.parent()
}

/// What a clean-up did with one tree or temporary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// Which.
    pub path: PathBuf,
    /// It is gone; otherwise a job uses it.
    pub removed: bool,
}

/// Removes every tree and temporary of this user's that no job uses, in all places; of the trees only as many as each
/// place needs to keep to a limit, if there is one.
#[must_use]
pub fn cleanup(settings: &Settings, limit: Option<u64>) -> Vec<Cleaned> {
    let mut cleaned = Vec::new();
    for place in settings.scratch_places() {
        let Ok(base) = Base::open(&place, false) else { continue };
        cleaned.extend(unused::sweep(&base));
        cleaned.extend(unused::remove_lost(&base));
        match limit {
            Some(limit) => cleaned.extend(limit::trim(&base, limit).0),
            None => {
                cleaned.extend(unused::remove_trees(&base));
                // Not if anything is left in it, which is what is wanted.
                let _ = base.path().and_then(fs::remove_dir);
            }
        }
    }
    cleaned
}

impl Cached {
    /// Removes a private tree; a shared one stays.
    ///
    /// # Errors
    /// What could not be removed, and why.
    pub fn remove(self) -> io::Result<()> {
        // On NFS, a file that is open would stay, under another name.
        drop(self.lease);
        if self.private { fs::remove_dir_all(&self.dir) } else { Ok(()) }
    }
}
