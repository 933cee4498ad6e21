//! The window: memory of the tracer that every guest process has mapped read-only, through which host paths are lent.
//!
//! The trick: a path that the kernel is to read in a guest's name must lie in the guest's memory. Instead of borrowing some
//! of its stack (which a Go program has too little of, and whose contents another thread may read) the tracer writes to a
//! memory file that each guest process maps when it executes, and that its children inherit. No write can fail there, and
//! none costs a system call. Slots are taken for the time of one call.
//!
//! Where no file may be so large (RLIMIT_FSIZE) it is a System V segment, whose size no limit of a process's bounds. That is
//! marked for removal as soon as it is mapped, and Linux lets others attach such a one as long as anybody has it.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    process, ptr,
};

use coracle_intercept::{
    Errno,
    errno::{E2BIG, ENOMEM},
};
use coracle_layout::memory_file;

use crate::spring;

/// Bytes of one slot: a spring; two paths, or the arguments of a script.
const SLOT: usize = 16 << 10;
/// Calls that can borrow at one time; those beyond wait (see [`crate::shortage`]).
const SLOTS: u16 = 512;
/// From so many in use on, none is lent to calls that may keep it long: they would be missed, and each is a page of ours.
const SPARING: usize = 96;
/// One large place for a script's argument list that no slot holds.
const LARGE: usize = 8 << 20;

/// Offset of a word that is always zero.
pub(crate) const STILL: usize = SLOT * SLOTS as usize + LARGE;

/// Size of the whole window.
pub(crate) const SIZE: usize = STILL + 4096;

/// A place in the window, held from a call's entry to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u16);

impl Slot {
    const BIG: Self = Self(SLOTS);

    /// Offset in the window.
    fn offset(self) -> usize {
        usize::from(self.0) * SLOT
    }

    /// Offset in the window of its spring.
    pub(crate) fn spring(self) -> u64 {
        self.offset() as u64
    }
}

/// How guests come to the window.
#[derive(Debug)]
pub(crate) enum Way {
    /// They open the path of our descriptor, and map it.
    File(CString, OwnedFd),
    /// They attach this segment.
    Segment(i32),
}

/// The tracer's side of the window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) way: Way,
    memory: *mut u8,
    free: Vec<Slot>,
    large_is_free: bool,
    /// Guests may execute what is in it.
    executable: bool,
    /// Whose springs have their instructions.
    made: Vec<bool>,
}

impl Window {
    /// Makes the memory and maps it.
    pub(crate) fn new() -> io::Result<Self> {
        let (way, memory) = match of_file() {
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) => of_segment()?,
            made => made?,
        };
        let executable = match &way {
            Way::File(_, file) => is_executable(file),
            Way::Segment(_) => true,
        };
        let made = vec![false; usize::from(SLOTS)];
        // The last slots first, so that the first are taken first.
        let free = (0..SLOTS).rev().map(Slot).collect();
        Ok(Self { way, memory, free, large_is_free: true, executable, made })
    }

    /// Where the window lies in the tracer, and in a child of its that has not executed yet.
    pub(crate) fn address(&self) -> u64 {
        self.memory as u64
    }

    /// Takes a slot for `size` bytes; the most recently used one, whose memory is at hand.
    pub(crate) fn take(&mut self, size: usize) -> Result<Slot, Errno> {
        if size <= SLOT - spring::ROOM {
            return self.free.pop().ok_or(ENOMEM);
        }
        if size > LARGE || !self.large_is_free {
            return Err(E2BIG);
        }
        self.large_is_free = false;
        Ok(Slot::BIG)
    }

    /// Whether there is a slot of the usual size.
    pub(crate) fn is_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether slots are left for those that keep them long.
    pub(crate) fn has_spare(&self) -> bool {
        self.free.len() + SPARING > usize::from(SLOTS)
    }

    /// Whether guests are to map it so that they can execute what is in it.
    pub(crate) fn is_executable(&self) -> bool {
        self.executable
    }

    /// Whether there is the large place.
    pub(crate) fn is_large_free(&self) -> bool {
        self.large_is_free
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: Slot) {
        if slot == Slot::BIG {
            self.large_is_free = true;
        } else {
            self.free.push(slot);
        }
    }

    /// Writes into a slot; the offset in the window. The caller took enough for all that it writes.
    pub(crate) fn put(&mut self, slot: Slot, at: usize, bytes: &[u8]) -> u64 {
        let (head, room) = if slot == Slot::BIG { (0, LARGE) } else { (spring::ROOM, SLOT - spring::ROOM) };
        assert!(at + bytes.len() <= room, "a slot holds what it was taken for");
        let offset = slot.offset() + head + at;
        self.write(offset, bytes);
        offset as u64
    }

    /// Has the slot's spring load these registers and go to this address.
    pub(crate) fn set_spring(&mut self, slot: Slot, words: &[u64; 7]) {
        assert!(slot != Slot::BIG, "springs are in slots");
        if !std::mem::replace(&mut self.made[usize::from(slot.0)], true) {
            self.write(slot.offset(), &spring::CODE);
        }
        for (at, word) in words.iter().enumerate() {
            self.write(slot.offset() + spring::WORDS + 8 * at, &word.to_le_bytes());
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= SIZE);
        // SAFETY: the mapping is `SIZE` bytes long and lives as long as `self`; the assertion keeps the copy inside it.
        // Guests only read it, and read a slot only while it is lent to them; no Rust reference to it exists.
        unsafe { self.memory.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// A window that is a file in memory.
fn of_file() -> io::Result<(Way, *mut u8)> {
    let file = memory_file(c"coracle-window")?;
    nix::unistd::ftruncate(&file, i64::try_from(SIZE).unwrap_or(i64::MAX))?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new shared mapping of `SIZE` bytes of our own file, at a place of the kernel's choice.
    let memory = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok((Way::File(path_of(&file)?, file), memory.cast()))
}

/// A window that is a segment.
fn of_segment() -> io::Result<(Way, *mut u8)> {
    // Whoever is to execute what is in it needs that right, too.
    let mode = libc::IPC_CREAT | 0o700;
    // SAFETY: shmget takes numbers, shmat attaches a whole segment at a place of the kernel's choice, and IPC_RMID reads
    // nothing from its pointer.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, SIZE, mode);
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        let memory = libc::shmat(id, ptr::null(), 0);
        let error = io::Error::last_os_error();
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        if memory.addr() == usize::MAX { Err(error) } else { Ok((Way::Segment(id), memory.cast())) }
    }
}

/// Whether it may be mapped to be executed: security modules have their opinions.
fn is_executable(file: &OwnedFd) -> bool {
    // SAFETY: a new mapping of one page of our own file, at a place of the kernel's choice, which nobody uses.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let page = libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        page != libc::MAP_FAILED && libc::munmap(page, 4096) == 0
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped, of whichever kind; nothing refers to it any more.
        unsafe { libc::munmap(self.memory.cast(), SIZE) };
    }
}

/// The path by which another process of this user opens our descriptor.
pub(crate) fn path_of(file: &impl AsRawFd) -> io::Result<CString> {
    Ok(CString::new(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()))?)
}
