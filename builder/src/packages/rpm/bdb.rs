//! Berkeley DB's hash container (`dbinc/db_page.h`): pages of keys and values in turn; a header is too long for a page,
//! so its value says in which chain of overflow pages it is.

const MAGIC: u32 = 0x0006_1561;
/// Bytes of a page's own header.
const HEAD: usize = 26;
/// Kinds of pages.
const HASH: [u8; 2] = [2, 13];
const OVERFLOW: u8 = 7;
/// Kinds of values.
const OFF_PAGE: u8 = 3;
/// The largest page that Berkeley DB makes.
const MOST: usize = 64 << 10;

/// All headers; none if the file is no such container.
pub(super) fn headers(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let magic: [u8; 4] = *file.get(12..)?.first_chunk()?;
    let big_endian = match magic {
        magic if u32::from_le_bytes(magic) == MAGIC => false,
        magic if u32::from_be_bytes(magic) == MAGIC => true,
        _ => return None,
    };
    let size = Pages { file, size: 1, big_endian }.long(file, 20)?;
    let pages = Pages { file, size: Some(size).filter(|size| (512..=MOST).contains(size))?, big_endian };
    let mut found = Vec::new();
    for page in file.chunks_exact(pages.size).skip(1) {
        if !HASH.contains(&page[25]) {
            continue;
        }
        // Keys have even numbers, values odd ones.
        for value in (1..pages.short(page, 20)?).step_by(2) {
            let at = pages.short(page, HEAD + 2 * value)?;
            if *page.get(at)? == OFF_PAGE {
                found.push(pages.chain(pages.long(page, at + 4)?, pages.long(page, at + 8)?)?);
            }
        }
    }
    Some(found)
}

struct Pages<'a> {
    file: &'a [u8],
    size: usize,
    big_endian: bool,
}

impl Pages<'_> {
    fn short(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(usize::from(if self.big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) }))
    }

    fn long(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let word = *bytes.get(at..)?.first_chunk()?;
        usize::try_from(if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }).ok()
    }

    /// What the overflow pages from `number` on hold.
    fn chain(&self, mut number: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let start = number.checked_mul(self.size).filter(|_| number != 0)?;
            let page = self.file.get(start..)?.get(..self.size)?;
            // Every page has something, so a chain that bites its tail ends, too.
            let here = page.get(HEAD..)?.get(..self.short(page, 22)?).filter(|here| !here.is_empty())?;
            if page[25] != OVERFLOW {
                return None;
            }
            bytes.extend_from_slice(here);
            number = self.long(page, 16)?;
        }
        (bytes.len() == len).then_some(bytes)
    }
}
