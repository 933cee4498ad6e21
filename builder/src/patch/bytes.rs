//! Bytes of a file of the tree, read without believing what the file says about itself.

use std::io;

use crate::flatten::Data;

/// Bytes of headers, of names or of a dynamic section that are read at once: far above any real ones.
pub(super) const MOST: u64 = 1 << 16;

/// A file of the tree.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) data: &'a Data,
    pub(super) size: u64,
}

impl Bytes<'_> {
    /// Bytes of the file, or `None` if it does not have them or they are absurdly many.
    pub(super) fn get(&self, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        self.get_most(at, len, MOST)
    }

    /// As [`get`](Self::get), with another idea of what is absurd.
    pub(super) fn get_most(&self, at: u64, len: u64, most: u64) -> io::Result<Option<Vec<u8>>> {
        if len > most || at.checked_add(len).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        let mut bytes = vec![0; len];
        self.data.read_exact_at(&mut bytes, at)?;
        Ok(Some(bytes))
    }

    /// The string at an offset, up to its NUL byte, if it has one within [`MOST`] bytes.
    pub(super) fn string(&self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let (mut len, mut before) = (256, 0);
        loop {
            let there = len.min(self.size.saturating_sub(at));
            let Some(mut bytes) = self.get(at, there)? else { return Ok(None) };
            if let Some(end) = bytes[before..].iter().position(|byte| *byte == 0) {
                bytes.truncate(before + end);
                return Ok(Some(bytes));
            }
            if there < len || len >= MOST {
                return Ok(None);
            }
            (len, before) = (len * 4, bytes.len());
        }
    }
}

/// A little-endian number of 2, 4 or 8 bytes within `bytes`.
pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    Some(u64::from_le_bytes(word))
}
