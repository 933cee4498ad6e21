//! Making the tree of links: directory by directory, by names below two open roots, one file after the other.
//!
//! A file is linked; where that cannot be (another file system, too many links, somebody else's file) it is copied, with
//! shared blocks if possible, and is then the view's own. Directories and symbolic links are made anew. Times of directories
//! are set last of all, since every new name changes them.

use std::{
    collections::HashMap,
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, utimensat},
    unistd::{linkat, symlinkat},
};

use crate::{
    ViewError, copy,
    marks::Mark,
    place::{open_dir, place},
    truths::Truths,
};

/// What a view was made of; all are zero for a spare one that was at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Directories, the root among them.
    pub directories: u64,
    /// Names of files that are links.
    pub links: u64,
    /// Files that had to be copied.
    pub copies: u64,
    /// Symbolic links and pipes.
    pub others: u64,
    /// Sockets and devices, which a view does not have.
    pub left_out: u64,
}

/// The work, and what it found out.
pub(crate) struct Maker<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    truths: Option<&'a Truths<'a>>,
    /// For messages.
    shown: &'a Path,
    pub(crate) made: Made,
    pub(crate) marks: HashMap<u64, ((i64, u32), Mark)>,
    /// Some shared file has write bits on disk.
    pub(crate) writable: bool,
    /// Where the first copy of a file with several names is: source inode to path.
    copied: HashMap<u64, Vec<u8>>,
    directories: Vec<Directory>,
}

struct Directory {
    path: Vec<u8>,
    stat: FileStat,
}

struct Name {
    name: CString,
    kind: Option<Type>,
}

type Step<T = ()> = Result<T, ViewError>;

impl<'a> Maker<'a> {
    pub(crate) fn new(
        source: BorrowedFd<'a>,
        target: BorrowedFd<'a>,
        truths: Option<&'a Truths<'a>>,
        shown: &'a Path,
    ) -> Self {
        Self {
            source,
            target,
            truths,
            shown,
            made: Made::default(),
            marks: HashMap::new(),
            writable: false,
            copied: HashMap::new(),
            directories: Vec::new(),
        }
    }

    /// Makes all of it. `target` is an empty directory.
    pub(crate) fn run(&mut self) -> Step {
        let stat = fstatat(self.source, c".", AtFlags::empty()).map_err(self.failed("look at", b""))?;
        self.directories.push(Directory { path: Vec::new(), stat });
        let mut next = 0;
        while next < self.directories.len() {
            let path = self.directories[next].path.clone();
            self.directory(&path)?;
            next += 1;
        }
        while let Some(directory) = self.directories.pop() {
            self.finish(&directory)?;
        }
        Ok(())
    }

