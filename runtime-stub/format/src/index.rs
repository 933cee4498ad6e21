//! The index: every frame and every file of the tree. It is authoritative; the tar headers are for other tools.
//!
//! Rules, checked by [`Index::decode`]:
//! - paths are relative, without `.`, `..`, empty components or NUL, strictly ascending as byte strings; the root
//!   directory is the empty path and comes first; every other path's parent is a directory entry before it;
//! - a hard link names an earlier entry that is a file;
//! - content lies inside the frames.

use crate::{
    Digest, FixupSet, FormatError,
    wire::{Reader, put_count, put_string},
};

const PART: &str = "index";
const MAGIC: [u8; 8] = *b"CORINDEX";

/// The decoded index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Frames of the payload, in file order.
    pub frames: Vec<Frame>,
    /// Files of the tree, in path order.
    pub entries: Vec<Entry>,
    /// Edits per engine.
    pub fixups: Vec<FixupSet>,
}

/// One zstd frame of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Offset from P.
    pub offset: u64,
    /// Length as stored.
    pub stored: u32,
    /// Length once decompressed.
    pub len: u32,
    /// SHA-256 of the stored bytes: checked before the decompressor sees them.
    pub digest: Digest,
}

/// One file of the tree, of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root, without a leading slash; any bytes but NUL. The root itself is empty.
    pub path: Vec<u8>,
    /// Permission bits with set-id and sticky bits: `mode & 0o7777`.
    pub mode: u16,
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// What it is.
    pub kind: Kind,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name, such as `user.comment`.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// 0–999,999,999.
    pub nanoseconds: u32,
}

/// Where a file's bytes are: they run on from here through as many frames as its size needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Number of the first frame.
    pub frame: u32,
    /// Offset in the decompressed first frame.
    pub offset: u32,
}

