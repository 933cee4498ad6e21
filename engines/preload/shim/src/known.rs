//! Directories that the short way ([`fast`](crate::fast)) has come through: what programs ask for next mostly lies in one of
//! them, and then only its last name is to be looked up.
//!
//! A directory is known by the text before the last slash, byte for byte, with the end of the root's path in front, so that
//! short and long ones are compared alike, without a loop. Rules:
//! - what is known stays true: the tree never changes, nor do the binds;
//! - a place is filled once and then only read, so nothing is waited for. Whoever was to fill it and ended in between (a
//!   child of vfork(2)) leaves it unused.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_paths::table::Node;

/// So many bytes before the last slash are compared; what is longer is not known.
pub(crate) const WINDOW: usize = 96;

/// As many can be known; two pages.
const PLACES: usize = 64;

const FREE: u32 = 0;
const BEING_FILLED: u32 = 1;
const FILLED: u32 = 2;

struct Directory {
    node: Node,
    /// Length of its host path.
    len: usize,
    window: [u8; WINDOW],
}

#[repr(align(128))]
struct Place {
    stage: AtomicU32,
    directory: UnsafeCell<MaybeUninit<Directory>>,
}

// SAFETY: written once, by whoever took `stage` from FREE to BEING_FILLED, and read only after it is FILLED.
unsafe impl Sync for Place {}

static KNOWN: [Place; PLACES] =
    [const { Place { stage: AtomicU32::new(FREE), directory: UnsafeCell::new(MaybeUninit::uninit()) } }; PLACES];

/// The two places where a directory may be.
#[inline]
fn places(window: &[u8; WINDOW], len: usize) -> [&'static Place; 2] {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |at: usize| window[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let mixed = (word(WINDOW - 8) ^ word(WINDOW - 16).rotate_left(23) ^ len as u64).wrapping_mul(K);
    let first = usize::try_from(mixed >> 58).unwrap_or(0) % PLACES;
    [&KNOWN[first], &KNOWN[first ^ 1]]
}

/// The directory whose host path is so long and ends so, if it is known.
#[inline]
pub(crate) fn find(window: &[u8; WINDOW], len: usize) -> Option<Node> {
    places(window, len).into_iter().find_map(|place| {
        if place.stage.load(Ordering::Acquire) != FILLED {
            return None;
        }
        // SAFETY: FILLED was seen, and nobody writes it again.
        let directory = unsafe { (*place.directory.get()).assume_init_ref() };
        (directory.len == len && is_same(&directory.window, window)).then_some(directory.node)
    })
}

#[inline]
fn is_same(a: &[u8; WINDOW], b: &[u8; WINDOW]) -> bool {
    let word = |bytes: &[u8; 16]| u128::from_le_bytes(*bytes);
    let ((words, _), (others, _)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    words.iter().zip(others).fold(0, |differ, (a, b)| differ | word(a) ^ word(b)) == 0
}

/// Keeps a directory, if there is a place for it.
#[cold]
pub(crate) fn keep(window: &[u8; WINDOW], len: usize, node: Node) {
    for place in places(window, len) {
        if place.stage.compare_exchange(FREE, BEING_FILLED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: we alone made it BEING_FILLED.
            unsafe { (*place.directory.get()).write(Directory { node, len, window: *window }) };
            place.stage.store(FILLED, Ordering::Release);
            return;
        }
    }
}
