//! The inode ledger of a run, mapped: from a file that is kept with the tree, or from memory that goes with the run.
//!
//! Whoever uses a ledger's file holds a shared lock on it, so that it grows only while nobody else does: a run that has it
//! alone and finds it half full copies it to one of twice the size, and renames that into its place.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    slice,
    sync::atomic::AtomicU64,
};

use coracle_intercept::ledger::{CAPACITY_DEFAULT, Ledger, Unusable, bytes_for};
use nix::fcntl::{Flock, FlockArg};

use crate::window::memory_file;

/// A mapped ledger.
#[derive(Debug)]
pub(crate) struct Mapped {
    memory: *mut u8,
    len: usize,
    home: u64,
    /// Held for as long as it is mapped.
    lock: Option<Flock<File>>,
}

impl Mapped {
    /// A ledger for one run of a tree on device `home`.
    pub(crate) fn nameless(home: u64) -> io::Result<Self> {
        let file = memory_file(c"coracle-ledger")?;
        let len = bytes_for(CAPACITY_DEFAULT).unwrap_or(0);
        nix::unistd::ftruncate(&file, i64::try_from(len).unwrap_or(i64::MAX))?;
        let mapped = Self::map(&file, len, home)?;
        Ledger::format(mapped.words(), home).map_err(unusable)?;
        Ok(mapped)
    }

    /// The ledger in the file `path`, which is made if there is none.
    pub(crate) fn of_file(path: &Path, home: u64) -> io::Result<Self> {
        loop {
            let file = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(path, CAPACITY_DEFAULT, home, |_| Ok(()), false)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let lock = |file, how| Flock::lock(file, how).map_err(|(file, errno)| (file, io::Error::from(errno)));
            let (file, alone) = match lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => (file, true),
                Err((file, _)) => (lock(file, FlockArg::LockShared).map_err(|(_, error)| error)?, false),
            };
            let (now, then) = (fs::metadata(path)?, file.metadata()?);
            if (now.dev(), now.ino()) != (then.dev(), then.ino()) {
                // It grew while we waited.
                continue;
            }
            let len = usize::try_from(then.len()).map_err(|_| unusable(Unusable::Size))?;
            let mut mapped = Self::map(&*file, len, home)?;
            let ledger = Ledger::open(mapped.words(), home).map_err(unusable)?;
            if alone && ledger.claimed() > ledger.capacity() / 2 {
                let full = |_| io::Error::from(io::ErrorKind::StorageFull);
                make(path, ledger.capacity() * 2, home, |new| ledger.copy_to(new).map_err(full), true)?;
                continue;
            }
            if alone {
                file.relock(FlockArg::LockShared)?;
            }
            mapped.lock = Some(file);
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
    pub(crate) fn ledger(&self) -> Option<Ledger<'_>> {
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

fn unusable(error: Unusable) -> io::Error {
    let what = match error {
        Unusable::Magic => "it is no ledger of this version",
        Unusable::Size => "it is cut short or damaged",
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use coracle_intercept::ledger::Inode;

    use super::*;

    #[test]
    fn a_file_keeps_it_and_it_grows_when_nobody_looks() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger");
        let first = Mapped::of_file(&path, 5).expect("a ledger");
        let second = Mapped::of_file(&path, 5).expect("the same");
        let (one, two) = (first.ledger().expect("mapped"), second.ledger().expect("mapped"));
        let at = |number| Inode { device: 5, number };
        one.set_owner(at(1), 2, 3).expect("room");
        assert_eq!(two.get(at(1)).and_then(|entry| entry.owner), Some((2, 3)), "seen by the other at once");
        for number in 2..=one.capacity() / 2 + 2 {
            one.set_owner(at(number), 2, 3).expect("room");
        }
        one.remove(at(7));
        let third = Mapped::of_file(&path, 5).expect("the same");
        assert_eq!(third.ledger().map(|ledger| ledger.capacity()), Some(CAPACITY_DEFAULT), "others have it");
        drop((first, second, third));
        let grown = Mapped::of_file(&path, 6).expect("kept");
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
        Mapped::of_file(&path, 5).expect_err("no ledger");
    }
}