    fn failed(&self, step: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> ViewError {
        use std::os::unix::ffi::OsStrExt;
        let path: PathBuf = self.shown.join(std::ffi::OsStr::from_bytes(path));
        move |errno| ViewError::Step { step, path, errno }
    }

    fn directory(&mut self, path: &[u8]) -> Step {
        self.made.directories += 1;
        let source = open_dir(self.source, path, OFlag::O_RDONLY).map_err(self.failed("read", path))?;
        let target = open_dir(self.target, path, OFlag::O_PATH).map_err(self.failed("open", path))?;
        let (dir, names) = read_names(source).map_err(self.failed("read", path))?;
        let source = dir.as_fd();
        let mut full = path.to_vec();
        if !full.is_empty() {
            full.push(b'/');
        }
        let parent = full.len();
        for Name { name, kind } in names {
            full.truncate(parent);
            full.extend_from_slice(name.to_bytes());
            let name = name.as_c_str();
            let stat = || fstatat(source, name, AtFlags::AT_SYMLINK_NOFOLLOW);
            let kind = match kind {
                Some(kind) => kind,
                None => kind_of(&stat().map_err(self.failed("look at", &full))?),
            };
            match kind {
                Type::File => self.file(source, target.as_fd(), name, &full)?,
                Type::Directory => {
                    let stat = stat().map_err(self.failed("look at", &full))?;
                    mkdirat(&target, name, Mode::S_IRWXU).map_err(self.failed("make", &full))?;
                    self.directories.push(Directory { path: full.clone(), stat });
                }
                Type::Symlink | Type::Fifo => {
                    let stat = stat().map_err(self.failed("look at", &full))?;
                    let made = if kind == Type::Fifo {
                        let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
                        nix::sys::stat::mknodat(&target, name, SFlag::S_IFIFO, mode, 0)
                    } else {
                        readlinkat(source, name).and_then(|text| symlinkat(text.as_os_str(), &target, name))
                    };
                    made.map_err(self.failed("make", &full))?;
                    let (access, change) = copy::times_of(&stat);
                    // Old file systems know no times of symbolic links.
                    let _ = utimensat(&target, name, &access, &change, UtimensatFlags::NoFollowSymlink);
                    self.made.others += 1;
                }
                _ => self.made.left_out += 1,
            }
        }
        Ok(())
    }

    fn file(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &std::ffi::CStr, full: &[u8]) -> Step {
        match linkat(source, name, target, name, AtFlags::empty()) {
            Ok(()) => {}
            // Another file system or mount; 65,000 links on ext4; not ours (fs.protected_hardlinks), or a file system
            // that has no links.
            Err(
                Errno::EXDEV
                | Errno::EMLINK
                | Errno::EPERM
                | Errno::EACCES
                | Errno::EOPNOTSUPP
                | Errno::ENOSYS
                | Errno::EINVAL,
            ) => return self.copy(source, target, name, full),
            Err(errno) => return Err(self.failed("link", full)(errno)),
        }
        self.made.links += 1;
        let stat = fstatat(target, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(self.failed("look at", full))?;
        self.writable |= stat.st_mode & 0o222 != 0;
        let truth = self.truths.and_then(|truths| truths.of(full));
        let fallback = u16::try_from(stat.st_mode & 0o7777).unwrap_or(0);
        let mark = Mark {
            mode: truth.map_or(fallback, |truth| truth.mode),
            links: 0,
            owner: truth.map(|truth| (truth.uid, truth.gid)),
        };
        let time = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        let (_, mark) = self.marks.entry(stat.st_ino).or_insert((time, mark));
        mark.links = mark.links.saturating_add(1);
        Ok(())
    }

    fn copy(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &std::ffi::CStr, full: &[u8]) -> Step {
        let stat = fstatat(source, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(self.failed("look at", full))?;
        if stat.st_nlink > 1
            && let Some(first) = self.copied.get(&stat.st_ino)
        {
            let (place, rest) = place(self.target, first).map_err(self.failed("link", full))?;
            if linkat(&place, rest, target, name, AtFlags::empty()).is_ok() {
                self.made.links += 1;
                return Ok(());
            }
        }
        let made = || {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let from = openat(source, name, flags, Mode::empty())?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let to = openat(target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
            copy::data(from.as_fd(), to.as_fd(), stat.st_size)?;
            copy::xattrs(from.as_fd(), to.as_fd());
            fchmod(&to, Mode::from_bits_truncate(mode_of(self.truths, full, &stat)))?;
            copy::times(to.as_fd(), &stat)
        };
        made().map_err(self.failed("copy", full))?;
        self.made.copies += 1;
        if stat.st_nlink > 1 {
            self.copied.insert(stat.st_ino, full.to_vec());
        }
        Ok(())
    }

    fn finish(&self, directory: &Directory) -> Step {
        let Directory { path, stat } = directory;
        let failed = || self.failed("set the mode and times of", path);
        let source = open_dir(self.source, path, OFlag::O_RDONLY).map_err(failed())?;
        let (target, rest) = place(self.target, path).map_err(failed())?;
        if has_xattrs(source.as_fd()) {
            let own = open_dir(self.target, path, OFlag::O_RDONLY).map_err(failed())?;
            copy::xattrs(source.as_fd(), own.as_fd());
        }
        let mode = Mode::from_bits_truncate(directory_mode(self.truths, path, stat));
        if mode != Mode::S_IRWXU {
            fchmodat(&target, rest, mode, FchmodatFlags::FollowSymlink).map_err(failed())?;
        }
        let (access, change) = copy::times_of(stat);
        utimensat(&target, rest, &access, &change, UtimensatFlags::NoFollowSymlink).map_err(failed())
    }
}

/// Permission bits of what is the view's own, less set-id bits: they would speak for whoever made the view.
fn mode_of(truths: Option<&Truths<'_>>, path: &[u8], stat: &FileStat) -> libc::mode_t {
    let truth = truths.and_then(|truths| truths.of(path));
    truth.map_or(stat.st_mode, |truth| libc::mode_t::from(truth.mode)) & 0o1777
}

/// As [`mode_of`], of a directory: its owner must be able to put files there, whatever the image says, since changes to its
/// files need it.
pub(crate) fn directory_mode(truths: Option<&Truths<'_>>, path: &[u8], stat: &FileStat) -> libc::mode_t {
    mode_of(truths, path, stat) | 0o700 | (stat.st_mode & libc::S_ISGID)
}

/// All names of a directory but `.` and `..`, and the directory.
fn read_names(dir: std::os::fd::OwnedFd) -> Result<(Dir, Vec<Name>), Errno> {
    let mut dir = Dir::from_fd(dir)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(Name { name: name.to_owned(), kind: entry.file_type() });
        }
    }
    Ok((dir, names))
}

fn kind_of(stat: &FileStat) -> Type {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Type::File,
        libc::S_IFDIR => Type::Directory,
        libc::S_IFLNK => Type::Symlink,
        libc::S_IFIFO => Type::Fifo,
        libc::S_IFBLK => Type::BlockDevice,
        libc::S_IFCHR => Type::CharacterDevice,
        _ => Type::Socket,
    }
}

pub(crate) fn has_xattrs(dir: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: a null buffer of no length asks for the size alone (flistxattr(2)).
    unsafe { libc::flistxattr(dir.as_raw_fd(), std::ptr::null_mut(), 0) > 0 }
}
