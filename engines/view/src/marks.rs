//! Which inodes of a view are shared: one hash table in a file, mapped by whoever must know.
//!
//! Little-endian. A header ([`MAGIC`], number of slots, number of marks, flags, zero), then slots of 32 bytes: inode u64,
//! modification time (seconds i64, nanoseconds u32), uid u32, gid u32, mode u16, links u16. A power of two of them, at
//! most half full, probed linearly; inode 0 is an empty slot.
//!
//! The time is part of the key: a shared file never changes, so an inode number with another time is a new file that got
//! the number of one that is gone. Every number is checked where it is used: wrong bytes give wrong answers and nothing
//! worse.

/// First bytes of the file; the digit is the version.
pub(crate) const MAGIC: [u8; 8] = *b"CORMARK1";

pub(crate) const HEADER: usize = 24;
pub(crate) const SLOT: usize = 32;
/// Flag: some shared file can be written to by its mode on disk.
pub(crate) const WRITABLE: u32 = 1;

/// What stat(2) says of a file, as far as it tells files apart and matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_mtime`: seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// What the image says of a shared file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Permission bits with set-id and sticky bits: `mode & 0o7777`.
    pub mode: u16,
    /// How many names it has in the image.
    pub links: u16,
    /// Its owner there; `None` if nobody told.
    pub owner: Option<(u32, u32)>,
}

/// The bytes are no table of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotMarks;

/// The marks of one view.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    slots: &'a [u8],
    device: u64,
    writable: bool,
}

impl<'a> Marks<'a> {
    /// Takes a table apart; its files are on `device` (that of the table's own file).
    ///
    /// # Errors
    /// [`NotMarks`] if magic or lengths do not fit, as of a file that a crash cut short.
    pub fn new(bytes: &'a [u8], device: u64) -> Result<Self, NotMarks> {
        let (header, slots) = bytes.split_at_checked(HEADER).ok_or(NotMarks)?;
        let count = u32_of(header, 8) as usize;
        let fits = count.is_power_of_two() && count.checked_mul(SLOT) == Some(slots.len());
        if header[..8] != MAGIC || !fits {
            return Err(NotMarks);
        }
        Ok(Self { slots, device, writable: u32_of(header, 16) & WRITABLE != 0 })
    }

    /// The marks of a view without shared files.
    #[must_use]
    pub const fn none() -> Self {
        Self { slots: &[], device: 0, writable: false }
    }

    /// What the image says of this file, if it is shared.
    #[must_use]
    pub fn find(&self, file: &FileId) -> Option<Mark> {
        let at = self.place(file.device, file.inode)?;
        let slot = &self.slots[at..at + SLOT];
        (i64_of(slot, 8) == file.mtime.0 && u32_of(slot, 16) == file.mtime.1).then(|| mark_of(slot))
    }

    /// Whether an inode number may be a shared file's: a quick answer where the time is not at hand.
    #[must_use]
    pub fn has(&self, device: u64, inode: u64) -> bool {
        self.place(device, inode).is_some()
    }

    /// How many slots the table has: [`slot`](Self::slot) is always less.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len() / SLOT
    }

    /// The number of a shared file's slot, by which whoever has the same table can keep more about it.
    #[must_use]
    pub fn slot(&self, file: &FileId) -> Option<usize> {
        self.find(file)?;
        self.place(file.device, file.inode).map(|at| at / SLOT)
    }

    /// Whether the modes on disk let some shared file be written to: then the kernel refuses nothing by itself.
    #[must_use]
    pub fn writable_on_disk(&self) -> bool {
        self.writable
    }

    /// Where the inode's slot begins.
    fn place(&self, device: u64, inode: u64) -> Option<usize> {
        if device != self.device || inode == 0 || self.slots.is_empty() {
            return None;
        }
        let count = self.slots.len() / SLOT;
        let mut number = hash(inode) & (count - 1);
        for _ in 0..count {
            match u64_of(self.slots, number * SLOT) {
                0 => return None,
                found if found == inode => return Some(number * SLOT),
                _ => number = (number + 1) & (count - 1),
            }
        }
        None
    }
}

fn mark_of(slot: &[u8]) -> Mark {
    let (uid, gid) = (u32_of(slot, 20), u32_of(slot, 24));
    let short = |at: usize| u16::from_le_bytes([slot[at], slot[at + 1]]);
    Mark { mode: short(28), links: short(30), owner: (uid != u32::MAX).then_some((uid, gid)) }
}

