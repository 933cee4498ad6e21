//! Generated files, kept by their content: made once, atomically, and bound by every later start.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::LaunchError;

/// A file name that stands for these bytes.
pub(super) fn digest_name(bytes: &[u8]) -> String {
    let mut name = coracle_format::hex(&coracle_format::sha256(bytes));
    name.truncate(32);
    name
}

/// The host path of a file with this content in `dir`, written if it is not there yet. Of several runs that write it at
/// once one does, and its file stays: ranks of a job find each other by the files that they show (`ranks`).
pub(super) fn kept(dir: &Path, kind: &str, content: &[u8]) -> Result<PathBuf, LaunchError> {
    let file = dir.join(format!("{kind}-{}", digest_name(content)));
    // The length tells a file that a cleaner or a full disk shortened; the name tells the rest.
    let is_whole =
        || fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file() && meta.len() == content.len() as u64);
    if is_whole() {
        return Ok(file);
    }
    let written = write(dir, content).and_then(|temporary| {
        // Where there are no hard links, and over a damaged file, the last one counts.
        let linked = match fs::hard_link(&temporary, &file) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists && is_whole(),
        };
        if linked { fs::remove_file(&temporary) } else { put(&temporary, &file) }
    });
    written.map_err(|source| LaunchError::Scratch { step: "write it", path: file.clone(), source })?;
    Ok(file)
}

/// Writes a file under a temporary name and renames it into place.
pub(crate) fn write_beside(dir: &Path, file: &Path, content: &[u8]) -> io::Result<()> {
    put(&write(dir, content)?, file)
}

/// Gives a file of a temporary name its own.
fn put(temporary: &Path, file: &Path) -> io::Result<()> {
    fs::rename(temporary, file).inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })
}

/// Writes a file of a temporary name, which is its path; none is left if that fails.
fn write(dir: &Path, content: &[u8]) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".new-{}-{number}", std::process::id()));
    // A leftover of a process that was killed and had our id.
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut out| out.write_all(content));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_is_one_file_and_a_damaged_one_is_written_again() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let file = kept(dir.path(), "passwd", b"one").expect("writable");
        assert_eq!(kept(dir.path(), "passwd", b"one").expect("writable"), file);
        assert_ne!(kept(dir.path(), "passwd", b"two").expect("writable"), file);
        fs::write(&file, b"o").expect("writable");
        assert_eq!(fs::read(kept(dir.path(), "passwd", b"one").expect("writable")).expect("readable"), b"one");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2, "nothing temporary is left");
    }

    #[test]
    fn who_writes_at_once_gets_the_same_file() {
        use std::{os::unix::fs::MetadataExt as _, sync::Barrier, thread};
        for _ in 0..50 {
            let dir = tempfile::tempdir().expect("the temporary directory is writable");
            let together = Barrier::new(4);
            let inode = || {
                together.wait();
                let file = kept(dir.path(), "passwd", b"one").expect("writable");
                fs::metadata(file).expect("it is there").ino()
            };
            let inodes = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(inode)).collect();
                threads.into_iter().map(|thread| thread.join().expect("it ends")).collect::<Vec<_>>()
            });
            assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
            assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing temporary is left");
        }
    }
}
