//! The frames of an exported bundle: the payload's own, as they are stored, where nothing in them has changed; else new
//! ones.
//!
//! A frame of the bundle's can stay if the members that it holds follow each other in the new tree just so. Frames that
//! share a member (a large file is cut into several) stay or go together: a *group*.

use std::{fs::File, io::Write};

use coracle_format::{Content, Frame, Kind, sha256};
use zstd_safe::{CCtx, CParameter, get_error_name};

use super::{
    stream::{self, Contents, END},
    tree::{Bytes, Tree, bytes_of},
};
use crate::{actions::ActionError, open::Bundle};

/// Bytes of tar in a new frame.
const FRAME: usize = 4 << 20;

/// zstd's level for new frames: a fifth of the builder's time, a tenth more bytes.
const LEVEL: i32 = 3;

/// Frames of the bundle's with the members in them.
struct Group {
    /// Number of the first member, counted without devices, and how many.
    members: std::ops::Range<usize>,
    frames: std::ops::Range<usize>,
}

/// Where a frame's bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored {
    /// In the bundle, by number.
    Kept(usize),
    /// In the file of new ones, from here on.
    New(u64),
}

/// The frames of a tree.
pub(super) struct Frames {
    pub(super) frames: Vec<Frame>,
    pub(super) stored: Vec<Stored>,
}

/// Cuts the tree into frames, writes new ones to `spool`, and tells the entries where their bytes are.
pub(super) fn cut(bundle: &Bundle, tree: &mut Tree, spool: &mut File) -> Result<Frames, ActionError> {
    let mut contents = Contents::new(bundle);
    let groups = groups(tree);
    let members: Vec<usize> = (0..tree.entries.len()).filter(|&number| tree.has_member(number)).collect();
    let same = same(tree, &members);
    let mut cutter = Cutter::new(spool)?;
    let mut places: Vec<(usize, Content)> = Vec::new();
    let mut at = 0;
    while at < members.len() {
        let group = same[at].and_then(|first| groups.iter().find(|group| group.members.start == first));
        let whole = |group: &&Group| {
            let len = group.members.len();
            same.get(at..at + len).is_some_and(|run| run.iter().copied().eq(group.members.clone().map(Some)))
        };
        if let Some(group) = group.filter(whole) {
            cutter.close()?;
            let base = cutter.frames.len();
            for number in group.frames.clone() {
                // It must be what it says, or the new bundle would vouch for damage.
                contents.stored(tree, number)?;
                cutter.keep(tree.kept.frames[number], number);
            }
            for &number in &members[at..at + group.members.len()] {
                if let Bytes::Kept(Content { frame, offset }) = tree.bytes[number] {
                    let frame = cutter.number(base + frame as usize - group.frames.start)?;
                    places.push((number, Content { frame, offset }));
                }
            }
            at += group.members.len();
            continue;
        }
        let number = members[at];
        let header = stream::header(tree, number);
        let start = cutter.begin(&header, tree.size(number))?;
        places.push((number, start));
        contents.of(tree, number, |bytes| cutter.bytes(bytes))?;
        cutter.finish(tree.size(number))?;
        at += 1;
    }
    cutter.open.resize(cutter.open.len() + END, 0);
    cutter.close()?;
    let Cutter { frames, stored, .. } = cutter;
    for (number, place) in places {
        if let Kind::File { content, .. } = &mut tree.entries[number].kind {
            *content = place;
        }
    }
    Ok(Frames { frames, stored })
}

/// For each member of the new tree, the member of the bundle's that it is, byte for byte.
fn same(tree: &Tree, members: &[usize]) -> Vec<Option<usize>> {
    let old = Tree {
        entries: tree.kept.entries.clone(),
        bytes: tree.kept.entries.iter().map(|entry| bytes_of(&entry.kind)).collect(),
        kept: coracle_format::Index::default(),
        changed: false,
        notes: Vec::new(),
    };
    let old_members: Vec<usize> = (0..old.entries.len()).filter(|&number| old.has_member(number)).collect();
    let number_of =
        |path: &[u8]| old_members.binary_search_by(|&number| old.entries[number].path.as_slice().cmp(path)).ok();
    let is = |number: usize| {
        let member = number_of(&tree.entries[number].path)?;
        let was = old_members[member];
        let same = old.bytes[was] == tree.bytes[number] && stream::header(&old, was) == stream::header(tree, number);
        same.then_some(member)
    };
    members.iter().map(|&number| is(number)).collect()
}

