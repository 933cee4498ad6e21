//! All names of a tree that never changes, as one flat piece of bytes: mapped by every process of a run and consulted
//! without a system call.
//!
//! Little-endian. A header ([`MAGIC`]; number of nodes, number of slots, length of the strings, 0; u64 sum of all that
//! follows the header); then a record of 16 bytes per node (parent u32, name u32, target u32, target length u16, name
//! length u8, kind u8), node 0 being the root; then a hash table of u32 slots (node, or 0 for empty; a power of two, at
//! most half full), keyed by parent and name, probed linearly; then the strings.
//!
//! Rules: every number read is checked where it is used, so no bytes whatever can make a reader panic, loop or read
//! outside. Wrong bytes give wrong answers about the tree, never a path that leads outside it by its text: names are only
//! compared, and a link's target is walked like any other. So whoever maps a table makes sure that it is of the tree's own
//! maker, and [`Table::is_whole`] that it is what he wrote.
//!
//! A path of five components costs 0.2–0.3 µs (a hash and a comparison per component), a walk with the kernel's help
//! 0.6 µs and more per component; checking the sum 0.2 ms per MB, once per run; 10,000 names are about 0.6 MB.

#[cfg(feature = "alloc")]
mod build;

#[cfg(feature = "alloc")]
pub use build::{BuildError, build};

/// First bytes of a table; the digit is the version.
pub const MAGIC: [u8; 8] = *b"CORPATH1";

pub(crate) const HEADER: usize = 32;
pub(crate) const RECORD: usize = 16;
pub(crate) const SLOT: usize = 4;

/// A table's bytes, split.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    records: &'a [u8],
    slots: &'a [u8],
    strings: &'a [u8],
}

/// A file of the tree, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(u32);

/// What a file of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(&'a [u8]),
    /// Anything else that exists.
    File,
}

/// The bytes are no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATable;

impl<'a> Table<'a> {
    /// Takes a table apart.
    ///
    /// # Errors
    /// [`NotATable`] if magic or lengths do not fit.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NotATable> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(NotATable)?;
        let count = |at: usize| u32_at(header, at).map(|value| value as usize);
        let (nodes, slots, strings) = (count(8)?, count(12)?, count(16)?);
        if header[..8] != MAGIC || nodes == 0 || !slots.is_power_of_two() {
            return Err(NotATable);
        }
        let (records, rest) = rest.split_at_checked(nodes.checked_mul(RECORD).ok_or(NotATable)?).ok_or(NotATable)?;
        let (slots, rest) = rest.split_at_checked(slots.checked_mul(SLOT).ok_or(NotATable)?).ok_or(NotATable)?;
        if rest.len() != strings {
            return Err(NotATable);
        }
        Ok(Self { records, slots, strings: rest })
    }

    /// Whether the bytes of a table are those that were written: the sum in its header is right. Reads all of them.
    #[must_use]
    pub fn is_whole(bytes: &[u8]) -> bool {
        let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return false };
        header[HEADER - 8..] == sum(rest).to_le_bytes()
    }

    /// The tree's root directory.
    #[inline]
    #[must_use]
    pub fn root(&self) -> Node {
        Node(0)
    }

    /// The directory that holds `node`; the root is its own.
    #[must_use]
    pub fn parent(&self, node: Node) -> Node {
        self.record(node).map_or(Node(0), |record| Node(u32_of(record, 0)))
    }

    /// What `node` is.
    #[inline]
    #[must_use]
    pub fn kind(&self, node: Node) -> Kind<'a> {
        let Some(record) = self.record(node) else { return Kind::File };
        match record[15] {
            b'd' => Kind::Directory,
            b'l' => {
                let len = usize::from(u16::from_le_bytes([record[12], record[13]]));
                Kind::Symlink(self.string(u32_of(record, 8), len))
            }
            _ => Kind::File,
        }
    }

    /// The file called `name` in directory `node`.
    #[inline]
    #[must_use]
    pub fn child(&self, node: Node, name: &[u8]) -> Option<Node> {
        let count = self.slots.len() / SLOT;
        let mask = count - 1;
        let mut at = hash(node.0, name) & mask;
        for _ in 0..count {
            let found = u32_of(self.slots, at * SLOT);
            if found == 0 {
                return None;
            }
            let record = self.record(Node(found))?;
            if u32_of(record, 0) == node.0
                && usize::from(record[14]) == name.len()
                && same(self.string(u32_of(record, 4), name.len()), name)
            {
                return Some(Node(found));
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// The file at a canonical guest path of the tree (no links in it are followed).
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<Node> {
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .try_fold(self.root(), |node, name| self.child(node, name))
    }

    #[inline]
    fn record(&self, node: Node) -> Option<&'a [u8]> {
        let start = (node.0 as usize).checked_mul(RECORD)?;
        self.records.get(start..start.checked_add(RECORD)?)
    }

    /// A string; empty if it lies outside.
    #[inline]
    fn string(&self, start: u32, len: usize) -> &'a [u8] {
        let start = start as usize;
        start.checked_add(len).and_then(|end| self.strings.get(start..end)).unwrap_or(b"")
    }
}

