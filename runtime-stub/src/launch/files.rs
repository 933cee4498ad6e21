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

/// The host path of a file with this content in `dir`, written if it is not there yet.
pub(super) fn kept(dir: &Path, kind: &str, content: &[u8]) -> Result<PathBuf, LaunchError> {
    let file = dir.join(format!("{kind}-{}", digest_name(content)));
    // The length tells a file that a cleaner or a full disk shortened; the name tells the rest.
    if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file() && meta.len() == content.len() as u64) {
        return Ok(file);
    }
    write_beside(dir, &file, content).map_err(|source| LaunchError::Scratch {
        step: "write it",
        path: file.clone(),
        source,
    })?;
    Ok(file)
}

/// Writes a file under a temporary name and renames it into place.
pub(crate) fn write_beside(dir: &Path, file: &Path, content: &[u8]) -> io::Result<()> {
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
        .and_then(|mut out| out.write_all(content))
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
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
}
