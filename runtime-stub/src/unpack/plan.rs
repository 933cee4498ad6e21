//! Who writes what: for every frame, the runs of bytes that it holds and the files they belong to.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};
use std::{os::fd::OwnedFd, sync::Arc};

use coracle_format::{Index, Kind};

use super::failure::Failure;

/// A run of one file's bytes in one frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Number of the file's entry.
    pub(super) entry: u32,
    /// Where the run starts in the decompressed frame.
    pub(super) at: u32,
    /// Its length; 0 only for an empty file.
    pub(super) len: u32,
    /// Where the run belongs in the file.
    pub(super) offset: u64,
    /// Number in [`Plan::splits`] of a file that several frames hold.
    pub(super) split: Option<u32>,
}

/// A file that several frames hold, so that several threads may write it at once.
#[derive(Debug)]
pub(super) struct Split {
    /// Open from its first run to its last: its mode may forbid to open it again.
    pub(super) file: Mutex<Option<Arc<OwnedFd>>>,
    remaining: AtomicU32,
}

impl Split {
    /// Counts one run as written, and says whether it was the last.
    pub(super) fn finish_one(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Segments by frame.
#[derive(Debug)]
pub(super) struct Plan {
    segments: Vec<Segment>,
    /// `segments[starts[n]..starts[n + 1]]` belong to frame `n`.
    starts: Vec<usize>,
    pub(super) splits: Vec<Split>,
}

impl Plan {
    /// Cuts the files of `index` along its frames.
    pub(super) fn new(index: &Index) -> Result<Self, Failure> {
        let buckets = index.frames.len().max(1);
        let mut placed: Vec<(u32, Segment)> = Vec::with_capacity(index.entries.len());
        let mut splits = Vec::new();
        let mut frame_before = 0;
        for (number, entry) in (0_u32..).zip(&index.entries) {
            let Kind::File { size, content } = entry.kind else { continue };
            if size == 0 {
                // Beside its neighbours, in whose directory it lies.
                let segment = Segment { entry: number, at: 0, len: 0, offset: 0, split: None };
                placed.push((frame_before, segment));
                continue;
            }
            let (first, mut frame, mut at, mut offset) = (placed.len(), content.frame, content.offset, 0);
            while offset < size {
                let room = index.frames.get(frame as usize).and_then(|frame| frame.len.checked_sub(at));
                let room = room.ok_or_else(|| Failure::Index { why: "a file lies outside of the payload".into() })?;
                let len = u32::try_from(size - offset).map_or(room, |rest| rest.min(room));
                // A frame of no bytes takes part in no file.
                if len > 0 {
                    placed.push((frame, Segment { entry: number, at, len, offset, split: None }));
                }
                (offset, frame, at) = (offset + u64::from(len), frame + 1, 0);
            }
            frame_before = frame - 1;
            let pieces = &mut placed[first..];
            if pieces.len() > 1 {
                let split = u32::try_from(splits.len()).ok();
                pieces.iter_mut().for_each(|(_, segment)| segment.split = split);
                let remaining = AtomicU32::new(u32::try_from(pieces.len()).unwrap_or(u32::MAX));
                splits.push(Split { file: Mutex::new(None), remaining });
            }
        }
        // Stable: within a frame the order of paths remains, so that a directory's files are made one after the other.
        placed.sort_by_key(|(frame, _)| *frame);
        let starts =
            (0..=buckets).map(|bucket| placed.partition_point(|(frame, _)| (*frame as usize) < bucket)).collect();
        Ok(Self { segments: placed.into_iter().map(|(_, segment)| segment).collect(), starts, splits })
    }

    /// Number of frames, at least one: a tree of empty files has a frame of its own without bytes.
    pub(super) fn frames(&self) -> usize {
        self.starts.len() - 1
    }

    /// What frame `number` holds.
    pub(super) fn segments(&self, number: usize) -> &[Segment] {
        &self.segments[self.starts[number]..self.starts[number + 1]]
    }
}

#[cfg(test)]
mod tests {
    use coracle_format::{Content, Entry, Frame, Time};

    use super::*;

    fn file(path: &str, size: u64, frame: u32, offset: u32) -> Entry {
        let kind = Kind::File { size, content: Content { frame, offset } };
        Entry { path: path.into(), mode: 0o644, uid: 0, gid: 0, mtime: Time::default(), xattrs: vec![], kind }
    }

    fn frame(len: u32) -> Frame {
        Frame { offset: 0, stored: 0, len, digest: [0; 32] }
    }

    #[test]
    fn a_large_file_is_cut_along_the_frames() {
        let entries = vec![file("a", 10, 0, 512), file("b", 250, 1, 50), file("c", 0, 0, 0), file("d", 20, 3, 60)];
        let index = Index { frames: vec![frame(1000), frame(100), frame(150), frame(200)], entries, fixups: vec![] };
        let plan = Plan::new(&index).unwrap();
        let found = |number: usize| {
            plan.segments(number).iter().map(|s| (s.entry, s.at, s.len, s.offset, s.split)).collect::<Vec<_>>()
        };
        assert_eq!(plan.frames(), 4);
        assert_eq!(found(0), [(0, 512, 10, 0, None)]);
        assert_eq!(found(1), [(1, 50, 50, 0, Some(0))]);
        assert_eq!(found(2), [(1, 0, 150, 50, Some(0))]);
        assert_eq!(found(3), [(1, 0, 50, 200, Some(0)), (2, 0, 0, 0, None), (3, 60, 20, 0, None)]);
        assert_eq!([(); 3].map(|()| plan.splits[0].finish_one()), [false, false, true]);
    }

    #[test]
    fn a_tree_without_bytes_still_has_its_files() {
        let index = Index { frames: vec![], entries: vec![file("a", 0, 0, 0)], fixups: vec![] };
        let plan = Plan::new(&index).unwrap();
        assert_eq!((plan.frames(), plan.segments(0).len()), (1, 1));
    }
}
