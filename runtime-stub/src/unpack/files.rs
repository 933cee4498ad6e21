//! The files: threads take one frame after the other, check and decompress it, and write what it holds.
//!
//! While files are written the tree has no symbolic link (they come last) and only its owner can enter it, so a path of
//! checked names below the root's descriptor leads where it says.

use std::{
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use coracle_format::{Entry, Index, Kind};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
    unistd::ftruncate,
};

use super::{
    Modes,
    failure::Failure,
    names::{self, Tree},
    plan::{Plan, Segment},
};
use crate::open::FrameReader;

/// Runs of zeros become holes in blocks of this size: large enough that a file of few holes keeps few extents.
const HOLE: usize = 64 << 10;

/// What the threads share.
pub(super) struct Files<'a> {
    pub(super) tree: &'a Tree<'a>,
    pub(super) index: &'a Index,
    pub(super) plan: &'a Plan,
    pub(super) modes: Modes,
    next: AtomicUsize,
    stop: AtomicBool,
    xattrs: AtomicU64,
}

impl<'a> Files<'a> {
    pub(super) fn new(tree: &'a Tree<'a>, index: &'a Index, plan: &'a Plan, modes: Modes) -> Self {
        let (next, stop, xattrs) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Self { tree, index, plan, modes, next, stop, xattrs }
    }

    /// Extended attributes that nobody took.
    pub(super) fn lost_xattrs(&self) -> u64 {
        self.xattrs.load(Ordering::Relaxed)
    }

    /// One thread's share: frames until there are none. `done` hears of each.
    pub(super) fn work(&self, mut reader: FrameReader<'_>, done: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        let result = loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.plan.frames() || self.stop.load(Ordering::Relaxed) {
                break Ok(());
            }
            if let Err(failure) = self.frame(number, &mut reader) {
                break Err(failure);
            }
            done();
        };
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn frame(&self, number: usize, reader: &mut FrameReader<'_>) -> Result<(), Failure> {
        let segments = self.plan.segments(number);
        if segments.is_empty() {
            // Headers only. Its digest is `verify`'s business: nothing here depends on it.
            return Ok(());
        }
        let bytes = match self.index.frames.get(number) {
            Some(frame) => reader.plain(frame).map_err(|error| Failure::frame(number, &error))?,
            None => &[],
        };
        for segment in segments {
            let entry = &self.index.entries[segment.entry as usize];
            let at = segment.at as usize;
            // The plan keeps every segment within its frame's length, which the reader has just checked.
            let data = &bytes[at..at + segment.len as usize];
            match segment.split {
                None => self.whole(entry, data)?,
                Some(split) => self.piece(entry, segment, split, data)?,
            }
        }
        Ok(())
    }

    fn whole(&self, entry: &Entry, data: &[u8]) -> Result<(), Failure> {
        let file = self.create(entry)?;
        if data.len() >= HOLE {
            let end = write_sparse(file.as_fd(), data, 0).map_err(Failure::step("write", &entry.path))?;
            if end < data.len() as u64 {
                set_len(file.as_fd(), data.len() as u64).map_err(Failure::step("write", &entry.path))?;
            }
        } else if !data.is_empty() {
            write_at(file.as_fd(), data, 0).map_err(Failure::step("write", &entry.path))?;
        }
        self.finish(entry, file)
    }

    fn piece(&self, entry: &Entry, segment: &Segment, split: u32, data: &[u8]) -> Result<(), Failure> {
        let split = &self.plan.splits[split as usize];
        let file = {
            let mut file = split.file.lock().unwrap_or_else(PoisonError::into_inner);
            match &*file {
                Some(file) => Arc::clone(file),
                None => {
                    let created = Arc::new(self.create(entry)?);
                    if let Kind::File { size, .. } = entry.kind {
                        set_len(created.as_fd(), size).map_err(Failure::step("write", &entry.path))?;
                    }
                    *file = Some(Arc::clone(&created));
                    created
                }
            }
        };
        write_sparse(file.as_fd(), data, segment.offset).map_err(Failure::step("write", &entry.path))?;
        drop(file);
        if split.finish_one() {
            // Every other thread has dropped its reference before it counted its piece.
            let file = split.file.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(file) = file.and_then(Arc::into_inner) {
                self.finish(entry, file)?;
            }
        }
        Ok(())
    }

    /// A new, empty file with its final mode, open for writing whatever that mode says.
    fn create(&self, entry: &Entry) -> Result<OwnedFd, Failure> {
        let mut mode = file_mode(entry.mode, self.modes);
        if !entry.xattrs.is_empty() {
            // The kernel wants write permission by mode, not by descriptor, for attributes.
            mode |= 0o200;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.tree.open(&entry.path, flags, Mode::from_bits_truncate(mode)).map_err(Failure::step("create", &entry.path))
    }

    fn finish(&self, entry: &Entry, file: OwnedFd) -> Result<(), Failure> {
        if !entry.xattrs.is_empty() {
            let lost = names::set_xattrs(file.as_fd(), &entry.xattrs);
            self.xattrs.fetch_add(lost, Ordering::Relaxed);
            let mode = Mode::from_bits_truncate(file_mode(entry.mode, self.modes));
            fchmod(&file, mode).map_err(Failure::step("set the mode of", &entry.path))?;
        }
        names::set_times(file.as_fd(), entry.mtime).map_err(Failure::step("set the times of", &entry.path))?;
        // NFS tells of a full disk here.
        nix::unistd::close(file.into_raw_fd()).map_err(Failure::step("write", &entry.path))
    }
}

