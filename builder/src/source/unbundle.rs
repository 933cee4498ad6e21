//! A bundle as a tree: its frames, checked and decompressed into a temporary file without a name.
//!
//! The decompressed payload is one tar, and the index says where in it each file's bytes run; so nothing is parsed here.

use std::{
    fs::File,
    io,
    num::NonZero,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use coracle_format::{Index, Kind};
use coracle_open::{Bundle, FrameError, FrameReader, OpenError};

use crate::flatten::{Data, Inode, InodeId, InodeKind, Tree};

/// A bundle gives no tree.
#[derive(Debug, thiserror::Error)]
pub enum UnbundleError {
    /// Its index cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A part of its payload is damaged.
    #[error("{}: frame {frame} of its payload {why}: fetch the bundle again", path.display())]
    Frame {
        /// The bundle.
        path: PathBuf,
        /// Number of the frame.
        frame: usize,
        /// What is wrong.
        why: FrameError,
    },
    /// It holds more than may be.
    #[error("{}: more than {limit} decompressed bytes: if the bundle is to be trusted, raise --limit-size", path.display())]
    Limit {
        /// The bundle.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The temporary file could not be written.
    #[error("temporary file in {}: {why}: make room there, or set TMPDIR to a directory with more", dir.display())]
    Spool {
        /// The directory it lies in.
        dir: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// The tree of a bundle. `spool` is a directory for the temporary file, `limit` the most bytes it may take.
///
/// # Errors
/// A damaged bundle, a full disk.
pub fn unbundle(bundle: &Bundle, spool: &Path, limit: u64, threads: NonZero<usize>) -> Result<Tree, UnbundleError> {
    let index = bundle.index()?;
    let mut starts = Vec::with_capacity(index.frames.len());
    let mut total = 0;
    for frame in &index.frames {
        starts.push(total);
        total += u64::from(frame.len);
    }
    if total > limit {
        return Err(UnbundleError::Limit { path: bundle.path().to_owned(), limit });
    }
    let failed = |why| UnbundleError::Spool { dir: spool.to_owned(), why };
    let file = Arc::new(tempfile::tempfile_in(spool).map_err(failed)?);
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<UnbundleError>> = Mutex::new(None);
    let work = || {
        let mut reader = FrameReader::new(bundle.file(), bundle.payload_offset());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(frame) = index.frames.get(number) else { return };
            let done = match reader.plain(frame) {
                Ok(bytes) => file.write_all_at(bytes, starts[number]).map_err(failed),
                Err(why) => Err(UnbundleError::Frame { path: bundle.path().to_owned(), frame: number, why }),
            };
            if let Err(error) = done {
                next.store(index.frames.len(), Ordering::Relaxed);
                failure.lock().expect("no holder panics").get_or_insert(error);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get().min(index.frames.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().expect("no holder panics") {
        Some(error) => Err(error),
        None => Ok(tree(index, &starts, &file)),
    }
}

fn tree(index: Index, starts: &[u64], file: &Arc<File>) -> Tree {
    let mut tree = Tree::default();
    let mut ids: Vec<InodeId> = Vec::with_capacity(index.entries.len());
    for entry in index.entries {
        let kind = match entry.kind {
            Kind::HardLink { entry: first } => {
                let id = ids[first as usize]; // an earlier entry: `Index::decode` has checked it
                ids.push(id);
                tree.paths.insert(entry.path, id);
                continue;
            }
            Kind::Directory => InodeKind::Directory,
            Kind::File { size: 0, .. } => InodeKind::File { size: 0, data: Data::Bytes([].into()) },
            Kind::File { size, content } => {
                let offset = starts[content.frame as usize] + u64::from(content.offset);
                InodeKind::File { size, data: Data::Slice { file: Arc::clone(file), offset } }
            }
            Kind::Symlink { target } => InodeKind::Symlink(target),
            Kind::Fifo => InodeKind::Fifo,
            Kind::CharDevice { major, minor } => InodeKind::CharDevice(major, minor),
            Kind::BlockDevice { major, minor } => InodeKind::BlockDevice(major, minor),
        };
        let (mode, uid, gid, mtime, xattrs) = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs);
        let id = tree.add(Inode { mode, uid, gid, mtime, xattrs, kind });
        ids.push(id);
        tree.paths.insert(entry.path, id);
    }
    tree
}
