//! Directories that the short way ([`fast`](crate::fast)) has come through: what programs ask for next mostly lies in one of
//! them, and then only its last name is to be looked up.
//!
//! A directory is known by the text before the last slash, byte for byte. Rules:
//! - what is known stays true: the tree never changes, nor do the binds;
//! - a place is filled once and then only read, so nothing is waited for. Whoever was to fill it and ended in between (a
//!   child of vfork(2)) leaves it unused.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_paths::table::Node;

/// Longest text that is known.
const LONGEST: usize = 96;
const WORDS: usize = LONGEST / 8;

/// As many can be known; two pages.
const PLACES: usize = 64;

const FREE: u32 = 0;
const BEING_FILLED: u32 = 1;
const FILLED: u32 = 2;

struct Directory {
    node: Node,
    len: usize,
    words: [u64; WORDS],
    last: u64,
}

/// The text before a slash, as it is compared.
pub(crate) struct Key<'t> {
    len: usize,
    words: &'t [[u8; 8]],
    /// The bytes behind the last whole word.
    last: u64,
}

impl<'t> Key<'t> {
    /// Of as many bytes of a text, which must go on to the end of the word; `None`: it is too long to be known.
    #[inline]
    pub(crate) fn new(text: &'t [u8], len: usize) -> Option<Self> {
        if len > LONGEST {
            return None;
        }
        let (words, rest) = (text.as_chunks::<8>().0, len % 8);
        let last = if rest == 0 { 0 } else { u64::from_le_bytes(*words.get(len / 8)?) & ((1 << (8 * rest)) - 1) };
        Some(Self { len, words: words.get(..len / 8)?, last })
    }

    /// The two places where it may be.
    #[inline]
    fn places(&self) -> [&'static Place; 2] {
        const K: u64 = 0x9e37_79b9_7f4a_7c15;
        // Directories differ at their end, mostly: that is the last two whole words and what is behind them.
        let word = |back: usize| {
            let at = self.words.len().checked_sub(back);
            at.and_then(|at| self.words.get(at)).map_or(0, |word| u64::from_le_bytes(*word))
        };
        let ends = word(1).rotate_left(23) ^ word(2).rotate_left(46);
        let mixed = (ends ^ self.last ^ self.len as u64).wrapping_mul(K);
        let first = usize::try_from(mixed >> 58).unwrap_or(0) % PLACES;
        [&KNOWN[first], &KNOWN[first ^ 1]]
    }

    #[inline]
    fn is(&self, directory: &Directory) -> bool {
        let words = || self.words.iter().zip(&directory.words);
        self.len == directory.len
            && self.last == directory.last
            && words().fold(0, |differ, (a, b)| differ | u64::from_le_bytes(*a) ^ b) == 0
    }
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

/// The directory of this text, if it is known.
#[inline]
pub(crate) fn find(key: &Key<'_>) -> Option<Node> {
    key.places().into_iter().find_map(|place| {
        if place.stage.load(Ordering::Acquire) != FILLED {
            return None;
        }
        // SAFETY: FILLED was seen, and nobody writes it again.
        let directory = unsafe { (*place.directory.get()).assume_init_ref() };
        key.is(directory).then_some(directory.node)
    })
}

/// Keeps a directory, if there is a place for it.
#[cold]
pub(crate) fn keep(key: &Key<'_>, node: Node) {
    for place in key.places() {
        if place.stage.compare_exchange(FREE, BEING_FILLED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let mut words = [0; WORDS];
            words.iter_mut().zip(key.words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
            let directory = Directory { node, len: key.len, words, last: key.last };
            // SAFETY: we alone made it BEING_FILLED.
            unsafe { (*place.directory.get()).write(directory) };
            place.stage.store(FILLED, Ordering::Release);
            return;
        }
    }
}
