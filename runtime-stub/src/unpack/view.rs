//! A view of an unpacked tree: the same names, with some files edited.
//!
//! Directories are made anew; files and symbolic links are hard links of the tree's own, but for those that fix-ups
//! name, which are copied (or cloned, where the file system shares blocks) and edited. The tree itself stays as it is. The
//! work is done as unpacking is: by a forked child, with threads.

use std::{
    collections::HashMap,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
    sync::atomic::{AtomicU64, AtomicUsize},
    thread,
};

use coracle_format::{Entry, Fixup, FixupSet, Index, Kind};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{self, Mode, fchmod},
    unistd::linkat,
};

use super::{
    Modes, UnpackError,
    failure::Failure,
    files::{file_mode, on_threads, write_at},
    names::{self, Tree, for_each},
    worker,
};
use crate::open::Bundle;

/// What to make a view of.
#[derive(Debug, Clone, Copy)]
pub struct ViewOf<'a> {
    /// Whose tree it is, for messages.
    pub bundle: &'a Bundle,
    /// Its files.
    pub index: &'a Index,
    /// What to change in them.
    pub fixups: &'a FixupSet,
    /// The unpacked tree, of whole files.
    pub tree: &'a Path,
    /// The path that the view is to have once it is whole: fix-ups name files of it.
    pub path: &'a Path,
    /// Threads; `None` means all cores that the job may use.
    pub threads: Option<usize>,
}

/// Makes a view in `target`, an empty directory of this user's. What is there after an error is not removed.
///
/// Called in a process with one thread, and returns in one.
///
/// # Errors
/// The first step that failed.
pub fn make_view(of: &ViewOf<'_>, target: &Path) -> Result<(), UnpackError> {
    let open = |path: &Path| {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = File::options().read(true).custom_flags(flags).open(path);
        opened.map_err(|source| UnpackError::Target { path: path.to_owned(), source })
    };
    let (tree, root) = (open(of.tree)?, open(target)?);
    let outcome = worker::run(|| {
        // This child's own: files get exactly the modes that they are created with.
        stat::umask(Mode::empty());
        let maker = Maker {
            of,
            from: Tree { root: tree.as_fd() },
            to: Tree { root: root.as_fd() },
            edits: of.fixups.files().collect(),
        };
        maker.work()
    });
    match outcome {
        Ok(result) => result.map_err(|failure| failure.into_error(of.bundle, target)),
        Err(worker::WorkerError::Signal(signal)) => Err(UnpackError::Signal(signal as i32)),
        Err(error) => Err(UnpackError::Worker(error.to_string())),
    }
}

/// Length of a file in a view, or of a symbolic link's target.
#[must_use]
pub fn edited_len(len: u64, kind: &Kind, fixups: &[Fixup]) -> u64 {
    let ends = fixups.iter().map(|fixup| fixup.offset.saturating_add(fixup.edit.len()));
    match kind {
        Kind::Symlink { .. } => ends.max().unwrap_or(len),
        _ => ends.max().unwrap_or(0).max(len),
    }
}

struct Maker<'a> {
    of: &'a ViewOf<'a>,
    from: Tree<'a>,
    to: Tree<'a>,
    edits: HashMap<u32, &'a [Fixup]>,
}