/// Kinds of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of `size` bytes; `content` means nothing if it is empty.
    File {
        /// Length in bytes.
        size: u64,
        /// Where its bytes start.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, any bytes but NUL.
        target: Vec<u8>,
    },
    /// Another name of an earlier file.
    HardLink {
        /// Number of that file's entry.
        entry: u32,
    },
    /// A named pipe.
    Fifo,
    /// A character device: recorded, in no tar, never made by unpacking.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device: as a character device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Index {
    /// The index's bytes, before compression.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 * self.entries.len() + 48 * self.frames.len());
        out.extend_from_slice(&MAGIC);
        put_count(&mut out, self.frames.len());
        put_count(&mut out, self.entries.len());
        put_count(&mut out, self.fixups.len());
        for frame in &self.frames {
            out.extend_from_slice(&frame.offset.to_le_bytes());
            out.extend_from_slice(&frame.stored.to_le_bytes());
            out.extend_from_slice(&frame.len.to_le_bytes());
            out.extend_from_slice(&frame.digest);
        }
        for entry in &self.entries {
            entry.encode(&mut out);
        }
        for set in &self.fixups {
            set.encode(&mut out);
        }
        out
    }

    /// Reads and checks an index.
    ///
    /// # Errors
    /// Any rule of the module header that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, PART);
        if reader.array::<8>()? != MAGIC {
            return Err(FormatError::Missing { part: PART });
        }
        let (frames_count, entries_count, fixups_count) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let mut index = Self::default();
        let mut end = 0;
        for _ in 0..frames_count {
            let frame =
                Frame { offset: reader.u64()?, stored: reader.u32()?, len: reader.u32()?, digest: reader.array()? };
            if frame.offset != end {
                return Err(FormatError::corrupt(PART, "the frames do not follow each other"));
            }
            end = frame
                .offset
                .checked_add(u64::from(frame.stored))
                .ok_or_else(|| FormatError::corrupt(PART, "a frame ends beyond the largest file"))?;
            index.frames.push(frame);
        }
        for _ in 0..entries_count {
            let entry = Entry::decode(&mut reader)?;
            index.check_order(&entry)?;
            index.entries.push(entry);
        }
        index.check_contents()?;
        for _ in 0..fixups_count {
            index.fixups.push(FixupSet::decode(&mut reader, &index.entries)?);
        }
        reader.finish()?;
        Ok(index)
    }

    /// Number of the entry at `path`.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok()
    }

    /// Path rules for the next entry, given those before it.
    fn check_order(&self, entry: &Entry) -> Result<(), FormatError> {
        let shown = || String::from_utf8_lossy(&entry.path).into_owned();
        let Some(last) = self.entries.last() else {
            return if entry.path.is_empty() && entry.kind == Kind::Directory {
                Ok(())
            } else {
                Err(FormatError::corrupt(PART, "the first entry is not the root directory"))
            };
        };
        if last.path >= entry.path {
            return Err(FormatError::corrupt(PART, format!("{} is out of order", shown())));
        }
        let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if !entry.path.split(|byte| *byte == b'/').all(plain) {
            return Err(FormatError::corrupt(PART, format!("{} is no plain relative path", shown())));
        }
        let parent = entry.path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &entry.path[..at]);
        match self.find(parent) {
            Some(at) if self.entries[at].kind == Kind::Directory => Ok(()),
            _ => Err(FormatError::corrupt(PART, format!("the parent of {} is no directory", shown()))),
        }
    }

    /// Hard links lead back to files, and contents lie inside the frames.
    fn check_contents(&self) -> Result<(), FormatError> {
        // starts[n]: bytes of the decompressed payload before frame n.
        let mut starts = Vec::with_capacity(self.frames.len() + 1);
        let mut total = 0_u64;
        for frame in &self.frames {
            starts.push(total);
            total += u64::from(frame.len);
        }
        for (number, entry) in self.entries.iter().enumerate() {
            let fine = match entry.kind {
                Kind::HardLink { entry: to } => {
                    (to as usize) < number && matches!(self.entries[to as usize].kind, Kind::File { .. })
                }
                Kind::File { size, content } if size > 0 => starts.get(content.frame as usize).is_some_and(|start| {
                    content.offset < self.frames[content.frame as usize].len
                        && size <= total - start - u64::from(content.offset)
                }),
                _ => true,
            };
            if !fine {
                let path = String::from_utf8_lossy(&entry.path);
                return Err(FormatError::corrupt(PART, format!("{path} points outside the payload")));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind.tag());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        put_string(out, &self.path);
        put_count(out, self.xattrs.len());
        for xattr in &self.xattrs {
            put_string(out, &xattr.name);
            put_string(out, &xattr.value);
        }
        match &self.kind {
            Kind::Directory | Kind::Fifo => {}
            Kind::File { size, content } => {
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&content.frame.to_le_bytes());
                out.extend_from_slice(&content.offset.to_le_bytes());
            }
            Kind::Symlink { target } => put_string(out, target),
            Kind::HardLink { entry } => out.extend_from_slice(&entry.to_le_bytes()),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                out.extend_from_slice(&major.to_le_bytes());
                out.extend_from_slice(&minor.to_le_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let tag = reader.u8()?;
        let (mode, uid, gid) = (reader.u16()?, reader.u32()?, reader.u32()?);
        let mtime = Time { seconds: reader.i64()?, nanoseconds: reader.u32()? };
        if mode > 0o7777 || mtime.nanoseconds > 999_999_999 {
            return Err(FormatError::corrupt(PART, "a mode or a time is out of range"));
        }
        let path = reader.string()?.to_vec();
        let count = reader.count(8)?;
        let mut xattrs = Vec::with_capacity(count);
        for _ in 0..count {
            xattrs.push(Xattr { name: reader.string()?.to_vec(), value: reader.string()?.to_vec() });
        }
        let kind = match tag {
            b'd' => Kind::Directory,
            b'f' => {
                Kind::File { size: reader.u64()?, content: Content { frame: reader.u32()?, offset: reader.u32()? } }
            }
            b'l' => Kind::Symlink { target: reader.string()?.to_vec() },
            b'h' => Kind::HardLink { entry: reader.u32()? },
            b'p' => Kind::Fifo,
            b'c' => Kind::CharDevice { major: reader.u32()?, minor: reader.u32()? },
            b'b' => Kind::BlockDevice { major: reader.u32()?, minor: reader.u32()? },
            other => return Err(FormatError::corrupt(PART, format!("unknown kind of file {other}"))),
        };
        Ok(Self { path, mode, uid, gid, mtime, xattrs, kind })
    }
}

impl Kind {
    fn tag(&self) -> u8 {
        match self {
            Self::Directory => b'd',
            Self::File { .. } => b'f',
            Self::Symlink { .. } => b'l',
            Self::HardLink { .. } => b'h',
            Self::Fifo => b'p',
            Self::CharDevice { .. } => b'c',
            Self::BlockDevice { .. } => b'b',
        }
    }
}