/// The first failure of several threads that call `work`.
pub(super) fn on_threads(threads: usize, work: &(dyn Fn() -> Result<(), Failure> + Sync)) -> Result<(), Failure> {
    let first = Mutex::new(None);
    let run = || {
        if let Err(failure) = work() {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Too many processes for this user, or no memory for a stack: the threads that exist do it all.
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Permission bits of a file on disk.
pub(super) fn file_mode(mode: u16, modes: Modes) -> libc::mode_t {
    let mode = libc::mode_t::from(mode);
    match modes {
        Modes::Shared => (mode & 0o555) | 0o400,
        Modes::True => mode & 0o1777,
    }
}

/// Writes `data` at `offset`, leaving out blocks of zeros, and returns the end of what it wrote.
fn write_sparse(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<u64, Errno> {
    let mut end = offset;
    let mut run = 0..0;
    // The first block ends where a block of the file ends, so that holes are aligned.
    let mut at = 0;
    while at < data.len() {
        let position = offset + at as u64;
        let in_block = usize::try_from(position % HOLE as u64).unwrap_or(0);
        let next = (at + HOLE - in_block).min(data.len());
        if is_zero(&data[at..next]) {
            end = flush(file, data, &run, offset, end)?;
            run = next..next;
        } else {
            run.end = next;
        }
        at = next;
    }
    flush(file, data, &run, offset, end)
}

fn flush(file: BorrowedFd<'_>, data: &[u8], run: &std::ops::Range<usize>, offset: u64, end: u64) -> Result<u64, Errno> {
    if run.is_empty() {
        return Ok(end);
    }
    write_at(file, &data[run.clone()], offset + run.start as u64)?;
    Ok(offset + run.end as u64)
}

fn is_zero(block: &[u8]) -> bool {
    // Most blocks differ in their first bytes; comparing a block with itself, shifted, is one memcmp.
    block[0] == 0 && block[..block.len() - 1] == block[1..]
}

/// Writes all of `data` at `offset`.
pub(super) fn write_at(file: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let position = libc::off_t::try_from(offset).map_err(|_| Errno::EFBIG)?;
        match nix::sys::uio::pwrite(file, data, position) {
            Ok(0) => return Err(Errno::ENOSPC),
            Ok(len) => {
                data = &data[len..];
                offset += len as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn set_len(file: BorrowedFd<'_>, len: u64) -> Result<(), Errno> {
    ftruncate(file, libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn blocks_of_zeros_become_holes() {
        let path = std::env::temp_dir().join(format!("coracle-sparse-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let mut data = vec![0; 10 * HOLE + 5];
        data[3 * HOLE] = 1;
        data[7 * HOLE..8 * HOLE].fill(2);
        let end = write_sparse(file.as_fd(), &data, 0).unwrap();
        assert_eq!(end, 8 * HOLE as u64);
        set_len(file.as_fd(), data.len() as u64).unwrap();
        assert!(std::fs::read(&path).unwrap() == data);
        let blocks = file.metadata().unwrap().blocks();
        assert!(blocks <= 2 * 128 + 16, "{blocks} blocks of 512 bytes");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn pieces_that_start_inside_a_block_are_written_whole() {
        let path = std::env::temp_dir().join(format!("coracle-piece-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let data: Vec<u8> = (0..3 * HOLE).map(|n| u8::try_from(n % 251).unwrap()).collect();
        write_sparse(file.as_fd(), &data[..1000], 0).unwrap();
        write_sparse(file.as_fd(), &data[1000..], 1000).unwrap();
        assert!(std::fs::read(&path).unwrap() == data);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_on_disk_are_readable_and_never_writable() {
        for mode in [0o0, 0o644, 0o755, 0o4755, 0o6777, 0o1666, 0o111] {
            let shared = file_mode(mode, Modes::Shared);
            assert_eq!((shared & 0o7222, shared & 0o400), (0, 0o400), "{mode:o}");
            assert_eq!(shared & 0o155, libc::mode_t::from(mode) & 0o155, "{mode:o}");
        }
        assert_eq!(file_mode(0o4640, Modes::True), 0o640);
    }
}
