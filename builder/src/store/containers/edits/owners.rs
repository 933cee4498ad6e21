//! The ledger's word on files that got other inodes: edited copies, and the true files when they come back.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use coracle_ledger::{Inode, Ledger};

/// Has the ledger say of the second inode of each pair what it says of the first, if there is a ledger. Nobody uses it
/// meanwhile.
pub(super) fn tell_of(ledger: &Path, root: &Path, pairs: &[(u64, u64)]) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(ledger) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if pairs.is_empty() {
        return Ok(());
    }
    let words = read(&file)?;
    let device = std::fs::metadata(root)?.dev();
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or of another version");
    let known = Ledger::open(&words, device).map_err(damaged)?;
    let before: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    for (from, to) in pairs {
        let inode = |number: u64| Inode { device, number };
        // What was known of that number before is not true of the file any more.
        known.remove(inode(*to));
        let Some(entry) = known.get(inode(*from)) else { continue };
        known.put(inode(*to), &entry).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
    }
    // It is large and nearly empty: only what changed is written.
    for (number, (word, before)) in words.iter().zip(before).enumerate() {
        let now = word.load(Ordering::Relaxed);
        if now != before {
            file.write_all_at(&now.to_ne_bytes(), number as u64 * 8)?;
        }
    }
    Ok(())
}

fn read(mut file: &File) -> io::Result<Vec<AtomicU64>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect())
}
