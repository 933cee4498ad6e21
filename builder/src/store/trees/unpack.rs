//! A [`Tree`] into an empty directory, by threads.
//!
//! Directories first, then files in the order in which their bytes lie, then hard links, symbolic links and pipes, modes and
//! times of directories last. While files are written the tree has no symbolic link, so paths lead where they say.

use std::{
    ffi::CString,
    fs::File,
    io,
    num::NonZero,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use coracle_format::{Time, Xattr};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, futimens, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, linkat, symlinkat},
};

use super::{
    merge::MARKS,
    owners::{Owner, Owners},
};
use crate::{
    flatten::{Data, Inode, InodeId, InodeKind, Tree},
    source::reason,
};

/// A path that the kernel takes whole; longer ones are opened piece by piece.
const LONGEST: usize = 4000;
/// Bytes copied at a time.
const COPY: usize = 1 << 20;
/// Files taken at a time by a thread.
const RUN: usize = 32;

/// What was written.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Bytes of files.
    pub bytes: u64,
    /// Owners and modes that the tree on disk does not have.
    pub owners: Owners,
    /// Files share their blocks with those that they are copies of.
    pub cloned: bool,
}

/// A tree that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {}", reason(.cause), path = .path.display())]
pub struct UnpackError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

/// Writes the tree into the directory `root`, which is empty. When this is root, owners, modes and set-id bits are true.
///
/// # Errors
/// [`UnpackError`] names the first file that cannot be written; what is written stays for the caller to remove.
pub fn unpack(tree: &Tree, root: &Path, threads: NonZero<usize>) -> Result<Unpacked, UnpackError> {
    unpack_as(tree, root, Whose::Theirs, threads)
}

/// Whose the files are to be, where this is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those whom the tree names.
    Theirs,
    /// Root's, as they are an ordinary user's when that one makes the tree (root of a namespace is one, outside).
    Callers,
}

/// The same for files of somebody in particular.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_as(tree: &Tree, root: &Path, whose: Whose, threads: NonZero<usize>) -> Result<Unpacked, UnpackError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = nix::fcntl::open(root, flags, Mode::empty());
    let fd = open.map_err(|errno| UnpackError { action: "open", path: root.to_owned(), cause: errno.into() })?;
    let mut work = Work {
        tree,
        root,
        fd,
        true_owners: whose == Whose::Theirs && Uid::effective().is_root(),
        stop: AtomicBool::new(false),
        cloned: AtomicBool::new(false),
    };
    let mut files: Vec<(&[u8], InodeId)> = Vec::new();
    let mut later: Vec<(&[u8], InodeId)> = Vec::new();
    let mut directories: Vec<(&[u8], InodeId)> = Vec::new();
    let mut first: Vec<Option<&[u8]>> = vec![None; tree.inodes.len()];
    for (path, &id) in &tree.paths {
        let path = path.as_slice();
        let known = &mut first[id.0 as usize];
        match &tree.inode(id).kind {
            InodeKind::Directory => directories.push((path, id)),
            InodeKind::File { .. } if known.is_none() => files.push((path, id)),
            _ => later.push((path, id)),
        }
        known.get_or_insert(path);
    }
    work.true_owners &= work.may_chown(tree);
    for (path, _) in directories.iter().filter(|(path, _)| !path.is_empty()) {
        work.at("make", path, |base, path| mkdirat(base, path, Mode::S_IRWXU))?;
    }
    // Slices of one spool lie one behind the other; read them so.
    files.sort_by_key(|(_, id)| match &tree.inode(*id).kind {
        InodeKind::File { data: Data::Slice { file, offset }, .. } => (file.as_raw_fd(), *offset),
        _ => (-1, 0),
    });
    let bytes = work.files(&files, threads)?;
    for (path, id) in later {
        match first[id.0 as usize] {
            Some(to) if to != path => work.hard_link(to, path)?,
            _ => work.special(path, tree.inode(id))?,
        }
    }
    // Children before parents: every change in a directory changes its time, and a closed one cannot be entered.
    for (path, id) in directories.iter().rev() {
        work.finish_directory(path, tree.inode(*id))?;
    }
    let mut owners = Owners::default();
    for (path, &id) in &tree.paths {
        let inode = tree.inode(id);
        if let Some(owner) = unlike_disk(inode).filter(|_| !work.true_owners || inode.is_device()) {
            owners.insert(path, owner);
        }
    }
    Ok(Unpacked { bytes, owners, cloned: work.cloned.into_inner() })
}