/// The bundle's groups but for the last, which holds the tar's end.
fn groups(tree: &Tree) -> Vec<Group> {
    let index = &tree.kept;
    let mut ends = Vec::with_capacity(index.frames.len());
    let mut total = 0;
    for frame in &index.frames {
        total += u64::from(frame.len);
        ends.push(total);
    }
    let path_of = |first: usize| index.entries.get(first).map(|entry| &entry.path[..]);
    let (mut groups, mut position, mut member) = (Vec::new(), 0, 0);
    let (mut first_member, mut first_frame) = (0, 0);
    for entry in &index.entries {
        let size = match entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => continue,
            Kind::File { size, .. } => size,
            _ => 0,
        };
        let header = coracle_format::tar::header(entry, path_of).len();
        position += header as u64 + size.next_multiple_of(512);
        member += 1;
        if let Ok(frame) = ends.binary_search(&position) {
            groups.push(Group { members: first_member..member, frames: first_frame..frame + 1 });
            (first_member, first_frame) = (member, frame + 1);
        }
    }
    groups
}

/// Fills new frames.
struct Cutter<'a> {
    spool: &'a mut File,
    spooled: u64,
    open: Vec<u8>,
    context: CCtx<'static>,
    frames: Vec<Frame>,
    stored: Vec<Stored>,
}

impl<'a> Cutter<'a> {
    fn new(spool: &'a mut File) -> Result<Self, ActionError> {
        let open = Vec::with_capacity(FRAME);
        Ok(Self { spool, spooled: 0, open, context: compressor()?, frames: Vec::new(), stored: Vec::new() })
    }

    fn number(&self, frame: usize) -> Result<u32, ActionError> {
        u32::try_from(frame).map_err(|_| ActionError::Pack("it has too many frames"))
    }

    /// A member's header. Says where its bytes will be.
    fn begin(&mut self, header: &[u8], size: u64) -> Result<Content, ActionError> {
        let whole = header.len() as u64 + size.next_multiple_of(512);
        if self.open.len() as u64 + whole > FRAME as u64 {
            self.close()?;
        }
        self.open.extend_from_slice(header);
        if self.open.len() >= FRAME {
            self.close()?;
        }
        let offset = u32::try_from(self.open.len()).map_err(|_| ActionError::Pack("a frame is too large"))?;
        Ok(Content { frame: self.number(self.frames.len())?, offset })
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), ActionError> {
        while !bytes.is_empty() {
            if self.open.len() >= FRAME {
                self.close()?;
            }
            let (here, rest) = bytes.split_at(bytes.len().min(FRAME - self.open.len()));
            self.open.extend_from_slice(here);
            bytes = rest;
        }
        Ok(())
    }

    /// The zeros after a member.
    fn finish(&mut self, size: u64) -> Result<(), ActionError> {
        self.open.resize(self.open.len() + stream::padding(size), 0);
        if size >= FRAME as u64 { self.close() } else { Ok(()) }
    }

    fn keep(&mut self, frame: Frame, number: usize) {
        self.push(Frame { offset: 0, ..frame }, Stored::Kept(number));
    }

    fn push(&mut self, frame: Frame, stored: Stored) {
        let offset = self.frames.last().map_or(0, |last| last.offset + u64::from(last.stored));
        self.frames.push(Frame { offset, ..frame });
        self.stored.push(stored);
    }

    fn close(&mut self) -> Result<(), ActionError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let stored = compress(&mut self.context, &self.open)?;
        let too_large = |_| ActionError::Pack("a frame is too large");
        let frame = Frame {
            offset: 0,
            stored: u32::try_from(stored.len()).map_err(too_large)?,
            len: u32::try_from(self.open.len()).map_err(too_large)?,
            digest: sha256(&stored),
        };
        self.spool
            .write_all(&stored)
            .map_err(|source| ActionError::Write { path: "the scratch directory".into(), source })?;
        self.push(frame, Stored::New(self.spooled));
        self.spooled += stored.len() as u64;
        self.open.clear();
        Ok(())
    }
}

/// A compressor for frames and the index.
pub(super) fn compressor() -> Result<CCtx<'static>, ActionError> {
    let mut context = CCtx::try_create().ok_or(ActionError::Pack("there is no memory for a compressor"))?;
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ContentSizeFlag(true),
        // The index holds a SHA-256 of every frame.
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(|code| ActionError::Pack(get_error_name(code)))?;
    }
    Ok(context)
}

pub(super) fn compress(context: &mut CCtx<'static>, plain: &[u8]) -> Result<Vec<u8>, ActionError> {
    let mut stored = vec![0; zstd_safe::compress_bound(plain.len())];
    let len = context.compress2(&mut stored[..], plain).map_err(|code| ActionError::Pack(get_error_name(code)))?;
    stored.truncate(len);
    Ok(stored)
}
