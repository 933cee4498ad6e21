//! The memory of a walk: fixed buffers that the caller owns, so that nothing is allocated and little stack is used.

use core::ffi::CStr;

use crate::Errno;

/// Longest path that the kernel takes in one system call, with its NUL.
pub const PATH_MAX: usize = 4096;

/// Longest name of one component.
pub const NAME_MAX: usize = 255;

/// Room for a path while walking. Twice `PATH_MAX`: a host path is a root and a guest path.
pub(crate) const ROOM: usize = 2 * PATH_MAX;

/// Where a walk works and leaves its answer: about 28 KiB, reusable without clearing.
///
/// Make it once per thread (or per agent stack), not on a small stack.
#[derive(Debug)]
pub struct Buffers {
    /// Host path of the current place, without a trailing slash; the host's root is empty.
    pub(crate) host: PathBuf,
    /// Guest path of the current place, likewise.
    pub(crate) guest: PathBuf,
    /// What is still to be walked, at the *end* of the buffer: a link's target is put in front of it.
    pub(crate) pending: Pending,
    /// A link's target as read.
    pub(crate) link: [u8; PATH_MAX],
}

impl Buffers {
    /// Empty buffers; `const`, so that they can be a static.
    #[must_use]
    pub const fn new() -> Self {
        Self { host: PathBuf::new(), guest: PathBuf::new(), pending: Pending::new(), link: [0; PATH_MAX] }
    }
}

impl Buffers {
    /// Host path of the place that the last walk came to, also if it failed there.
    #[must_use]
    pub fn stopped_at(&self) -> &[u8] {
        self.host.as_bytes()
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// A growing path, always followed by a NUL.
#[derive(Debug)]
pub(crate) struct PathBuf {
    bytes: [u8; ROOM],
    len: usize,
}

impl PathBuf {
    const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn set(&mut self, path: &[u8]) -> Result<(), Errno> {
        self.len = 0;
        self.append(path)
    }

    pub(crate) fn append(&mut self, text: &[u8]) -> Result<(), Errno> {
        let end = self.len + text.len();
        if end >= ROOM {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes[self.len..end].copy_from_slice(text);
        self.bytes[end] = 0;
        self.len = end;
        Ok(())
    }

    /// Appends `/name`.
    pub(crate) fn push(&mut self, name: &[u8]) -> Result<(), Errno> {
        self.append(b"/")?;
        self.append(name)
    }

    /// Removes the last component.
    pub(crate) fn pop(&mut self) {
        let end = self.as_bytes().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.truncate(end);
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = len;
        self.bytes[len] = 0;
    }

    /// The path for a system call; the empty path is the root.
    pub(crate) fn as_c_str(&self) -> &CStr {
        if self.len == 0 {
            return c"/";
        }
        // Guest paths and link targets hold no NUL (they come as NUL-terminated strings); a View's own paths are checked
        // when it is made. Cutting at a NUL is what the kernel would do.
        CStr::from_bytes_until_nul(&self.bytes[..=self.len]).unwrap_or(c"/")
    }
}

/// Text yet to be walked, kept at the end of its buffer.
#[derive(Debug)]
pub(crate) struct Pending {
    bytes: [u8; ROOM],
    start: usize,
}

impl Pending {
    const fn new() -> Self {
        Self { bytes: [0; ROOM], start: ROOM }
    }

    pub(crate) fn clear(&mut self) {
        self.start = ROOM;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The unused part of the buffer, for short use.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.start]
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Takes back what was dropped since it started there, nothing having been put before it meanwhile.
    pub(crate) fn rewind(&mut self, start: usize) {
        self.start = start;
    }

    /// Drops the first `count` bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        self.start += count;
    }

    pub(crate) fn put_before(&mut self, text: &[u8]) -> Result<(), Errno> {
        let start = self.start.checked_sub(text.len()).ok_or(Errno::ENAMETOOLONG)?;
        self.bytes[start..self.start].copy_from_slice(text);
        self.start = start;
        Ok(())
    }
}
