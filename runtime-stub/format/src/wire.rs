//! Little-endian fields in and out of byte strings, with every length checked.

use crate::FormatError;

/// Takes fields off the front of a byte string.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { rest: bytes, part }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Short { part: self.part })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Short { part: self.part })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A byte string behind its length as u32.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    /// A count of records that each take at least `least` bytes: refused if the rest could not hold them, so that a
    /// hostile count reserves no memory.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, FormatError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least) > self.rest.len() {
            return Err(FormatError::Short { part: self.part });
        }
        Ok(count)
    }

    pub(crate) fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::corrupt(self.part, format!("{} bytes too many", self.rest.len())))
        }
    }
}

/// Appends a byte string behind its length as u32. The builder keeps paths and attributes far below 4 GiB.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_count(out, string.len());
    out.extend_from_slice(string);
}

/// Appends a count as u32.
///
/// # Panics
/// On a count of 2^32 or more, which no writer here produces (limits of the builder are far below).
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("the builder's limits keep counts below 2^32");
    out.extend_from_slice(&count.to_le_bytes());
}
