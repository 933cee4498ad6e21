//! The inode ledger: what a guest is told of files that the host keeps otherwise.
//!
//! The owner that a pretended root gave to a file, mode bits that its real owner cannot or must not keep, the kind and
//! number of a device that is a plain file on disk, and the mark of files that belong to the shared image: one table, keyed
//! by device and inode. It lies in memory that every process of a run may map, and that a file may hold.
//!
//! The trick: open addressing with linear probing, where a slot, once given to a key, is that key's for ever: an entry that
//! is removed leaves its key behind, which the inode's next life finds again. So a search needs no lock, and nobody can be
//! stopped in the middle of anything: a slot is claimed by its inode number, then by its device, each with one
//! compare-and-swap, and whoever comes between may finish the claim for its own device. Neighbouring inode numbers have
//! neighbouring slots, so that a tree's entries touch few pages of a sparse file. Rules:
//! - The home device (that of the guest's tree) is kept as such, whatever its number is today: a ledger outlives a reboot.
//! - Each half of an entry (owner; the rest) changes as a whole; the two halves one after the other.
//! - Keys are never given up, so a table fills in the end: [`Full`]. [`Ledger::copy_to`] leaves dead ones behind.

#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};

/// What the first word of a ledger holds: a name and the version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"CRLEDGE\x01");

/// Words before the first slot.
const HEADER: usize = 64;
/// Words of one slot: inode, device, owner, the rest.
const SLOT: usize = 4;
/// Slots that lie together: one for each of so many neighbouring inode numbers.
const CLUSTER: u64 = 64;

/// Places in the header.
const CAPACITY: usize = 1;
const CLAIMED: usize = 2;
const DEVICES: usize = 3;

/// In a slot's last word: the mode in the lower half of the lower half, flags in its upper half, the device above.
const OWNER: u64 = 1 << 16;
const MODE: u64 = 1 << 17;
const DEVICE: u64 = 1 << 18;
const SHARED: u64 = 1 << 19;
const MODE_BITS: u64 = 0xffff;
const RDEV_SHIFT: u32 = 32;

/// The device of a key as it is kept: 0 is none yet, 1 the home device, others are moved up by this.
const FIRST_DEVICE: u64 = 2;

/// Names a file to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// `st_dev`, as stat(2) gives it on 64-bit interfaces.
    pub device: u64,
    /// `st_ino`; never 0.
    pub number: u64,
}

/// What the ledger knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its user and group id, if they are not what follows from the host's.
    pub owner: Option<(u32, u32)>,
    /// Its `st_mode`, permissions and type, if it is not the host's.
    pub mode: Option<u16>,
    /// Its `st_rdev` (the kernel's 32-bit form), if it is a device; then `mode` says of which kind.
    pub device: Option<u32>,
    /// The inode belongs to the shared image: the link must be broken before anything changes it.
    pub shared: bool,
}

/// The ledger holds as many files as it can: make a larger one and [`Ledger::copy_to`] it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why memory cannot be used as a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// Its first word is not a ledger's, or of another version's.
    Magic,
    /// It is smaller than it says it is, or of a size that no ledger has.
    Size,
}

/// A ledger in borrowed memory.
#[derive(Debug, Clone, Copy)]
pub struct Ledger<'a> {
    header: &'a [AtomicU64],
    slots: &'a [AtomicU64],
    /// Number of slots, a power of two.
    capacity: u64,
    home: u64,
}

/// Slots of a ledger that nobody chose a size for: three quarters of them can be used.
pub const CAPACITY_DEFAULT: u64 = 1 << 20;

/// Bytes that a ledger of so many slots takes; `None` if no ledger has so many.
#[must_use]
pub fn bytes_for(capacity: u64) -> Option<usize> {
    if !capacity.is_power_of_two() || capacity < CLUSTER {
        return None;
    }
    let slots = usize::try_from(capacity).ok()?.checked_mul(SLOT)?;
    slots.checked_add(HEADER)?.checked_mul(size_of::<AtomicU64>())
}