/// The mode that a file gets on disk when its owner cannot be the true one.
fn mode_on_disk(inode: &Inode) -> u32 {
    let mode = u32::from(inode.mode);
    match inode.kind {
        InodeKind::Directory => (mode & 0o1777) | 0o700,
        InodeKind::Symlink(_) => 0o777,
        _ => (mode & 0o777) | 0o600,
    }
}

/// What is lost of an inode when it is written by an ordinary user.
fn unlike_disk(inode: &Inode) -> Option<Owner> {
    let (kind, device) = match inode.kind {
        InodeKind::Directory => (SFlag::S_IFDIR, (0, 0)),
        InodeKind::File { .. } => (SFlag::S_IFREG, (0, 0)),
        InodeKind::Symlink(_) => (SFlag::S_IFLNK, (0, 0)),
        InodeKind::Fifo => (SFlag::S_IFIFO, (0, 0)),
        InodeKind::CharDevice(major, minor) => (SFlag::S_IFCHR, (major, minor)),
        InodeKind::BlockDevice(major, minor) => (SFlag::S_IFBLK, (major, minor)),
    };
    let mode = if matches!(inode.kind, InodeKind::Symlink(_)) { 0o777 } else { u32::from(inode.mode) };
    let same = inode.uid == 0 && inode.gid == 0 && mode == mode_on_disk(inode) && !inode.is_device();
    (!same).then_some(Owner { mode: kind.bits() | mode, uid: inode.uid, gid: inode.gid, device })
}

struct Work<'tree> {
    tree: &'tree Tree,
    root: &'tree Path,
    fd: OwnedFd,
    /// This is root, and files get the owners that they should have.
    true_owners: bool,
    stop: AtomicBool,
    cloned: AtomicBool,
}

