//! Tar headers: ustar, with a PAX extended header before it for what ustar cannot hold.
//!
//! Written here and not by a crate, because the bytes must be the same for ever, names may be any bytes, and headers must
//! be made again for any one entry alone: frames are filled in parallel, and whoever verifies a bundle makes the headers
//! again from the index and compares.

use std::io::Write as _;

use crate::{Entry, Kind};

/// Name of every extended header; tools that know PAX never show it.
const PAX_NAME: &[u8] = b"././@PaxHeader";

const BLOCK: usize = 512;

/// The header blocks of an entry. `path_of` gives the path of the entry that a hard link names.
#[must_use]
pub fn header<'a>(entry: &Entry, path_of: impl Fn(usize) -> Option<&'a [u8]>) -> Vec<u8> {
    let mut name = if entry.path.is_empty() { b"./".to_vec() } else { entry.path.clone() };
    let (tag, size, link) = match &entry.kind {
        Kind::Directory => {
            if !entry.path.is_empty() {
                name.push(b'/');
            }
            (b'5', 0, &[][..])
        }
        Kind::File { size, .. } => (b'0', *size, &[][..]),
        Kind::Symlink { target } => (b'2', 0, &target[..]),
        Kind::HardLink { entry } => (b'1', 0, path_of(*entry as usize).unwrap_or_default()),
        Kind::Fifo => (b'6', 0, &[][..]),
        Kind::CharDevice { .. } => (b'3', 0, &[][..]),
        Kind::BlockDevice { .. } => (b'4', 0, &[][..]),
    };

    let mut block = Block::new(tag);
    let mut pax = Vec::new();
    if !block.name(&name) {
        record(&mut pax, b"path", &name);
    }
    if !block.text(LINK, link) {
        record(&mut pax, b"linkpath", link);
    }
    block.number(MODE, u64::from(entry.mode));
    for (field, key, value) in
        [(UID, "uid", u64::from(entry.uid)), (GID, "gid", u64::from(entry.gid)), (SIZE, "size", size)]
    {
        if !block.number(field, value) {
            record(&mut pax, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(entry.mtime.seconds);
    let whole = seconds.is_ok_and(|seconds| block.number(MTIME, seconds)) && entry.mtime.nanoseconds == 0;
    if !whole {
        record(&mut pax, b"mtime", decimal(entry.mtime.seconds, entry.mtime.nanoseconds).as_bytes());
    }
    for xattr in &entry.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", &xattr.name[..]].concat(), &xattr.value);
    }

    let mut out = Vec::with_capacity(BLOCK);
    if !pax.is_empty() {
        let mut head = Block::new(b'x');
        head.name(PAX_NAME);
        head.number(MODE, 0o644);
        head.number(SIZE, pax.len() as u64);
        out.extend_from_slice(&head.finish());
        out.extend_from_slice(&pax);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.extend_from_slice(&block.finish());
    out
}

/// Seconds with a fraction, as PAX has times. -1.25 is 2 seconds before the epoch and 750 milliseconds after that.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, part) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - part),
        (false, part) => ("", seconds.unsigned_abs(), part),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{len} ");
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

type Field = std::ops::Range<usize>;
const NAME: Field = 0..100;
const MODE: Field = 100..108;
const UID: Field = 108..116;
const GID: Field = 116..124;
const SIZE: Field = 124..136;
const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const TAG: usize = 156;
const LINK: Field = 157..257;
const MAGIC: Field = 257..265;
const DEVICE_NUMBERS: [Field; 2] = [329..337, 337..345];
const PREFIX: Field = 345..500;

/// One ustar header block.
struct Block([u8; BLOCK]);

impl Block {
    fn new(tag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.0[TAG] = tag;
        block.0[MAGIC].copy_from_slice(b"ustar\x0000");
        for field in [UID, GID, SIZE, MTIME].into_iter().chain(DEVICE_NUMBERS) {
            block.number(field, 0);
        }
        block
    }

    /// Puts bytes into a field, or as many as fit, which it says by `false`.
    fn text(&mut self, field: Field, text: &[u8]) -> bool {
        let fits = text.len().min(field.len());
        self.0[field.start..field.start + fits].copy_from_slice(&text[..fits]);
        fits == text.len()
    }

    /// Puts a path into name and, cut at a slash, prefix.
    fn name(&mut self, path: &[u8]) -> bool {
        if path.len() <= NAME.len() {
            return self.text(NAME, path);
        }
        let cut = (1..path.len() - 1)
            .find(|&at| path[at] == b'/' && path.len() - at - 1 <= NAME.len())
            .filter(|&at| at <= PREFIX.len());
        match cut {
            Some(at) => self.text(PREFIX, &path[..at]) && self.text(NAME, &path[at + 1..]),
            None => self.text(NAME, path),
        }
    }

    /// Puts an octal number into a field; `false`, and 0 in the field, if it has too many digits.
    fn number(&mut self, field: Field, value: u64) -> bool {
        let digits = field.len() - 1;
        let text = format!("{value:0digits$o}");
        let fits = text.len() == digits;
        let text = if fits { text } else { "0".repeat(digits) };
        self.0[field.start..field.end - 1].copy_from_slice(text.as_bytes());
        fits
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[CHECKSUM].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}