impl<'a> Ledger<'a> {
    /// Makes an empty ledger of memory that is zero; `home` is the device of the guest's tree.
    ///
    /// # Errors
    /// [`Unusable::Size`] if `words` is not as long as [`bytes_for`] of some capacity says.
    pub fn format(words: &'a [AtomicU64], home: u64) -> Result<Self, Unusable> {
        let capacity = (words.len().checked_sub(HEADER).ok_or(Unusable::Size)? / SLOT) as u64;
        if bytes_for(capacity) != Some(size_of_val(words)) {
            return Err(Unusable::Size);
        }
        words[CAPACITY].store(capacity, Ordering::Relaxed);
        words[0].store(MAGIC, Ordering::Release);
        Self::open(words, home)
    }

    /// A ledger that is there already.
    ///
    /// # Errors
    /// What is wrong with it; the memory is untouched.
    pub fn open(words: &'a [AtomicU64], home: u64) -> Result<Self, Unusable> {
        if words.first().ok_or(Unusable::Size)?.load(Ordering::Acquire) != MAGIC {
            return Err(Unusable::Magic);
        }
        let (header, slots) = words.split_at_checked(HEADER).ok_or(Unusable::Size)?;
        let capacity = header[CAPACITY].load(Ordering::Relaxed);
        match bytes_for(capacity) {
            Some(size) if size <= size_of_val(words) => Ok(Self { header, slots, capacity, home }),
            _ => Err(Unusable::Size),
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many slots have a key, of entries that live or lived.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        self.header[CLAIMED].load(Ordering::Relaxed)
    }

    /// Whether nothing was ever recorded: then there is no need to know a file's inode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claimed() == 0
    }

    /// Whether some file was ever made a device.
    #[must_use]
    pub fn has_devices(&self) -> bool {
        self.header[DEVICES].load(Ordering::Relaxed) != 0
    }

    /// What is known of a file.
    #[must_use]
    pub fn get(&self, inode: Inode) -> Option<Entry> {
        if self.is_empty() {
            return None;
        }
        let slot = self.find(inode, false).ok().flatten()?;
        slot.entry()
    }

