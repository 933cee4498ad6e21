//! Which bytes of the tree go into which frame.
//!
//! Members follow each other in path order. A frame takes whole members up to [`FRAME`] bytes; a larger member is cut into
//! frames of its own. Nothing but the tree decides.

use std::collections::HashMap;

use coracle_format::{Content, Entry, Kind, tar};

use super::PackError;
use crate::flatten::{InodeId, InodeKind, Tree};

/// Bytes of tar in a frame. Larger compresses better; smaller spreads over more cores and holds less in memory.
pub(super) const FRAME: u32 = 4 << 20;

/// Zero bytes at the end of every tar.
const END: u32 = 1024;

/// The tree cut into frames.
pub(super) struct Layout {
    /// The index's entries.
    pub(super) entries: Vec<Entry>,
    /// The inode behind each entry.
    pub(super) inodes_of: Vec<InodeId>,
    /// What each frame holds.
    pub(super) frames: Vec<Plan>,
    /// Bytes of the unpacked files.
    pub(super) unpacked: u64,
    /// Inodes that unpacking makes.
    pub(super) inodes: u64,
    /// For the manifest.
    pub(super) notes: Vec<String>,
}

/// What one frame holds.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) pieces: Vec<Piece>,
    /// Their sum.
    pub(super) len: u32,
}

/// A run of bytes in a frame.
pub(super) enum Piece {
    /// The tar header of an entry; extended headers too.
    Header { entry: usize },
    /// Bytes of an entry's file.
    Bytes { entry: usize, offset: u64, len: u32 },
    /// Padding.
    Zeros { len: u32 },
}

/// Cuts the tree into frames.
pub(super) fn plan(tree: &Tree) -> Result<Layout, PackError> {
    let mut cutter = Cutter::default();
    let mut first_names: HashMap<InodeId, usize> = HashMap::new();
    let mut layout = Layout {
        entries: Vec::with_capacity(tree.paths.len()),
        inodes_of: Vec::with_capacity(tree.paths.len()),
        frames: Vec::new(),
        unpacked: 0,
        inodes: 0,
        notes: Vec::new(),
    };
    let mut devices = Vec::new();
    for (path, &id) in &tree.paths {
        let wrong = |why| PackError::Tree { path: String::from_utf8_lossy(path).into_owned(), why };
        let number = layout.entries.len();
        let inode = tree.inodes.get(id.0 as usize).ok_or_else(|| wrong("it has no inode"))?;
        let first = *first_names.entry(id).or_insert(number);
        let kind = match &inode.kind {
            InodeKind::Directory if first != number => return Err(wrong("a directory has two names")),
            InodeKind::Directory => Kind::Directory,
            InodeKind::File { .. } if first != number => {
                Kind::HardLink { entry: u32::try_from(first).map_err(|_| PackError::IndexTooLarge)? }
            }
            InodeKind::File { size, .. } => Kind::File { size: *size, content: Content { frame: 0, offset: 0 } },
            // Two names of any other kind become two files: the index links only to files, and none of these can tell.
            InodeKind::Symlink(target) => Kind::Symlink { target: target.clone() },
            InodeKind::Fifo => Kind::Fifo,
            InodeKind::CharDevice(major, minor) => Kind::CharDevice { major: *major, minor: *minor },
            InodeKind::BlockDevice(major, minor) => Kind::BlockDevice { major: *major, minor: *minor },
        };
        let mut entry = Entry {
            path: path.clone(),
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: inode.xattrs.clone(),
            kind,
        };
        match &mut entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => devices.push(String::from_utf8_lossy(path)),
            kind => {
                let size = match kind {
                    Kind::File { size, .. } => *size,
                    _ => 0,
                };
                layout.inodes += u64::from(first == number);
                layout.unpacked = layout.unpacked.checked_add(size).ok_or_else(|| wrong("its size is absurd"))?;
                let header = tar::header(&entry, |first| layout.entries.get(first).map(|entry| &entry.path[..])).len();
                let header = u32::try_from(header).map_err(|_| wrong("its attributes are too large"))?;
                let start = cutter.member(number, header, size)?;
                if let Kind::File { content, .. } = &mut entry.kind {
                    *content = start;
                }
            }
        }
        layout.entries.push(entry);
        layout.inodes_of.push(id);
    }
    if layout.entries.first().is_none_or(|root| !root.path.is_empty() || root.kind != Kind::Directory) {
        return Err(PackError::Tree { path: String::new(), why: "it has no root directory" });
    }
    layout.frames = cutter.finish();
    layout.notes.extend(note_devices(&devices));
    Ok(layout)
}

fn note_devices(devices: &[std::borrow::Cow<'_, str>]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown: Vec<String> = devices.iter().take(SHOWN).map(|path| format!("/{path}")).collect();
    let more = if devices.len() > SHOWN { ", …" } else { "" };
    (!devices.is_empty())
        .then(|| format!("{} device nodes are recorded and not unpacked: {}{more}", devices.len(), shown.join(", ")))
}

/// Takes members one by one and cuts them into frames.
#[derive(Default)]
struct Cutter {
    done: Vec<Plan>,
    open: Plan,
}

impl Cutter {
    /// Adds a member of `header` bytes before `size` bytes of content, which is padded. Says where the content starts.
    fn member(&mut self, entry: usize, header: u32, size: u64) -> Result<Content, PackError> {
        let padding = u32::try_from(size.next_multiple_of(512) - size).expect("less than a block");
        let whole = u64::from(header) + size + u64::from(padding);
        if u64::from(self.open.len) + whole > u64::from(FRAME) {
            self.close();
        }
        self.push(Piece::Header { entry }, header);
        if self.open.len >= FRAME {
            self.close();
        }
        let frame = u32::try_from(self.done.len()).map_err(|_| PackError::IndexTooLarge)?;
        let start = Content { frame, offset: self.open.len };
        let mut offset = 0;
        while offset < size {
            if self.open.len >= FRAME {
                self.close();
            }
            let room = FRAME - self.open.len;
            let len = u32::try_from(size - offset).map_or(room, |left| left.min(room));
            self.push(Piece::Bytes { entry, offset, len }, len);
            offset += u64::from(len);
        }
        self.push(Piece::Zeros { len: padding }, padding);
        if whole > u64::from(FRAME) {
            self.close();
        }
        Ok(start)
    }

    fn push(&mut self, piece: Piece, len: u32) {
        if len > 0 {
            self.open.pieces.push(piece);
            self.open.len += len;
        }
    }

    fn close(&mut self) {
        if self.open.len > 0 {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn finish(mut self) -> Vec<Plan> {
        self.push(Piece::Zeros { len: END }, END);
        self.close();
        self.done
    }
}
