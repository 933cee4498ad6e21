//! One tree in one place: looked up, waited for, unpacked, renamed into place.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_format::{Index, Kind};
use coracle_paths::table;
use coracle_view::truths;
use nix::{
    NixPath,
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::{Mode, mkdirat},
};

use super::{
    CacheError, CacheOptions, Cached, Event, Place,
    base::{Base, NoBase, path_of},
    lease, limit,
    lock::{self, Held, Turn, Wait},
    roots::{self, Root},
    trust::{self, Finding},
    unused::{remove_lost, remove_unused, sweep},
    view::{self, ViewFiller},
};
use crate::{
    open::Bundle,
    unpack::{self, Modes, Stats, UnpackError},
};

/// A tree and where to have it.
pub(super) struct Filler<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) options: &'a CacheOptions,
    pub(super) boot: &'a str,
    /// The index's digest, or a view's name: the directory's name.
    pub(super) name: &'a str,
    /// A view of a tree, instead of a tree.
    pub(super) view: Option<ViewFiller<'a>>,
}

/// What a place holds under the tree's name.
pub(super) enum Found {
    /// The tree, with its lease taken.
    Whole(Cached),
    /// Nothing, or what is just being removed.
    Nothing,
    /// A tree that is not what was unpacked.
    Damaged(String),
}

/// What becomes of an unpacked tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// It stays this run's own, without a name for others to find.
    OwnRun,
    /// It gets its name, unless somebody was faster.
    Name,
    /// It takes it from a damaged one.
    NameOfDamaged,
}

/// What is being made.
pub(super) struct Parts<'a> {
    /// The temporary directory.
    pub(super) dir: &'a OwnedFd,
    /// The root, which keeps its path.
    pub(super) root: &'a OwnedFd,
    pub(super) root_path: &'a Path,
}

/// Why a place got no tree.
pub(super) enum NoFill {
    /// For a reason of this place: another may do.
    Place(String),
    /// For a reason that every place would meet.
    Fatal(CacheError),
}

impl From<Errno> for NoFill {
    fn from(errno: Errno) -> Self {
        Self::Place(errno.desc().to_owned())
    }
}