/// Where the search for `name` in directory `parent` begins: eight bytes a step, multiplied and folded.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a hash may lose bits")]
pub(crate) fn hash(parent: u32, name: &[u8]) -> usize {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(K);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = mix(u64::from(parent), name.len() as u64 ^ K);
    for word in name.as_chunks::<8>().0 {
        state = mix(state, u64::from_le_bytes(*word));
    }
    mix(state, tail(name)) as usize
}

/// The bytes behind the last whole eight, as a number. Loads overlap rather than go byte by byte, and nothing is
/// copied: of a short name this is most of the work.
#[inline]
fn tail(name: &[u8]) -> u64 {
    let len = name.len();
    let rest = len % 8;
    match (name.last_chunk::<8>(), name.first_chunk::<4>(), name.last_chunk::<4>()) {
        _ if rest == 0 => 0,
        (Some(last), ..) => u64::from_le_bytes(*last) >> (64 - 8 * rest),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (rest - 4))
        }
        _ => [0, rest / 2, rest - 1].into_iter().fold(0, |all, at| all | u64::from(name[at]) << (8 * at)),
    }
}

/// Whether two names are one, by loads that overlap.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((words, _), (others, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    words.iter().zip(others).all(|(word, other)| u64::from_le_bytes(*word) == u64::from_le_bytes(*other))
        && tail(a) == tail(b)
}

/// The sum of a table's bytes after the header: eight at a time, in four lanes that the processor works on at once. It
/// finds damage; against malice only the owner of the file and its directory help.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| (state ^ word).wrapping_mul(K).rotate_left(29);
    let mut lanes = [1_u64, 2, 3, 4];
    let (blocks, tail) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let mut last = [0; 32];
    last[..tail.len()].copy_from_slice(tail);
    for (lane, word) in lanes.iter_mut().zip(last.as_chunks::<8>().0) {
        *lane = mix(*lane, u64::from_le_bytes(*word));
    }
    lanes.into_iter().fold(bytes.len() as u64, mix)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Result<u32, NotATable> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes).ok_or(NotATable)
}

/// As [`u32_at`], for places known to be inside (0 otherwise).
#[inline]
fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32_at(bytes, at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{same, tail};

    /// Tables that were written before must be read: what overlapping loads give is what bytes one by one would.
    #[test]
    fn overlapping_loads_read_every_byte_of_a_name_once() {
        let text: [u8; 40] = core::array::from_fn(|at| u8::try_from(at * 37 % 251 + 1).unwrap_or(1));
        for len in 0..=text.len() {
            let name = &text[..len];
            let rest = name.as_chunks::<8>().1;
            let expected = rest.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
            assert_eq!(tail(name), expected, "of {len} bytes");
            let mut other = text;
            assert!(same(name, &other[..len]));
            for at in 0..len {
                other[at] ^= 0x80;
                assert!(!same(name, &other[..len]), "byte {at} of {len}");
                other[at] ^= 0x80;
            }
        }
    }
}