    /// Records a file's owner.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_owner(&self, inode: Inode, uid: u32, gid: u32) -> Result<(), Full> {
        let slot = self.claim(inode)?;
        slot.words[2].store(u64::from(uid) | u64::from(gid) << 32, Ordering::Release);
        slot.words[3].fetch_or(OWNER, Ordering::Release);
        Ok(())
    }

    /// Records the `st_mode` that the guest is to see of a file; `None`: the host's. A device keeps its own.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_mode(&self, inode: Inode, mode: Option<u16>) -> Result<(), Full> {
        let Some(mode) = mode else {
            if let Ok(Some(slot)) = self.find(inode, false) {
                slot.change(|rest| if rest & DEVICE == 0 { rest & !(MODE | MODE_BITS) } else { rest });
            }
            return Ok(());
        };
        self.claim(inode)?.change(|rest| rest & !MODE_BITS | MODE | u64::from(mode));
        Ok(())
    }

    /// Records that a file is a device: its `st_mode` and its number, in the kernel's 32-bit form.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_device(&self, inode: Inode, mode: u16, number: u32) -> Result<(), Full> {
        let slot = self.claim(inode)?;
        self.header[DEVICES].fetch_add(1, Ordering::Relaxed);
        slot.change(|rest| {
            let flags = rest & (OWNER | SHARED);
            flags | MODE | DEVICE | u64::from(mode) | u64::from(number) << RDEV_SHIFT
        });
        Ok(())
    }

    /// Marks an inode as belonging to the shared image, or not any more.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_shared(&self, inode: Inode, shared: bool) -> Result<(), Full> {
        if shared {
            self.claim(inode)?.words[3].fetch_or(SHARED, Ordering::Release);
        } else if let Ok(Some(slot)) = self.find(inode, false) {
            slot.words[3].fetch_and(!SHARED, Ordering::Release);
        }
        Ok(())
    }

    /// Forgets a file: its last link has gone, or its number has begun a new life.
    pub fn remove(&self, inode: Inode) {
        if self.is_empty() {
            return;
        }
        if let Ok(Some(slot)) = self.find(inode, false) {
            slot.words[3].store(0, Ordering::Release);
        }
    }

    /// All that the other ledger is to know too: every entry that lives. Nobody may change this one meanwhile.
    ///
    /// # Errors
    /// [`Full`] if they are more than it holds.
    pub fn copy_to(&self, other: &Ledger<'_>) -> Result<(), Full> {
        self.entries().try_for_each(|(inode, entry)| other.put(inode, &entry))
    }

    /// Records all of an entry.
    ///
    /// # Errors
    /// [`Full`].
    pub fn put(&self, inode: Inode, entry: &Entry) -> Result<(), Full> {
        if let Some((uid, gid)) = entry.owner {
            self.set_owner(inode, uid, gid)?;
        }
        match (entry.device, entry.mode) {
            (Some(number), mode) => self.set_device(inode, mode.unwrap_or(0), number)?,
            (None, Some(mode)) => self.set_mode(inode, Some(mode))?,
            (None, None) => {}
        }
        if entry.shared { self.set_shared(inode, true) } else { Ok(()) }
    }

    /// Every entry that lives, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (Inode, Entry)> + use<'a> {
        let home = self.home;
        self.slots.chunks_exact(SLOT).filter_map(move |words| {
            let slot = Slot { words };
            let device = match words[1].load(Ordering::Acquire) {
                0 => return None,
                1 => home,
                other => other - FIRST_DEVICE,
            };
            Some((Inode { device, number: words[0].load(Ordering::Relaxed) }, slot.entry()?))
        })
    }

    fn claim(&self, inode: Inode) -> Result<Slot<'a>, Full> {
        self.find(inode, true)?.ok_or(Full)
    }

    /// The slot of a key; with `make` one is claimed for it if it has none.
    fn find(&self, inode: Inode, make: bool) -> Result<Option<Slot<'a>>, Full> {
        if inode.number == 0 {
            return if make { Err(Full) } else { Ok(None) };
        }
        let device = if inode.device == self.home { 1 } else { inode.device.wrapping_add(FIRST_DEVICE) };
        let start = self.start(device, inode.number);
        for step in 0..self.capacity {
            let words = self.slot((start + step) & (self.capacity - 1));
            let mut number = words[0].load(Ordering::Acquire);
            if number == 0 {
                if !make {
                    return Ok(None);
                }
                if self.claimed() >= self.capacity / 4 * 3 {
                    return Err(Full);
                }
                match words[0].compare_exchange(0, inode.number, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        self.header[CLAIMED].fetch_add(1, Ordering::Relaxed);
                        number = inode.number;
                    }
                    Err(other) => number = other,
                }
            }
            if number != inode.number {
                continue;
            }
            let mut owner = words[1].load(Ordering::Acquire);
            if owner == 0 && make {
                owner = match words[1].compare_exchange(0, device, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => device,
                    Err(other) => other,
                };
            }
            if owner == device {
                return Ok(Some(Slot { words }));
            }
        }
        Ok(None)
    }

    /// Where the search for a key begins.
    fn start(&self, device: u64, number: u64) -> u64 {
        let mut mixed =
            (number / CLUSTER).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ device.wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^= mixed >> 32;
        mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^= mixed >> 29;
        let clusters = self.capacity / CLUSTER;
        (mixed & (clusters - 1)) * CLUSTER + number % CLUSTER
    }

    fn slot(&self, at: u64) -> &'a [AtomicU64] {
        // `at` is below the capacity, which the memory was found to hold.
        let at = usize::try_from(at).unwrap_or(0) * SLOT;
        &self.slots[at..at + SLOT]
    }
}

/// A key's slot.
struct Slot<'a> {
    words: &'a [AtomicU64],
}

impl Slot<'_> {
    fn change(&self, change: impl Fn(u64) -> u64) {
        let word = &self.words[3];
        let mut old = word.load(Ordering::Acquire);
        while let Err(now) = word.compare_exchange_weak(old, change(old), Ordering::AcqRel, Ordering::Acquire) {
            old = now;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of words are taken out of them")]
    fn entry(&self) -> Option<Entry> {
        let rest = self.words[3].load(Ordering::Acquire);
        let has = |flag: u64| rest & flag != 0;
        if !has(OWNER | MODE | DEVICE | SHARED) {
            return None;
        }
        let owner = has(OWNER).then(|| {
            let owner = self.words[2].load(Ordering::Acquire);
            (owner as u32, (owner >> 32) as u32)
        });
        Some(Entry {
            owner,
            mode: has(MODE).then_some((rest & MODE_BITS) as u16),
            device: has(DEVICE).then_some((rest >> RDEV_SHIFT) as u32),
            shared: has(SHARED),
        })
    }
}
