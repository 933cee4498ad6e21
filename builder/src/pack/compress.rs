//! Frames filled, compressed and digested on several threads, and handed on in order.

use std::{
    collections::BTreeMap,
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use coracle_format::{Frame, sha256, tar};
use zstd_safe::{CCtx, CParameter, get_error_name};

use super::{
    Options, PackError,
    layout::{Layout, Piece, Plan},
};
use crate::flatten::{InodeKind, Tree};

/// Frames that may wait for the writer, per thread: a slow disk must not fill the memory.
const AHEAD: usize = 4;

/// Compresses the frames and gives each, as stored, to `write`, in order.
pub(super) fn frames(
    tree: &Tree,
    layout: &Layout,
    options: Options,
    progress: &(dyn Fn(u64, u64) + Sync),
    mut write: impl FnMut(&[u8]) -> Result<(), PackError>,
) -> Result<Vec<Frame>, PackError> {
    let total = layout.frames.iter().map(|plan| u64::from(plan.len)).sum();
    let jobs = options.jobs.get().min(layout.frames.len());
    let line =
        Line { state: Mutex::default(), turned: Condvar::new(), ahead: AHEAD * jobs, count: layout.frames.len() };
    let mut done = Vec::with_capacity(layout.frames.len());
    let (mut offset, mut passed) = (0, 0);
    thread::scope(|scope| {
        // Whatever ends this closure also ends the threads, which the scope waits for.
        let _closing = Closing(&line);
        for _ in 0..jobs {
            scope.spawn(|| work(tree, layout, options.level, &line));
        }
        for plan in &layout.frames {
            let stored = line.take()?;
            write(&stored)?;
            let len = u32::try_from(stored.len()).map_err(|_| PackError::IndexTooLarge)?;
            done.push(Frame { offset, stored: len, len: plan.len, digest: sha256(&stored) });
            offset += u64::from(len);
            passed += u64::from(plan.len);
            progress(passed, total);
        }
        Ok(done)
    })
}

/// One frame of `bytes` alone.
pub(super) fn block(bytes: &[u8], level: i32) -> Result<Vec<u8>, PackError> {
    Compressor::new(level)?.compress(bytes)
}

type Finished = Result<Vec<u8>, PackError>;

/// Where threads leave frames and the writer fetches them.
struct Line {
    state: Mutex<State>,
    turned: Condvar,
    ahead: usize,
    count: usize,
}

#[derive(Default)]
struct State {
    /// Next frame to begin.
    begin: usize,
    /// Next frame to write.
    write: usize,
    finished: BTreeMap<usize, Finished>,
    closed: bool,
}

struct Closing<'a>(&'a Line);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.turned.notify_all();
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the next frame to fill, once there is room for it.
    fn begin(&self) -> Option<usize> {
        let held =
            |state: &mut State| !state.closed && state.begin < self.count && state.begin >= state.write + self.ahead;
        let mut state = self.turned.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner);
        if state.closed || state.begin >= self.count {
            return None;
        }
        state.begin += 1;
        Some(state.begin - 1)
    }

    fn give(&self, number: usize, finished: Finished) {
        self.lock().finished.insert(number, finished);
        self.turned.notify_all();
    }

    /// The next frame in order.
    fn take(&self) -> Finished {
        let absent = |state: &mut State| !state.finished.contains_key(&state.write);
        let mut state = self.turned.wait_while(self.lock(), absent).unwrap_or_else(PoisonError::into_inner);
        let number = state.write;
        state.write += 1;
        self.turned.notify_all();
        state.finished.remove(&number).expect("waited for just now")
    }
}

/// A thread's life.
fn work(tree: &Tree, layout: &Layout, level: i32, line: &Line) {
    let mut compressor = Compressor::new(level);
    let mut raw = Vec::new();
    while let Some(number) = line.begin() {
        let finished = match &mut compressor {
            Ok(compressor) => {
                fill(tree, layout, &layout.frames[number], &mut raw).and_then(|()| compressor.compress(&raw))
            }
            Err(_) => Err(PackError::Compress("no memory for a compressor")),
        };
        line.give(number, finished);
    }
}

/// The tar bytes of one frame.
pub(super) fn fill(tree: &Tree, layout: &Layout, plan: &Plan, raw: &mut Vec<u8>) -> Result<(), PackError> {
    raw.clear();
    raw.reserve(plan.len as usize);
    // A file's slices are in different frames, so one open file serves one piece.
    for piece in &plan.pieces {
        match *piece {
            Piece::Header { entry } => {
                let path_of = |first: usize| layout.entries.get(first).map(|entry| &entry.path[..]);
                raw.extend_from_slice(&tar::header(&layout.entries[entry], path_of));
            }
            Piece::Zeros { len } => raw.resize(raw.len() + len as usize, 0),
            Piece::Bytes { entry, offset, len } => {
                let start = raw.len();
                raw.resize(start + len as usize, 0);
                let InodeKind::File { data, .. } = &tree.inodes[layout.inodes_of[entry].0 as usize].kind else {
                    unreachable!("only files have bytes in a layout");
                };
                data.read_exact_at(&mut raw[start..], offset).map_err(|error| {
                    let path = String::from_utf8_lossy(&layout.entries[entry].path).into_owned();
                    let from = data.origin();
                    match error.kind() {
                        io::ErrorKind::UnexpectedEof => PackError::Changed { path, from },
                        _ => PackError::Read { path, from, error },
                    }
                })?;
            }
        }
    }
    debug_assert_eq!(raw.len(), plan.len as usize);
    Ok(())
}

struct Compressor(CCtx<'static>);

impl Compressor {
    fn new(level: i32) -> Result<Self, PackError> {
        let mut context = CCtx::try_create().ok_or(PackError::Compress("no memory for a compressor"))?;
        for parameter in [
            CParameter::CompressionLevel(level),
            // The whole frame is one window: matches reach back to its start.
            CParameter::WindowLog(super::layout::FRAME.ilog2()),
            CParameter::ContentSizeFlag(true),
            // The index holds a SHA-256 of every frame.
            CParameter::ChecksumFlag(false),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Self(context))
    }

    fn compress(&mut self, raw: &[u8]) -> Result<Vec<u8>, PackError> {
        let mut stored = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
        self.0.compress2(&mut stored, raw).map_err(failed)?;
        stored.shrink_to_fit();
        Ok(stored)
    }
}

fn failed(code: zstd_safe::ErrorCode) -> PackError {
    PackError::Compress(get_error_name(code))
}
