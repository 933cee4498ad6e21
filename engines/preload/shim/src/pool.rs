//! Memory for calls: blocks of one mapping, taken and given back without a lock.
//!
//! A guest's stack may be small (16 KiB), its signal handlers may come between anything, and a child of vfork(2) shares all
//! of this with its parent: so a call works in a block that nobody else has meanwhile, and waits for none. What execve(2)
//! needs is copied to the stack first, since after it nobody would give the block back to the parent of such a child.
//! Rules: a block's content means nothing between two calls; that a pointer lies in the pool tells the shim's own strings
//! from the guest's ([`is_ours`]).

use core::{
    ops::{Deref, DerefMut, Range},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use coracle_intercept::Scratch;
use coracle_sys as sys;

/// As many calls may be made at once before blocks are mapped one by one.
const BLOCKS: usize = 64;
/// Bytes of one block.
const SIZE: usize = size_of::<Scratch>().next_multiple_of(4096);

/// Where the mapping is; 0: not made.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// Bit n: block n is free.
static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

/// A block, taken.
pub(crate) struct Block {
    scratch: &'static mut Scratch,
    /// Which one; `None`: a mapping of its own.
    number: Option<u32>,
}

/// Maps the pool; `None` if the kernel has no memory.
pub(crate) fn start() -> Option<()> {
    let at = map(BLOCKS * SIZE)?;
    BASE.store(at, Ordering::Release);
    Some(())
}

/// Takes a block; `None` if there is no memory.
pub(crate) fn take() -> Option<Block> {
    // Threads have stacks apart, so each begins with another block, and finds it where it was.
    let here = 0_u8;
    let first = u32::try_from(core::ptr::from_ref(&here).addr() >> 16 & 63).unwrap_or(0);
    for number in (first..64).chain(0..first) {
        let bit = 1 << number;
        if FREE.load(Ordering::Relaxed) & bit == 0 || FREE.fetch_and(!bit, Ordering::Acquire) & bit == 0 {
            continue;
        }
        let at = BASE.load(Ordering::Acquire) + number as usize * SIZE;
        return Some(Block { scratch: scratch(at), number: Some(number) });
    }
    Some(Block { scratch: scratch(map(SIZE)?), number: None })
}

/// Whether an address lies in the pool.
pub(crate) fn is_ours(address: usize) -> bool {
    address.wrapping_sub(BASE.load(Ordering::Relaxed)) < BLOCKS * SIZE
}

fn map(len: usize) -> Option<usize> {
    use sys::kernel::{MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
    // SAFETY: a new mapping at a place of the kernel's choice.
    unsafe { sys::map(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, None, 0) }.ok()
}

/// The block at this address, which its caller alone has.
fn scratch(at: usize) -> &'static mut Scratch {
    // SAFETY: mapped, aligned to a page, as large as a Scratch, and nobody else's until it is given back: its bit was ours
    // to clear. It was zero, which Scratch says is an empty one.
    unsafe { &mut *core::ptr::with_exposed_provenance_mut::<Scratch>(at) }
}

/// A block's memory, for whatever else.
pub(crate) fn bytes(block: &mut Block) -> &mut [u8] {
    // SAFETY: the block is ours alone, and a Scratch is made of integers, so any of its bytes may be written.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut::<Scratch>(block).cast::<u8>(), size_of::<Scratch>()) }
}

impl Block {
    /// The addresses that it has.
    pub(crate) fn range(&self) -> Range<usize> {
        let at = core::ptr::from_ref::<Scratch>(self.scratch).expose_provenance();
        at..at + SIZE
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match self.number {
            Some(number) => _ = FREE.fetch_or(1 << number, Ordering::Release),
            // SAFETY: mapped by `take`, and the only reference to it ends here.
            None => _ = unsafe { sys::unmap(core::ptr::from_mut(self.scratch).expose_provenance(), SIZE) },
        }
    }
}

impl Deref for Block {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        self.scratch
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Scratch {
        self.scratch
    }
}
