//! Files of which a part is looked at, without a copy of the whole.

use std::{fs::File, os::fd::AsRawFd, ptr::NonNull, slice};

const MOST: usize = 64 << 20;

/// A file in memory.
pub(crate) struct Mapped {
    at: NonNull<libc::c_void>,
    len: usize,
}

impl Mapped {
    /// Maps a regular file that is neither empty nor absurdly large.
    pub(crate) fn new(file: &File) -> Option<Self> {
        let len = usize::try_from(file.metadata().ok().filter(std::fs::Metadata::is_file)?.len()).ok()?;
        if len == 0 || len > MOST {
            return None;
        }
        // SAFETY: a new private mapping at a place of the kernel's choice.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        (at != libc::MAP_FAILED).then_some(())?;
        Some(Self { at: NonNull::new(at)?, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, as long as that, until it is dropped. Files of a tree, and ours, are replaced and not cut
        // short; who does so in a tree of his own ends this process as any that uses that library.
        unsafe { slice::from_raw_parts(self.at.as_ptr().cast(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and the last reference to its bytes has ended.
        unsafe { libc::munmap(self.at.as_ptr(), self.len) };
    }
}

/// Whether bytes have a string in them.
pub(crate) fn has(bytes: &[u8], what: &[u8]) -> bool {
    // SAFETY: two live slices with their lengths (memmem(3)); nothing is written.
    !unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), what.as_ptr().cast(), what.len()) }.is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_wherever_they_are() {
        for (what, is) in [("abc", true), ("c", true), ("bcd", false), ("", true), ("abcd", false)] {
            assert_eq!(has(b"aababc", what.as_bytes()), is, "{what}");
        }
        assert!(!has(b"", b"a"));
    }
}