impl Maker<'_> {
    fn work(&self) -> Result<(), Failure> {
        let index = self.of.index;
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let threads = self.of.threads.unwrap_or_else(cores).max(1);
        self.to.make_directories(index)?;
        let next = AtomicUsize::new(0);
        // Nothing is followed: links are the last part of every path that is opened here.
        on_threads(threads, &|| {
            let mut parents = Parents::default();
            for_each(&index.entries, &next, |number, entry| match entry.kind {
                Kind::File { .. } | Kind::Symlink { .. } => self.entry(number, entry, &mut parents),
                _ => Ok(()),
            })
        })?;
        names::make_hard_links(&self.to, index, Modes::Shared)?;
        let (next, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        on_threads(threads, &|| names::finish_directories(&self.to, index, Modes::Shared, &next, &lost))
    }

    fn entry<'e>(&self, number: usize, entry: &'e Entry, parents: &mut Parents<'e>) -> Result<(), Failure> {
        let failed = |step| Failure::step(step, &entry.path);
        let edits = u32::try_from(number).ok().and_then(|number| self.edits.get(&number));
        match (&entry.kind, edits) {
            (Kind::Symlink { .. }, Some([edit, ..])) => {
                let target = self.bytes(edit).map_err(failed("link"))?;
                self.to.make_symlink(entry, &target).map_err(failed("create the symbolic link"))
            }
            (_, Some(edits)) => self.copy(entry, edits).map_err(failed("copy and edit")),
            (_, None) => match self.link(entry, parents) {
                // No hard links here, or too many of one file.
                Err(Errno::EPERM | Errno::EXDEV | Errno::EMLINK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    match &entry.kind {
                        Kind::Symlink { target } => {
                            self.to.make_symlink(entry, target).map_err(failed("create the symbolic link"))
                        }
                        _ => self.copy(entry, &[]).map_err(failed("copy")),
                    }
                }
                other => other.map_err(failed("link")),
            },
        }
    }

    fn link<'e>(&self, entry: &'e Entry, parents: &mut Parents<'e>) -> Result<(), Errno> {
        if let Some(slash) = entry.path.iter().rposition(|byte| *byte == b'/')
            && let Some((old, new)) = parents.of(self, &entry.path[..slash])?
        {
            let name = &entry.path[slash + 1..];
            return linkat(old, name, new, name, AtFlags::empty());
        }
        let (old_base, old) = self.from.base(&entry.path)?;
        let (new_base, new) = self.to.base(&entry.path)?;
        linkat(&old_base, old, &new_base, new, AtFlags::empty())
    }

    fn bytes<'f>(&self, fixup: &'f Fixup) -> Result<std::borrow::Cow<'f, [u8]>, Errno> {
        fixup.edit.bytes(self.of.path.as_os_str().as_bytes()).ok_or(Errno::ENAMETOOLONG)
    }

    fn copy(&self, entry: &Entry, edits: &[Fixup]) -> Result<(), Errno> {
        let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let reading = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut old = File::from(self.from.open(&entry.path, reading, Mode::empty())?);
        let mode = file_mode(entry.mode, Modes::Shared);
        let writing = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // The kernel wants write permission by mode, not by descriptor, for attributes.
        let created = if entry.xattrs.is_empty() { mode } else { mode | 0o200 };
        let mut new = File::from(self.to.open(&entry.path, writing, Mode::from_bits_truncate(created))?);
        if !coracle_view::clone(&old, &new) {
            std::io::copy(&mut old, &mut new).map_err(errno)?;
        }
        for fixup in edits {
            write_at(new.as_fd(), &self.bytes(fixup)?, fixup.offset)?;
        }
        if !entry.xattrs.is_empty() {
            // Lost ones were lost when the tree was unpacked, and counted then.
            names::set_xattrs(new.as_fd(), &entry.xattrs);
            fchmod(&new, Mode::from_bits_truncate(mode))?;
        }
        names::set_times(new.as_fd(), entry.mtime)?;
        // NFS tells of a full disk here.
        nix::unistd::close(new)
    }
}

/// The directory of the names that one thread links at this time, opened when a second name comes from it: half of a link's
/// time would go into finding its two directories.
#[derive(Default)]
struct Parents<'e> {
    path: &'e [u8],
    open: Option<(OwnedFd, OwnedFd)>,
}

impl<'e> Parents<'e> {
    /// The directory in both trees; `None` for the first name of one.
    fn of(&mut self, maker: &Maker<'_>, parent: &'e [u8]) -> Result<Option<&(OwnedFd, OwnedFd)>, Errno> {
        if self.path != parent {
            (self.path, self.open) = (parent, None);
            return Ok(None);
        }
        if self.open.is_none() {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let open = |tree: &Tree<'_>| tree.open(parent, flags, Mode::empty());
            self.open = Some((open(&maker.from)?, open(&maker.to)?));
        }
        Ok(self.open.as_ref())
    }
}
