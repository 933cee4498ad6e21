//! Directories as the guest lists them: with the mount points that the view has there and the host has not.
//!
//! The trick: they go behind the entries of the first call, the one that begins at offset 0, for which a part of the guest's
//! buffer is kept free. So the kernel's own offset remembers that they were given: rewinding gives them again, and seeking
//! to where any other entry ended does not. In a buffer that is too small for that, those that do not fit are left out.

use coracle_paths::PATH_MAX;

use crate::{
    Call, Errno, Guest, Outside, Rules, Scratch,
    enter::Verdict,
    leave::After,
    meaning::{Abi, Entries},
    permit::S_IFMT,
};

/// The kernel gets at least this much of the guest's buffer: a few entries of any length.
const LEAST: usize = 800;

/// How entries are laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a number.
    word: usize,
    /// The type follows the numbers; otherwise it is the last byte.
    wide: bool,
}

impl Shape {
    fn new(abi: Abi, entries: Entries) -> Self {
        let wide = entries == Entries::Wide;
        Self { word: if wide || abi == Abi::X86_64 { 8 } else { 4 }, wide }
    }

    /// Where the name begins.
    fn name_at(self) -> usize {
        2 * self.word + 2 + usize::from(self.wide)
    }

    /// Bytes of an entry with such a name: a NUL behind it, and the type there or before.
    fn len(self, name: &[u8]) -> usize {
        (self.name_at() + name.len() + 1 + usize::from(!self.wide)).next_multiple_of(self.word)
    }

    /// Writes an entry.
    fn put(self, entry: &mut [u8], inode: u64, offset: u64, kind: u8, name: &[u8]) {
        let len = entry.len();
        entry.fill(0);
        entry[..self.word].copy_from_slice(&inode.to_le_bytes()[..self.word]);
        entry[self.word..2 * self.word].copy_from_slice(&offset.to_le_bytes()[..self.word]);
        let size = u16::try_from(len).unwrap_or(0);
        entry[2 * self.word..2 * self.word + 2].copy_from_slice(&size.to_le_bytes());
        let at = self.name_at();
        entry[at..at + name.len()].copy_from_slice(name);
        entry[if self.wide { at - 1 } else { len - 1 }] = kind;
    }
}

/// getdents(2) and getdents64(2) begin.
pub(crate) fn enter<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    entries: Entries,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let shape = Shape::new(call.abi, entries);
    let (descriptor, at) = (call.int(0), call.arg(1));
    let Ok(count) = usize::try_from(call.arg(2) & 0xffff_ffff) else { return Ok(Verdict::Pass) };
    let Some(dir) = directory(rules, guest, descriptor, scratch) else { return Ok(Verdict::Pass) };
    let mut room = 0;
    for_each(rules, guest, dir, scratch, |name, _| {
        if room + shape.len(name) + LEAST <= count {
            room += shape.len(name);
        }
    });
    if room == 0 || guest.offset(descriptor)? != 0 {
        return Ok(Verdict::Pass);
    }
    call.args[2] = (count - room) as u64;
    Ok(Verdict::Make { after: After::Listing { descriptor, at, room, shape }, outside: Outside::No })
}

/// The first entries are there, `result` bytes of them: writes the others, and returns how many bytes that were.
pub(crate) fn leave<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (descriptor, at, room, shape): (i32, u64, usize, Shape),
    result: i64,
    scratch: &mut Scratch,
) -> i64 {
    // Nothing at all is listed of a directory that was removed; and where the offset stays 0, it could not remember.
    let Some(end) = u64::try_from(result).ok().filter(|end| *end > 0) else { return 0 };
    let Ok(offset) = guest.offset(descriptor) else { return 0 };
    let Some(dir) = directory(rules, guest, descriptor, scratch).filter(|_| offset != 0) else { return 0 };
    let mut written = 0;
    for_each(rules, guest, dir, scratch, |name, (inode, kind)| {
        let mut entry = [0; 320];
        let len = shape.len(name);
        let Some(entry) = entry.get_mut(..len) else { return };
        shape.put(entry, inode, offset, kind, name);
        // A buffer that became unreadable meanwhile stays as the kernel left it.
        if written + len <= room && guest.write(at + end + written as u64, entry).is_ok() {
            written += len;
        }
    });
    i64::try_from(written).unwrap_or(0)
}

/// Length of the directory's guest path in `Scratch::base`, and of its host path in `Scratch::text`.
fn directory<G: Guest>(rules: &Rules<'_>, guest: &G, descriptor: i32, scratch: &mut Scratch) -> Option<(usize, usize)> {
    let Scratch { base, text, .. } = scratch;
    let host = guest.place(Some(descriptor), &mut text[..PATH_MAX]).ok()?;
    let place = rules.view.to_guest(&text[..host], base).filter(|place| !place.deleted)?;
    Some((place.len, host))
}

/// Calls `each` with the name, inode number and type of every mount point of the directory that the host lacks there.
fn for_each<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    (dir, host): (usize, usize),
    scratch: &mut Scratch,
    mut each: impl FnMut(&[u8], (u64, u8)),
) {
    let Scratch { base, text, path, .. } = scratch;
    let dir = &base[..dir];
    let dir = if dir == b"/" { b"" } else { dir };
    for bind in rules.view.binds() {
        let name = bind.guest.strip_prefix(dir).and_then(|rest| rest.strip_prefix(b"/"));
        let Some(name) = name.filter(|name| !name.contains(&b'/')) else { continue };
        let end = host + 1 + name.len();
        if end >= text.len() || bind.host.len() >= path.len() {
            continue;
        }
        text[host] = b'/';
        text[host + 1..end].copy_from_slice(name);
        text[end] = 0;
        let there = core::ffi::CStr::from_bytes_until_nul(text).is_ok_and(|there| guest.mode(there, false).is_ok());
        if there {
            continue;
        }
        path[..bind.host.len()].copy_from_slice(bind.host);
        path[bind.host.len()] = 0;
        let file = core::ffi::CStr::from_bytes_until_nul(path).ok().and_then(|host| guest.file(host, false).ok());
        let kind = file.map_or(0, |file| u8::try_from((file.mode & S_IFMT) >> 12).unwrap_or(0));
        each(name, (file.map_or(1, |file| file.id.inode), kind));
    }
}

#[cfg(test)]
mod tests {
    use super::{Abi, Entries, Shape};

    #[test]
    fn entries_as_the_kernel_lays_them_out() {
        let wide = Shape::new(Abi::I386, Entries::Wide);
        assert_eq!((wide.len(b"abcd"), wide.len(b"abcde")), (24, 32));
        let mut entry = [9; 24];
        wide.put(&mut entry, 7, 3, 4, b"abcd");
        assert_eq!(entry, *b"\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x18\0\x04abcd\0");
        let old = Shape::new(Abi::I386, Entries::Old);
        assert_eq!((old.len(b"abcd"), Shape::new(Abi::X86_64, Entries::Old).len(b"abcd")), (16, 24));
        let mut entry = [9; 16];
        old.put(&mut entry, 7, 3, 4, b"abcd");
        assert_eq!(entry, *b"\x07\0\0\0\x03\0\0\0\x10\0abcd\0\x04");
    }
}
