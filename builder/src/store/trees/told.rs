//! The ledger of root emulation, read back: owners, modes and devices as a guest's pretended root has set them.
//!
//! A ledger began with the container's list of owners and has been kept up since, so where there is one it is asked alone.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    sync::atomic::AtomicU64,
};

use coracle_ledger::{Entry, Inode as Number, Ledger};
use nix::sys::stat::SFlag;

use crate::flatten::{Inode, InodeKind, Tree};

/// Gives the tree at `root` what the ledger says; false if there is none.
///
/// # Errors
/// The ledger cannot be read, or is damaged.
pub(super) fn apply(tree: &mut Tree, root: &Path, ledger: &Path) -> io::Result<bool> {
    let bytes = match fs::read(ledger) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let words: Vec<AtomicU64> =
        bytes.as_chunks().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect();
    drop(bytes);
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or of another version");
    let home = fs::metadata(root)?.dev();
    let ledger = Ledger::open(&words, home).map_err(damaged)?;
    if ledger.is_empty() {
        return Ok(true);
    }
    let Tree { paths, inodes, .. } = tree;
    let mut seen = HashSet::new();
    for (path, id) in paths.iter() {
        if !seen.insert(*id) {
            continue;
        }
        // Removed meanwhile; or deeper than a path can say, where no guest of an engine that keeps a ledger comes.
        let Ok(meta) = fs::symlink_metadata(root.join(std::ffi::OsStr::from_bytes(path))) else { continue };
        if let Some(entry) = ledger.get(Number { device: meta.dev(), number: meta.ino() }) {
            tell(&mut inodes[id.0 as usize], &entry);
        }
    }
    Ok(true)
}

fn tell(inode: &mut Inode, entry: &Entry) {
    if let Some((uid, gid)) = entry.owner {
        (inode.uid, inode.gid) = (uid, gid);
    }
    let Some(mode) = entry.mode else { return };
    let kind = SFlag::from_bits_truncate(u32::from(mode) & SFlag::S_IFMT.bits());
    if let (Some(device), InodeKind::File { size: 0, .. }) = (entry.device, &inode.kind) {
        let (major, minor) = numbers(device);
        inode.kind = match kind {
            SFlag::S_IFBLK => InodeKind::BlockDevice(major, minor),
            _ => InodeKind::CharDevice(major, minor),
        };
    }
    inode.mode = mode & 0o7777;
}

/// Major and minor of a device number in the kernel's 32-bit form.
fn numbers(device: u32) -> (u32, u32) {
    let number = |part: u64| u32::try_from(part).unwrap_or_default();
    let device = u64::from(device);
    (number(nix::sys::stat::major(device)), number(nix::sys::stat::minor(device)))
}