impl Filler<'_> {
    /// The tree in `place`, if it is whole there.
    pub(super) fn find_in(&self, place: &Place) -> Option<Cached> {
        match self.find(&Base::open(place, false).ok()?) {
            Found::Whole(cached) => Some(cached),
            Found::Nothing | Found::Damaged(_) => None,
        }
    }

    /// Looks for the tree, without making anything.
    pub(super) fn find(&self, base: &Base) -> Found {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = match openat(base.fd(), self.name, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Found::Nothing,
            Err(errno) => return Found::Damaged(errno.desc().to_owned()),
        };
        let root = Root::of(dir.as_fd()).ok();
        match (trust::look(dir.as_fd(), root.as_ref(), self.boot), &root) {
            (Finding::OtherBoot { settled }, Some(root)) => {
                if let Err(why) = self.trust_anew(base, &dir, root, settled) {
                    return Found::Damaged(why);
                }
            }
            (Finding::Damaged(why), _) => return Found::Damaged(why),
            _ => {}
        }
        let root = root.unwrap_or_default();
        match lease::take(dir.as_fd(), self.boot) {
            Ok(lease) => match path_of(dir.as_fd()) {
                // Its name went before its lease was free.
                Ok(path) if !path.ends_with(self.name) => Found::Nothing,
                Ok(path) => Found::Whole(self.cached(path, &root, lease, None)),
                Err(error) => Found::Damaged(error.to_string()),
            },
            // Somebody removes it, or has, on this node or another.
            Err(Errno::EWOULDBLOCK | Errno::ESTALE) => Found::Nothing,
            Err(Errno::ENOENT) => Found::Damaged("its lease is gone, as after a cleaner of old files".to_owned()),
            Err(errno) => Found::Damaged(format!("its lease cannot be taken: {}", errno.desc())),
        }
    }

    /// A tree that was unpacked before this boot, or on another node.
    fn trust_anew(&self, base: &Base, dir: &OwnedFd, root: &Root, settled: bool) -> Result<(), String> {
        // Network file systems have the data once the files are closed, whatever becomes of the node that wrote them; and
        // looking at every file of theirs takes longer than unpacking.
        if !base.is_network() {
            if !settled {
                return Err("the node went down soon after it was unpacked".to_owned());
            }
            let root = root.open(dir.as_fd(), OFlag::O_RDONLY).map_err(|errno| format!("root: {}", errno.desc()))?;
            let index = self.bundle.index().map_err(|error| error.to_string())?;
            let fixups = self.view.as_ref().and_then(|view| view::fixups(&index, view.engine));
            trust::compare(root.as_fd(), &index, fixups)?;
        }
        // A read-only cache is looked at again each time.
        let _ = trust::add_boot(dir.as_fd(), self.boot);
        Ok(())
    }

    /// Gets the tree into `place`, by whoever.
    pub(super) fn fill_place(&self, place: &Place, report: &mut dyn FnMut(Event)) -> Result<Cached, NoFill> {
        loop {
            let base = Base::open(place, true).map_err(|no| match no {
                NoBase::Missing => NoFill::Place("does not exist".to_owned()),
                NoBase::Refused(reason) => NoFill::Place(reason),
            })?;
            match self.fill(&base, report) {
                // A clean-up found it empty meanwhile.
                Err(NoFill::Place(_)) if base.is_gone() => {}
                answer => return answer,
            }
        }
    }

    /// Gets the tree into an open directory, by whoever.
    pub(super) fn fill(&self, base: &Base, report: &mut dyn FnMut(Event)) -> Result<Cached, NoFill> {
        if self.options.private {
            self.check(base)?;
            return self.unpack(base, None, Taking::OwnRun, report);
        }
        let ready = || {
            base.look_anew();
            match self.find(base) {
                Found::Whole(cached) => Some(cached),
                Found::Nothing | Found::Damaged(_) => None,
            }
        };
        let payload = &self.bundle.manifest().payload;
        let weight = limit::estimate(payload.unpacked, payload.inodes);
        if let Some(limit) = self.options.limit.filter(|limit| weight > *limit) {
            if let Some(cached) = ready() {
                return Ok(cached);
            }
            report(Event::TooLarge { weight, limit });
            self.check(base)?;
            return self.unpack(base, None, Taking::OwnRun, report);
        }
        let dir = base.path().map_err(|error| NoFill::Place(error.to_string()))?.join(self.name);
        let patience = self.options.patience;
        let turn = lock::turn(base, self.name, patience, ready, |wait| {
            report(match wait {
                Wait::For(pid) => Event::Waiting { pid, dir: dir.clone() },
                Wait::GaveUp(pid) => Event::GaveUp { pid, after: patience },
            });
        });
        let turn = turn.map_err(|errno| match unpack::waiting().filter(|_| errno == Errno::EINTR) {
            Some(signal) => NoFill::Fatal(UnpackError::Signal(signal).into()),
            None => errno.into(),
        })?;
        let held = match turn {
            Turn::Ready(cached) => return Ok(cached),
            Turn::Ours(held) => held,
        };
        base.look_anew();
        let damaged = match self.find(base) {
            Found::Whole(cached) => return Ok(cached),
            Found::Nothing => false,
            Found::Damaged(why) => {
                // Who cannot open files sees damage everywhere.
                trust::able_to_look(base.fd())?;
                report(Event::Damaged { dir, why });
                // Makes room, if nobody is in it.
                remove_unused(base, self.name);
                true
            }
        };
        sweep(base);
        remove_lost(base);
        self.trim(base, weight, report);
        self.check(base)?;
        let taking = if damaged { Taking::NameOfDamaged } else { Taking::Name };
        let cached = self.unpack(base, held.as_ref(), taking, report)?;
        self.trim(base, 0, report);
        Ok(cached)
    }

    /// Makes room within the limit for `more` bytes.
    fn trim(&self, base: &Base, more: u64, report: &mut dyn FnMut(Event)) {
        let Some(limit) = self.options.limit else { return };
        let (removed, over) = limit::trim(base, limit.saturating_sub(more));
        for one in removed {
            report(Event::Evicted { dir: one.path });
        }
        if over > 0 && more == 0 {
            report(Event::OverLimit { over, limit });
        }
    }

    fn check(&self, base: &Base) -> Result<(), NoFill> {
        if let Some(view) = &self.view {
            let (bytes, inodes) = view.needs();
            return base.check_room(bytes, inodes).map_err(NoFill::Place);
        }
        let payload = &self.bundle.manifest().payload;
        base.check_exec().map_err(NoFill::Place)?;
        base.check_room(payload.unpacked, payload.inodes).map_err(NoFill::Place)
    }

    /// Unpacks to a directory of this process's own, and gives that the tree's name.
    fn unpack(
        &self,
        base: &Base,
        held: Option<&Held>,
        taking: Taking,
        report: &mut dyn FnMut(Event),
    ) -> Result<Cached, NoFill> {
        let private = taking == Taking::OwnRun;
        // A signal that ends the job waits until nothing half-made is left.
        let _later = unpack::hold_signals()?;
        let temporary = temporary(if private { "run" } else { "new" });
        mkdirat(base.fd(), temporary.as_str(), Mode::S_IRWXU)?;
        let path = base.path().map_err(|error| NoFill::Place(error.to_string()))?.join(&temporary);
        // From here on, nothing half-made stays behind.
        let half_made = HalfMade { path: Some(path.clone()), private };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(base.fd(), temporary.as_str(), flags, Mode::empty())?;
        trust::write_canary(dir.as_fd())?;
        let lease = lease::create(dir.as_fd(), self.boot)?;
        let root = Root::make(dir.as_fd(), if private { 0 } else { self.up() })?;
        let root_path = root.path(&path);
        let root_fd = root.open(dir.as_fd(), OFlag::O_RDONLY)?;
        let parts = Parts { dir: &dir, root: &root_fd, root_path: &root_path };
        let (stats, decoded) = if let Some(view) = &self.view {
            report(Event::Editing { dir: path.clone(), engine: view.engine.to_owned() });
            view.write(self, &parts)?;
            (Stats::default(), None)
        } else {
            report(Event::Unpacking { dir: path.clone(), bytes: self.bundle.manifest().payload.unpacked });
            let (stats, index) = self.write(&parts, held)?;
            (stats, Some(Box::new(index)))
        };

        if private {
            half_made.keep();
            return Ok(Cached { private, decoded, ..self.cached(path, &root, lease, Some(stats)) });
        }
        let taken = self.put_in_place(base, &temporary, taking == Taking::NameOfDamaged)?;
        if taken {
            // The lease first: on NFS, a file that is open would stay.
            drop((lease, half_made));
            base.look_anew();
            return match self.find(base) {
                Found::Whole(cached) => Ok(cached),
                _ => Err(NoFill::Place("somebody else's tree has its name and is damaged".to_owned())),
            };
        }
        half_made.keep();
        let path = path_of(dir.as_fd()).map_err(|error| NoFill::Place(error.to_string()))?;
        Ok(Cached { decoded, ..self.cached(path, &root, lease, Some(stats)) })
    }

    /// How far above its directory the root is.
    pub(super) fn up(&self) -> usize {
        match &self.view {
            None => 1,
            // What is a run's alone goes with its directory.
            Some(view) if view.tree.private => 1,
            Some(_) => 2,
        }
    }

    /// Everything inside the temporary directory but canary and lease, and in the root.
    fn write(&self, parts: &Parts<'_>, held: Option<&Held>) -> Result<(Stats, Index), NoFill> {
        let Parts { dir, root, root_path } = parts;
        let fatal = |error: crate::open::OpenError| NoFill::Fatal(error.into());
        let bytes = self.bundle.index_bytes().map_err(fatal)?;
        let index = self.bundle.decode_index(&bytes).map_err(fatal)?;
        trust::write(dir.as_fd(), trust::INDEX, &bytes)?;
        drop(bytes);
        let progress = |done, all| {
            if let Some(held) = held {
                held.progress(done, all);
            }
        };
        let options =
            unpack::Options { threads: self.options.threads, modes: Modes::Shared, progress: Some(&progress) };
        let stats = unpack::unpack(self.bundle, &index, root_path, &options).map_err(|error| {
            match (&error, error.errno()) {
                // Of this place. Anything wrong with the bundle, or a signal, is not.
                (UnpackError::Step { .. }, Some(_)) => NoFill::Place(error.to_string()),
                _ => NoFill::Fatal(error.into()),
            }
        })?;
        if let Some(table) = table(&index) {
            trust::write(dir.as_fd(), trust::NAMES, &table)?;
        }
        trust::write(dir.as_fd(), trust::TRUTHS, &truths(&index, self.bundle.index_digest()))?;
        trust::write_trust(dir.as_fd(), root.as_fd(), &index, self.boot, limit::weight(&index))?;
        Ok((stats, index))
    }

    /// Gives the temporary directory the tree's name. `true`: the name is taken by a tree that somebody else unpacked.
    fn put_in_place(&self, base: &Base, temporary: &str, damaged: bool) -> Result<bool, Errno> {
        let from = base.fd();
        match renameat(from, temporary, from, self.name) {
            Ok(()) => return Ok(false),
            Err(Errno::EEXIST | Errno::ENOTEMPTY) if !damaged => return Ok(true),
            Err(Errno::EEXIST | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
        // Jobs are in the damaged tree, or it would be gone. It makes way in one step where the kernel can do that.
        let old = self::temporary("old");
        match exchange(from, temporary, self.name) {
            Ok(()) => renameat(from, temporary, from, old.as_str())?,
            Err(_) => {
                renameat(from, self.name, from, old.as_str())?;
                match renameat(from, temporary, from, self.name) {
                    Ok(()) => {}
                    Err(Errno::EEXIST | Errno::ENOTEMPTY) => return Ok(true),
                    Err(errno) => return Err(errno),
                }
            }
        }
        remove_unused(base, &old);
        Ok(false)
    }

    fn cached(&self, dir: PathBuf, root: &Root, lease: OwnedFd, stats: Option<Stats>) -> Cached {
        Cached {
            root: root.path(&dir),
            index: dir.join(trust::INDEX),
            names: dir.join(trust::NAMES),
            truths: dir.join(trust::TRUTHS),
            dir,
            lease: lease::make_inherited(lease),
            hit: stats.is_none(),
            stats,
            decoded: None,
            private: false,
            skipped: Vec::new(),
        }
    }
}

/// The table of what unpacking makes. None for a tree that has too many names for one: engines can do without.
fn table(index: &Index) -> Option<Vec<u8>> {
    let entries = index.entries.iter().filter_map(|entry| {
        let kind = match &entry.kind {
            Kind::Directory => table::Kind::Directory,
            Kind::Symlink { target } => table::Kind::Symlink(target),
            Kind::File { .. } | Kind::HardLink { .. } | Kind::Fifo => table::Kind::File,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => return None,
        };
        Some((entry.path.as_slice(), kind))
    });
    table::build(entries).ok()
}

/// What the index says of modes and owners, and the disk does not.
fn truths(index: &Index, digest: &coracle_format::Digest) -> Vec<u8> {
    let files = index.entries.iter().filter_map(|entry| {
        // Whatever name of a file is met first, it is the same file.
        let file = match &entry.kind {
            Kind::File { .. } | Kind::Directory => entry,
            Kind::HardLink { entry } => index.entries.get(*entry as usize)?,
            _ => return None,
        };
        Some((entry.path.as_slice(), truths::Truth { mode: file.mode, uid: file.uid, gid: file.gid }))
    });
    truths::write(digest, files)
}

/// renameat2(2) as a system call: musl has no function for it.
fn exchange(base: BorrowedFd<'_>, one: &str, other: &str) -> Result<(), Errno> {
    let done = one.with_nix_path(|one| {
        other.with_nix_path(|other| {
            let (fd, one, other) = (base.as_raw_fd(), one.as_ptr(), other.as_ptr());
            // SAFETY: both names are NUL-terminated and outlive the call, which writes to no memory of this process.
            unsafe { libc::syscall(libc::SYS_renameat2, fd, one, fd, other, libc::RENAME_EXCHANGE) }
        })
    })??;
    Errno::result(done).map(drop)
}

/// A directory that is removed unless it was finished, with its root.
struct HalfMade {
    path: Option<PathBuf>,
    private: bool,
}

impl HalfMade {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What cannot be removed now, a later start removes.
            let _ = if self.private { fs::remove_dir_all(path) } else { roots::remove(path) };
        }
    }
}

/// A name that no other process takes, and that tells its maker.
pub(super) fn temporary(kind: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let nanoseconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{kind}-{}-{nanoseconds:08x}{count:x}", std::process::id())
}