/// Where the search for an inode begins.
#[expect(clippy::cast_possible_truncation, reason = "a hash may lose bits")]
pub(crate) fn hash(inode: u64) -> usize {
    let product = u128::from(inode) * 0x9e37_79b9_7f4a_7c15;
    ((product as u64) ^ ((product >> 64) as u64)) as usize
}

fn u32_of(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_of(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn i64_of(bytes: &[u8], at: usize) -> i64 {
    u64_of(bytes, at).cast_signed()
}

/// Makes a table out of marks.
#[cfg(feature = "std")]
pub(crate) fn build(marks: &std::collections::HashMap<u64, ((i64, u32), Mark)>, writable: bool) -> Vec<u8> {
    let count = (marks.len() * 2 + 1).next_power_of_two();
    let mut bytes = vec![0; HEADER + count * SLOT];
    bytes[..8].copy_from_slice(&MAGIC);
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    bytes[8..12].copy_from_slice(&small(count));
    bytes[12..16].copy_from_slice(&small(marks.len()));
    bytes[16..20].copy_from_slice(&(if writable { WRITABLE } else { 0 }).to_le_bytes());
    let slots = &mut bytes[HEADER..];
    for (inode, ((seconds, nanoseconds), mark)) in marks {
        let mut number = hash(*inode) & (count - 1);
        while u64_of(slots, number * SLOT) != 0 {
            number = (number + 1) & (count - 1);
        }
        let slot = &mut slots[number * SLOT..][..SLOT];
        let (uid, gid) = mark.owner.unwrap_or((u32::MAX, u32::MAX));
        slot[..8].copy_from_slice(&inode.to_le_bytes());
        slot[8..16].copy_from_slice(&seconds.to_le_bytes());
        slot[16..20].copy_from_slice(&nanoseconds.to_le_bytes());
        slot[20..24].copy_from_slice(&uid.to_le_bytes());
        slot[24..28].copy_from_slice(&gid.to_le_bytes());
        slot[28..30].copy_from_slice(&mark.mode.to_le_bytes());
        slot[30..32].copy_from_slice(&mark.links.to_le_bytes());
    }
    bytes
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_was_marked_is_found_and_nothing_else() {
        let mark = |n: u64| Mark {
            mode: u16::try_from(n % 0o10000).expect("small"),
            links: 1,
            owner: (n.is_multiple_of(2)).then_some((1, 2)),
        };
        let marks: HashMap<_, _> = (1..5000_u64).map(|n| (n * n, ((5, 6), mark(n)))).collect();
        let bytes = build(&marks, false);
        let table = Marks::new(&bytes, 7).expect("a table");
        for n in 1..5000_u64 {
            let file = FileId { device: 7, inode: n * n, mtime: (5, 6) };
            assert_eq!(table.find(&file), Some(mark(n)));
            assert!(table.slot(&file).is_some_and(|slot| slot < table.slots()));
            assert_eq!(table.find(&FileId { device: 8, ..file }), None, "another device");
            assert_eq!(table.find(&FileId { mtime: (5, 7), ..file }), None, "a new file with an old number");
            assert_eq!(table.find(&FileId { inode: n * n + 1, ..file }), None);
        }
        assert!(!table.writable_on_disk());
    }

    #[test]
    fn wrong_bytes_are_refused_or_harmless() {
        let bytes = build(&HashMap::from([(3, ((0, 0), Mark { mode: 0o644, links: 1, owner: None }))]), true);
        assert!(Marks::new(&bytes, 1).is_ok_and(|marks| marks.writable_on_disk()));
        for len in 0..bytes.len() {
            assert!(Marks::new(&bytes[..len], 1).is_err(), "cut at {len}");
        }
        assert!(Marks::new(&vec![0; bytes.len()], 1).is_err());
        // A table without an empty slot ends a search all the same.
        let full: Vec<u8> = bytes[..HEADER].iter().copied().chain(vec![1; bytes.len() - HEADER]).collect();
        let table = Marks::new(&full, 1).expect("the header is right");
        assert_eq!(table.find(&FileId { device: 1, inode: 9, mtime: (0, 0) }), None);
    }
}
