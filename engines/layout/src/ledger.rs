//! The inode ledger of a run, mapped: from a file that is kept with the tree, or from memory that goes with the run.
//!
//! Whoever uses a ledger's file holds a shared lock on it, so that it grows only while nobody else does: a run that has it
//! alone and finds it half full copies it to one of twice the size, and renames that into its place. Where the file system
//! has no locks nobody can know that, so it keeps its size.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    slice,
    sync::atomic::AtomicU64,
};

use coracle_ledger::{CAPACITY_DEFAULT, Inode, Ledger, Unusable, bytes_for};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A mapped ledger.
#[derive(Debug)]
pub struct Mapped {
    memory: *mut u8,
    len: usize,
    home: u64,
    /// Held for as long as it is mapped.
    lock: Option<Flock<File>>,
}

/// A ledger's open file.
enum Opened {
    Locked(Flock<File>),
    /// On a file system that has no locks.
    Bare(File),
}

impl Opened {
    fn file(&self) -> &File {
        match self {
            Self::Locked(file) => file,
            Self::Bare(file) => file,
        }
    }

    /// Locks it, alone if that can be; says whether it is.
    fn lock(file: File) -> io::Result<(Self, bool)> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok((Self::Locked(file), true)),
            Err((file, Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)) => Ok((Self::Bare(file), false)),
            Err((file, _)) => match Flock::lock(file, FlockArg::LockShared) {
                Ok(file) => Ok((Self::Locked(file), false)),
                Err((_, errno)) => Err(errno.into()),
            },
        }
    }
}

impl Mapped {
    /// A ledger for one run of a tree on device `home`.
    pub fn nameless(home: u64) -> io::Result<Self> {
        let len = bytes_for(CAPACITY_DEFAULT).unwrap_or(0);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Of no file, whose size would be limited; those who use it are our own children.
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, access, shared, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = Self { memory: memory.cast(), len, home, lock: None };
        Ledger::format(mapped.words(), home).map_err(unusable)?;
        Ok(mapped)
    }

    /// The ledger in the file `path`, of the tree `root`. If there is none it is made, and filled with what the file
    /// [`OWNERS`] beside it says, if that is there.
    pub fn of_file(path: &Path, root: &Path, home: u64) -> io::Result<Self> {
        loop {
            let file = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(path, CAPACITY_DEFAULT, home, |new| fill(new, &path.with_file_name(OWNERS), root), false)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (opened, alone) = Opened::lock(file)?;
            let (now, then) = (fs::metadata(path)?, opened.file().metadata()?);
            if (now.dev(), now.ino()) != (then.dev(), then.ino()) {
                // It grew while we waited.
                continue;
            }
            let len = usize::try_from(then.len()).map_err(|_| unusable(Unusable::Size))?;
            let mut mapped = Self::map(opened.file(), len, home)?;
            let ledger = Ledger::open(mapped.words(), home).map_err(unusable)?;
            if alone && ledger.claimed() > ledger.capacity() / 2 {
                let full = |_| io::Error::from(io::ErrorKind::StorageFull);
                make(path, ledger.capacity() * 2, home, |new| ledger.copy_to(new).map_err(full), true)?;
                continue;
            }
            if let Opened::Locked(file) = opened {
                if alone {
                    file.relock(FlockArg::LockShared)?;
                }
                mapped.lock = Some(file);
            }
            return Ok(mapped);
        }
    }

    fn map(file: &impl AsRawFd, len: usize, home: u64) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping of a file of ours, at a place of the kernel's choice.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { memory: memory.cast(), len, home, lock: None })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is `len` bytes long, aligned to a page, and lives as long as `self`; every process that has it
        // mapped changes it by atomic operations alone.
        unsafe { slice::from_raw_parts(self.memory.cast::<AtomicU64>(), self.len / size_of::<AtomicU64>()) }
    }

    /// The ledger; it was formatted or checked when it was mapped.
    pub fn ledger(&self) -> Option<Ledger<'_>> {
        Ledger::open(self.words(), self.home).ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; ledgers borrow from `self`, so none is left.
        unsafe { libc::munmap(self.memory.cast(), self.len) };
    }
}

