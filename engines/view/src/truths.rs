//! What an image says of its files that a shared tree on disk does not show: true modes and owners.
//!
//! Files of a shared tree have lost their write and set-id bits, and all of them belong to whoever unpacked. The list is
//! written beside the tree while it is unpacked: [`MAGIC`], 32 bytes that name the image, then for each file and directory
//! mode u16, uid u32, gid u32, length of its path u16 and the path below the root (little-endian).

use std::collections::HashMap;

/// First bytes of the list; the digit is the version.
pub const MAGIC: [u8; 8] = *b"CORTRUE1";

/// A file as the image has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// `mode & 0o7777`.
    pub mode: u16,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The list's bytes.
pub fn write<'a>(image: &[u8; 32], files: impl IntoIterator<Item = (&'a [u8], Truth)>) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend_from_slice(image);
    for (path, truth) in files {
        // No path of a system call is longer; what nobody can open needs no mode.
        let Ok(len) = u16::try_from(path.len()) else { continue };
        bytes.extend_from_slice(&truth.mode.to_le_bytes());
        bytes.extend_from_slice(&truth.uid.to_le_bytes());
        bytes.extend_from_slice(&truth.gid.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(path);
    }
    bytes
}

/// A list, read.
#[derive(Debug)]
pub(crate) struct Truths<'a> {
    pub(crate) image: [u8; 32],
    files: HashMap<&'a [u8], Truth>,
}

impl<'a> Truths<'a> {
    /// `None` if the bytes are no list, or end too soon.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (image, mut rest) = rest.split_first_chunk::<32>()?;
        let mut files = HashMap::with_capacity(bytes.len() / 40);
        while let Some((head, more)) = rest.split_first_chunk::<12>() {
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let truth = Truth { mode: u16::from_le_bytes([head[0], head[1]]), uid: word(2), gid: word(6) };
            let len = usize::from(u16::from_le_bytes([head[10], head[11]]));
            let (path, more) = more.split_at_checked(len)?;
            files.insert(path, truth);
            rest = more;
        }
        rest.is_empty().then_some(Self { image: *image, files })
    }

    pub(crate) fn of(&self, path: &[u8]) -> Option<Truth> {
        self.files.get(path).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let one = Truth { mode: 0o4755, uid: 0, gid: 42 };
        let bytes = write(&[7; 32], [(&b""[..], one), (&b"usr/bin/passwd"[..], Truth { gid: 1, ..one })]);
        let list = Truths::read(&bytes).expect("a list");
        assert_eq!(list.image, [7; 32]);
        assert_eq!(list.of(b"").map(|truth| truth.gid), Some(42));
        assert_eq!(list.of(b"usr/bin/passwd"), Some(Truth { gid: 1, ..one }));
        assert_eq!(list.of(b"usr"), None);
        for cut in [5, 39, 41, bytes.len() - 1] {
            assert!(Truths::read(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }
}
