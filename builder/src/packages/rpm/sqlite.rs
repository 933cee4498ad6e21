//! SQLite's container (sqlite.org/fileformat2.html): the rows of the table `Packages`, whose second column is the header.

use super::big;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Kinds of pages.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// All headers; none if the file is no such container, or is damaged.
pub(super) fn headers(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let size = match short(file, 16)? {
        1 => 65_536,
        size => size,
    };
    let reserved = usize::from(*file.get(20)?);
    let usable = size.checked_sub(reserved).filter(|usable| *usable >= 480)?;
    let file = File { bytes: file, size, usable };
    let mut schema = Vec::new();
    file.rows(1, &mut 0, &mut schema)?;
    let root = schema.iter().find_map(|row| {
        let columns = columns(row)?;
        let is = |at: usize, text: &[u8]| columns.get(at).is_some_and(|column| *column == text);
        (is(0, b"table") && is(1, b"Packages")).then(|| integer(columns.get(3)?))?
    })?;
    let mut rows = Vec::new();
    file.rows(root, &mut 0, &mut rows)?;
    rows.iter().map(|row| Some(columns(row)?.get(1)?.to_vec())).collect()
}

struct File<'a> {
    bytes: &'a [u8],
    size: usize,
    /// Bytes of a page that are SQLite's.
    usable: usize,
}

impl<'a> File<'a> {
    /// A page by its number, which counts from 1.
    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_sub(1)?.checked_mul(self.size)?;
        self.bytes.get(start..)?.get(..self.size)
    }

    /// Appends the records of a table's tree. `seen` counts pages: no file has more than it has room for.
    fn rows(&self, number: usize, seen: &mut usize, out: &mut Vec<Vec<u8>>) -> Option<()> {
        *seen += 1;
        if *seen > self.bytes.len() / self.size {
            return None;
        }
        let page = self.page(number)?;
        // The file's own header is on the first page.
        let head = if number == 1 { 100 } else { 0 };
        let (kind, cells) = (*page.get(head)?, short(page, head + 3)?);
        let pointers = head + if kind == INTERIOR { 12 } else { 8 };
        for cell in 0..cells {
            let at = short(page, pointers + 2 * cell)?;
            match kind {
                INTERIOR => self.rows(big(page, at)?, seen, out)?,
                LEAF => out.push(self.record(page, at)?),
                _ => return None,
            }
        }
        if kind == INTERIOR {
            self.rows(big(page, head + 8)?, seen, out)?;
        }
        Some(())
    }

    /// A leaf's cell: length, row number, and as much of the record as is kept here; the rest is in overflow pages.
    fn record(&self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let mut cell = page.get(at..)?;
        let len = usize::try_from(variable(&mut cell)?).ok().filter(|len| *len <= self.bytes.len())?;
        variable(&mut cell)?;
        let most = self.usable - 35;
        let least = (self.usable - 12) * 32 / 255 - 23;
        let here = match len {
            len if len <= most => len,
            len => Some(least + (len - least) % (self.usable - 4)).filter(|here| *here <= most).unwrap_or(least),
        };
        let mut record = cell.get(..here)?.to_vec();
        let mut next = if here < len { big(cell, here)? } else { 0 };
        while record.len() < len {
            let page = self.page(next)?;
            let rest = (len - record.len()).min(self.usable - 4);
            record.extend_from_slice(page.get(4..4 + rest)?);
            next = big(page, 0)?;
        }
        Some(record)
    }
}

/// The columns of a record, as bytes.
fn columns(record: &[u8]) -> Option<Vec<&[u8]>> {
    let mut head = record;
    let head_len = usize::try_from(variable(&mut head)?).ok()?;
    let mut kinds = record.get(record.len() - head.len()..head_len)?;
    let mut values = record.get(head_len..)?;
    let mut columns = Vec::new();
    while !kinds.is_empty() {
        let len = match variable(&mut kinds)? {
            0 | 8 | 9 => 0,
            kind @ 1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            kind => kind.checked_sub(12)? / 2,
        };
        let (value, rest) = values.split_at_checked(usize::try_from(len).ok()?)?;
        columns.push(value);
        values = rest;
    }
    Some(columns)
}

fn integer(bytes: &[u8]) -> Option<usize> {
    bytes.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
}

/// A number of seven bits a byte, the last of at most nine bytes has eight.
fn variable(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for count in 1.. {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if count == 9 {
            return Some(number << 8 | u64::from(*byte));
        }
        number = number << 7 | u64::from(*byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_be_bytes(*word)))
}