/// Makes a ledger beside its place and puts it there whole: in place of an old one, or only if there is none.
fn make(
    path: &Path,
    capacity: u64,
    home: u64,
    fill: impl FnOnce(&Ledger<'_>) -> io::Result<()>,
    replace: bool,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let attempt = || {
        let _ = fs::remove_file(&beside);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
        let len = bytes_for(capacity).ok_or_else(|| unusable(Unusable::Size))?;
        file.set_len(len as u64)?;
        let mapped = Mapped::map(&OwnedFd::from(file), len, home)?;
        fill(&Ledger::format(mapped.words(), home).map_err(unusable)?)?;
        if replace {
            return fs::rename(&beside, path);
        }
        match fs::hard_link(&beside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without hard links.
            Err(_) => fs::rename(&beside, path),
            Ok(()) => Ok(()),
        }
    };
    let done = attempt();
    let _ = fs::remove_file(&beside);
    done
}

/// What the image says of its files, beside a container's ledger: `MODE UID GID MAJOR:MINOR PATH` and a NUL for each file
/// that is not root's or has another mode than on disk; the mode in octal and with the file's type, the path below the root.
/// Then `end COUNT` and a NUL: a list that was cut is no shorter list.
const OWNERS: &str = "owners";

/// Records what the image says. A file that is not there any more, or is of another kind, is somebody else's.
fn fill(ledger: &Ledger<'_>, owners: &Path, root: &Path) -> io::Result<()> {
    let text = match fs::read(owners) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let full = |_| io::Error::from(io::ErrorKind::StorageFull);
    let damaged = || {
        let why = "the list of owners beside it is damaged (see `coracle verify`)";
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let text = text.strip_suffix(b"\0").ok_or_else(damaged)?;
    let (records, end) = match text.iter().rposition(|byte| *byte == 0) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (&text[..0], text),
    };
    let records = || records.split(|byte| *byte == 0).filter(|record| !record.is_empty());
    if end != format!("end {}", records().count()).as_bytes() {
        return Err(damaged());
    }
    for record in records() {
        let said = Said::read(record).ok_or_else(damaged)?;
        let Ok(file) = root.join(said.path).symlink_metadata() else { continue };
        let inode = Inode { device: file.dev(), number: file.ino() };
        let kind = |mode: u32| mode & libc::S_IFMT;
        let mode = u16::try_from(said.mode).map_err(|_| damaged())?;
        if matches!(kind(said.mode), libc::S_IFCHR | libc::S_IFBLK) && file.is_file() {
            ledger.set_device(inode, mode, said.device).map_err(full)?;
        } else if kind(said.mode) != kind(file.mode()) {
            continue;
        } else if said.mode != file.mode() && !file.is_symlink() {
            ledger.set_mode(inode, Some(mode)).map_err(full)?;
        }
        ledger.set_owner(inode, said.uid, said.gid).map_err(full)?;
    }
    Ok(())
}

/// One record of [`OWNERS`].
struct Said<'t> {
    mode: u32,
    uid: u32,
    gid: u32,
    /// In the kernel's 32-bit form.
    device: u32,
    path: &'t Path,
}

impl<'t> Said<'t> {
    fn read(record: &'t [u8]) -> Option<Self> {
        let mut fields = record.splitn(5, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let mode = u32::from_str_radix(text()?, 8).ok()?;
        let (uid, gid) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let (major, minor) = text()?.split_once(':')?;
        let device = u32::try_from(libc::makedev(major.parse().ok()?, minor.parse().ok()?)).ok()?;
        let path = Path::new(OsStr::from_bytes(fields.next()?));
        Some(Self { mode, uid, gid, device, path: path.strip_prefix("/").unwrap_or(path) })
    }
}

fn unusable(error: Unusable) -> io::Error {
    let what = match error {
        Unusable::Magic => "it is no ledger of this version",
        Unusable::Size => "it is cut short or damaged",
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_knows_what_the_image_says() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["su", "null", "other"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        let owners = b"104755 3 4 0:0 su\x0020666 0 5 1:3 null\x00100600 1 1 0:0 none\x0040755 1 1 0:0 other\0end 4\0";
        fs::write(dir.path().join(OWNERS), owners).expect("written");
        let mapped = Mapped::of_file(&dir.path().join("ledger"), dir.path(), 5).expect("a ledger");
        let ledger = mapped.ledger().expect("mapped");
        let entry = |name: &str| {
            let file = fs::metadata(dir.path().join(name)).expect("there");
            ledger.get(Inode { device: file.dev(), number: file.ino() })
        };
        let su = entry("su").expect("recorded");
        assert_eq!((su.owner, su.mode, su.device), (Some((3, 4)), Some(0o104_755), None));
        let null = entry("null").expect("recorded");
        assert_eq!((null.owner, null.mode, null.device), (Some((0, 5)), Some(0o020_666), Some(0x103)));
        assert_eq!(entry("other"), None, "it is no directory");
        let cut = &owners[..owners.len() - 6];
        for damaged in [b"nonsense".as_slice(), b"", cut, b"104755 3 4 0:0 su\0end 2\0", b"end 0"] {
            fs::write(dir.path().join(OWNERS), damaged).expect("written");
            Mapped::of_file(&dir.path().join("second"), dir.path(), 5).expect_err("damaged");
        }
        fs::write(dir.path().join(OWNERS), "end 0\0").expect("written");
        Mapped::of_file(&dir.path().join("second"), dir.path(), 5).expect("an empty list");
    }

    #[test]
    fn a_file_keeps_it_and_it_grows_when_nobody_looks() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger");
        let first = Mapped::of_file(&path, dir.path(), 5).expect("a ledger");
        let second = Mapped::of_file(&path, dir.path(), 5).expect("the same");
        let (one, two) = (first.ledger().expect("mapped"), second.ledger().expect("mapped"));
        let at = |number| Inode { device: 5, number };
        one.set_owner(at(1), 2, 3).expect("room");
        assert_eq!(two.get(at(1)).and_then(|entry| entry.owner), Some((2, 3)), "seen by the other at once");
        for number in 2..=one.capacity() / 2 + 2 {
            one.set_owner(at(number), 2, 3).expect("room");
        }
        one.remove(at(7));
        let third = Mapped::of_file(&path, dir.path(), 5).expect("the same");
        assert_eq!(third.ledger().map(|ledger| ledger.capacity()), Some(CAPACITY_DEFAULT), "others have it");
        drop((first, second, third));
        let grown = Mapped::of_file(&path, dir.path(), 6).expect("kept");
        let ledger = grown.ledger().expect("mapped");
        assert_eq!(ledger.capacity(), CAPACITY_DEFAULT * 2);
        assert_eq!(ledger.claimed(), CAPACITY_DEFAULT / 2 + 1, "without what was removed");
        let home = Inode { device: 6, number: 1 };
        assert_eq!(
            ledger.get(home).and_then(|entry| entry.owner),
            Some((2, 3)),
            "the tree's device has another number"
        );
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is left beside it");
        fs::write(&path, "nonsense").expect("written");
        Mapped::of_file(&path, dir.path(), 5).expect_err("no ledger");
    }
}
