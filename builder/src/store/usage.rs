//! What trees take on disk: by their inodes, and where files share blocks (reflink), by their extents.
//!
//! A file system that shares blocks counts them for every file. Which of them are shared, FIEMAP tells, one call for many
//! extents; a file that cannot be asked counts as if it shared nothing.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

/// `FS_IOC_FIEMAP` (Documentation/filesystems/fiemap.rst).
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
const FIEMAP_EXTENT_LAST: u32 = 0x1;
const FIEMAP_EXTENT_SHARED: u32 = 0x2000;
/// Extents that one call may tell.
const EXTENTS: usize = 64;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// `struct fiemap`, with room for its extents.
#[repr(C)]
#[derive(Debug)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// Bytes on disk of a tree: of inodes that have no name outside it, and of all.
#[must_use]
pub fn disk_use(root: &Path) -> (u64, u64) {
    walk(root, |_, bytes| bytes)
}

/// The same, but blocks that a file shares with another one, wherever that is, count only in the second figure.
#[must_use]
pub fn disk_use_unshared(root: &Path) -> (u64, u64) {
    walk(root, |path, bytes| bytes.saturating_sub(shared_bytes(path).unwrap_or(0)))
}

fn walk(root: &Path, own_of_file: impl Fn(&Path, u64) -> u64) -> (u64, u64) {
    let (mut own, mut all) = (0, 0);
    // Inodes with several names: names seen, names there are, bytes of its own, bytes.
    let mut several: HashMap<(u64, u64), (u64, u64, u64, u64)> = HashMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        // What a guest has closed takes what the directory itself takes.
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(meta) = entry.metadata() else { continue };
            let bytes = meta.blocks() * 512;
            let of_it = if meta.is_file() && bytes > 0 { own_of_file(&entry.path(), bytes) } else { bytes };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.nlink() > 1 {
                several.entry((meta.dev(), meta.ino())).or_insert((0, meta.nlink(), of_it, bytes)).0 += 1;
                continue;
            }
            own += of_it;
            all += bytes;
        }
    }
    for (seen, links, of_it, bytes) in several.into_values() {
        all += bytes;
        own += if seen == links { of_it } else { 0 };
    }
    (own, all)
}

/// Bytes of a file whose blocks belong to other files as well.
fn shared_bytes(path: &Path) -> io::Result<u64> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let (mut shared, mut start) = (0, 0);
    loop {
        let mut map = Map {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            count: u32::try_from(EXTENTS).unwrap_or(0),
            reserved: 0,
            extents: [Extent::default(); EXTENTS],
        };
        // SAFETY: the call writes into `map` alone, and at most `count` extents, for which it has the room; the descriptor
        // is open as long as `file` lives.
        if unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let told = &map.extents[..EXTENTS.min(map.mapped as usize)];
        shared += told.iter().filter(|it| it.flags & FIEMAP_EXTENT_SHARED != 0).map(|it| it.length).sum::<u64>();
        match told.last() {
            Some(last) if last.flags & FIEMAP_EXTENT_LAST == 0 => start = last.logical + last.length,
            _ => return Ok(shared),
        }
    }
}