impl Work<'_> {
    fn failed(&self, action: &'static str, path: &[u8], cause: io::Error) -> UnpackError {
        let path = self.root.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        UnpackError { action, path, cause }
    }

    /// Root in a user namespace may give files to those alone that are mapped there.
    fn may_chown(&self, tree: &Tree) -> bool {
        let other = tree.inodes.iter().find(|inode| inode.uid != 0 || inode.gid != 0);
        let Some(inode) = other.filter(|_| Uid::effective().is_root()) else { return true };
        let give = |uid, gid| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchownat(&self.fd, c".", Some(uid), Some(gid), AtFlags::empty())
        };
        let may = give(inode.uid, inode.gid).is_ok();
        let _ = give(0, 0);
        may
    }

    /// Does something with a path, in pieces if it is longer than the kernel takes.
    fn at<T>(
        &self,
        action: &'static str,
        path: &[u8],
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let run = || {
            let mut base: Option<OwnedFd> = None;
            let mut rest = path;
            while rest.len() > LONGEST {
                let at = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let from = base.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
                base = Some(openat(from, &rest[..at], flags, Mode::empty())?);
                rest = &rest[at + 1..];
            }
            let rest = if rest.is_empty() { b"." } else { rest };
            act(base.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd), rest)
        };
        run().map_err(|errno| self.failed(action, path, errno.into()))
    }

    fn files(&self, files: &[(&[u8], InodeId)], threads: NonZero<usize>) -> Result<u64, UnpackError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<UnpackError>> = Mutex::new(None);
        let share = || -> u64 {
            let mut buffer = vec![0; COPY];
            let mut bytes = 0;
            while !self.stop.load(Ordering::Relaxed) {
                let start = next.fetch_add(RUN, Ordering::Relaxed).min(files.len());
                let run = &files[start..(start + RUN).min(files.len())];
                if run.is_empty() {
                    break;
                }
                for (path, id) in run {
                    match self.file(path, self.tree.inode(*id), &mut buffer) {
                        Ok(size) => bytes += size,
                        Err(error) => {
                            self.stop.store(true, Ordering::Relaxed);
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            return bytes;
                        }
                    }
                }
            }
            bytes
        };
        let bytes = thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get().min(files.len() / RUN + 1)).map(|_| scope.spawn(share)).collect();
            let own = share();
            others.into_iter().map(|other| other.join().unwrap_or(0)).sum::<u64>() + own
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(bytes),
        }
    }

    fn file(&self, path: &[u8], inode: &Inode, buffer: &mut [u8]) -> Result<u64, UnpackError> {
        let InodeKind::File { size, data } = &inode.kind else { return Ok(0) };
        if let Data::Own(from) = data
            && self.take_over(from, path, inode)?
        {
            return Ok(*size);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(self.at("create", path, |base, path| openat(base, path, flags, mode))?);
        let failed = |action| move |cause| self.failed(action, path, cause);
        if clone_of(data, *size, &file) {
            self.cloned.store(true, Ordering::Relaxed);
        } else {
            copy(data, *size, &file, buffer).map_err(failed("write"))?;
        }
        self.finish_open(file.as_fd(), inode).map_err(|errno| self.failed("set the mode of", path, errno.into()))?;
        Ok(*size)
    }

    /// Renames a file of our own into place; false if it must be copied.
    fn take_over(&self, from: &Path, path: &[u8], inode: &Inode) -> Result<bool, UnpackError> {
        let failed = |action| move |errno: Errno| self.failed(action, path, errno.into());
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::open(from, flags, Mode::empty()).map_err(failed("open the bytes of"))?;
        self.finish_open(file.as_fd(), inode).map_err(failed("set the mode of"))?;
        self.at("rename", path, |base, path| match renameat(AT_FDCWD, from, base, path) {
            Err(Errno::EXDEV) => Ok(false),
            renamed => renamed.map(|()| true),
        })
    }

    /// Owner, mode, attributes and time of an open file.
    fn finish_open(&self, file: BorrowedFd<'_>, inode: &Inode) -> Result<(), Errno> {
        if self.true_owners && (inode.uid, inode.gid) != (0, 0) {
            nix::unistd::fchown(file, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)))?;
        }
        let mode = if self.true_owners { u32::from(inode.mode) } else { mode_on_disk(inode) };
        if mode != 0o600 {
            nix::sys::stat::fchmod(file, Mode::from_bits_truncate(mode))?;
        }
        set_xattrs(file, &inode.xattrs);
        futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(inode.mtime))
    }

    fn hard_link(&self, from: &[u8], to: &[u8]) -> Result<(), UnpackError> {
        let linked = self.at("link", to, |new_base, new| {
            let old = self.at("link", from, |base, path| {
                Ok(match linkat(base, path, new_base, new, AtFlags::empty()) {
                    // Some file systems have no hard links, or not so many to one file.
                    Err(Errno::EPERM | Errno::EMLINK | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
                    other => other.map(|()| true),
                })
            });
            old.map_err(|_| Errno::ENAMETOOLONG)?
        })?;
        if linked {
            return Ok(());
        }
        let Some(inode) = self.tree.get(from) else { return Ok(()) };
        let InodeKind::File { size, .. } = inode.kind else { return Ok(()) };
        // Its bytes may be nowhere else any more.
        let data = Data::Host(self.root.join(std::ffi::OsStr::from_bytes(from)));
        let copy = Inode { kind: InodeKind::File { size, data }, ..inode.clone() };
        self.file(to, &copy, &mut vec![0; COPY]).map(|_| ())
    }

    /// What is neither file nor directory.
    fn special(&self, path: &[u8], inode: &Inode) -> Result<(), UnpackError> {
        let mode = if self.true_owners { u32::from(inode.mode) } else { mode_on_disk(inode) };
        match &inode.kind {
            InodeKind::Symlink(target) => {
                self.at("link", path, |base, path| symlinkat(target.as_slice(), base, path))?;
            }
            InodeKind::Fifo => {
                let made = self.at("make", path, |base, path| {
                    match mknodat(base, path, SFlag::S_IFIFO, Mode::from_bits_truncate(mode), 0) {
                        // Some network file systems have no pipes; a program that wants this one will say so.
                        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(false),
                        made => made.map(|()| true),
                    }
                })?;
                if !made {
                    return Ok(());
                }
            }
            _ => {
                // A device: an empty file holds its place, and the list of owners says what it is.
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(0o600);
                self.at("make", path, |base, path| openat(base, path, flags, mode))?;
                return Ok(());
            }
        }
        self.at("set the time of", path, |base, path| {
            if self.true_owners && (inode.uid, inode.gid) != (0, 0) {
                let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
                fchownat(base, path, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            if inode.is_fifo() {
                fchmodat(base, path, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)?;
            }
            set_time(base, path, inode.mtime)
        })
    }

    fn finish_directory(&self, path: &[u8], inode: &Inode) -> Result<(), UnpackError> {
        let mode = if self.true_owners { u32::from(inode.mode) } else { mode_on_disk(inode) };
        if !inode.xattrs.is_empty() {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let open = self.at("open", path, |base, path| openat(base, path, flags, Mode::empty()))?;
            set_xattrs(open.as_fd(), &inode.xattrs);
        }
        self.at("set the mode of", path, |base, path| {
            if self.true_owners && (inode.uid, inode.gid) != (0, 0) {
                let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
                fchownat(base, path, Some(uid), Some(gid), AtFlags::empty())?;
            }
            if mode != 0o700 || path == b"." {
                fchmodat(base, path, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)?;
            }
            set_time(base, path, inode.mtime)
        })
    }
}

impl Inode {
    fn is_device(&self) -> bool {
        matches!(self.kind, InodeKind::CharDevice(..) | InodeKind::BlockDevice(..))
    }

    fn is_fifo(&self) -> bool {
        matches!(self.kind, InodeKind::Fifo)
    }
}

/// Shares a file's blocks, where the file system can; false if its bytes must be copied.
fn clone_of(data: &Data, size: u64, to: &File) -> bool {
    let (Data::Host(path) | Data::Own(path)) = data else { return false };
    let Ok(from) = File::open(path) else { return false };
    // One that has become longer or shorter is for the copy to find out about.
    if size == 0 || from.metadata().is_ok_and(|meta| meta.len() != size) {
        return false;
    }
    coracle_view::clone(&from, to)
}

/// Copies a file's bytes; blocks of zeros become holes.
fn copy(data: &Data, size: u64, to: &File, buffer: &mut [u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let host = match data {
        Data::Host(path) | Data::Own(path) => Some(File::open(path)?),
        _ => None,
    };
    let mut at = 0;
    let mut hole = false;
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..len];
        match &host {
            Some(file) => file.read_exact_at(piece, at)?,
            None => data.read_exact_at(piece, at)?,
        }
        // Only whole buffers: small runs of zeros would make files of many extents.
        if len == COPY && piece.iter().all(|byte| *byte == 0) {
            hole = true;
        } else {
            to.write_all_at(piece, at)?;
            hole = false;
        }
        at += len as u64;
    }
    if hole { to.set_len(size) } else { Ok(()) }
}

/// Sets what an ordinary user may set; what the file system does not take is left.
fn set_xattrs(file: BorrowedFd<'_>, xattrs: &[Xattr]) {
    let root = Uid::effective().is_root();
    // Overlayfs would take its own marks in an image's tree for true.
    let wanted = |name: &[u8]| (root || name.starts_with(b"user.")) && !name.starts_with(MARKS);
    for xattr in xattrs.iter().filter(|xattr| wanted(&xattr.name)) {
        let Ok(name) = CString::new(xattr.name.clone()) else { continue };
        // SAFETY: the name is NUL-terminated, value and length describe one live slice (fsetxattr(2)).
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), xattr.value.as_ptr().cast(), xattr.value.len(), 0) };
    }
}

fn set_time(base: BorrowedFd<'_>, path: &[u8], mtime: Time) -> Result<(), Errno> {
    match utimensat(base, path, &TimeSpec::UTIME_OMIT, &time_spec(mtime), UtimensatFlags::NoFollowSymlink) {
        // Old file systems know no times of symbolic links.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        other => other,
    }
}

fn time_spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds))
}
