//! The shim, as the bytes of a shared object. They are carried compressed, since they travel in every bundle.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::{mapped::Mapped, place, sum::sum};

/// What guests' loaders inject (`engines/preload/shim`, built by `build.rs`): one zstd frame, or nothing where there is no
/// shim for this processor.
const FRAME: &[u8] = include_bytes!(env!("CORACLE_SHIM_FILE"));

/// A name for this very shim: a sum of its bytes ([`coracle_api::content_sum`]), counted when it was built.
const NAME: &str = concat!("shim-", env!("CORACLE_SHIM_SUM"), ".so");

/// Its length, and the [`sum`] of its bytes.
const LEN: usize = match usize::from_str_radix(env!("CORACLE_SHIM_LEN"), 10) {
    Ok(len) => len,
    Err(_) => panic!("the build counts it"),
};
const SUM: u64 = match u64::from_str_radix(env!("CORACLE_SHIM_QUICK_SUM"), 10) {
    Ok(sum) => sum,
    Err(_) => panic!("the build counts it"),
};

/// Whether there is a shim for this processor.
pub(crate) fn is_there() -> bool {
    !FRAME.is_empty()
}

/// The shared object's bytes.
///
/// # Errors
/// What was compiled in is damaged, or there is no shim for this processor.
pub fn bytes() -> io::Result<Vec<u8>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the shim in this program is damaged");
    let len = zstd_safe::get_frame_content_size(FRAME).ok().flatten().ok_or_else(damaged)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged())?];
    let found = zstd_safe::decompress(&mut bytes[..], FRAME).map_err(|_| damaged())?;
    if found == bytes.len() { Ok(bytes) } else { Err(damaged()) }
}

/// The path of the shim in `dir`, written if it is not there. What is there is summed: that takes a small part of the time
/// of decompressing what it should be.
///
/// # Errors
/// As [`bytes`], and what the file system says.
pub(crate) fn kept(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(NAME);
    let found = File::open(&path).ok().and_then(|file| Mapped::new(&file));
    let is_whole = |bytes: &[u8]| (bytes.len(), sum(bytes)) == (LEN, SUM);
    if found.is_some_and(|found| is_whole(found.bytes())) {
        return Ok(path);
    }
    place::kept_as(dir, NAME, &bytes()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_written_once_and_again_when_it_was_damaged() {
        if !is_there() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = kept(dir.path()).expect("written");
        let whole = fs::read(&path).expect("read");
        assert!(whole == bytes().expect("the shim") && whole.starts_with(b"\x7fELF"));
        assert_eq!((whole.len(), sum(&whole)), (LEN, SUM), "its build has counted it");
        assert_eq!(NAME, format!("shim-{:016x}.so", coracle_api::content_sum(&whole)), "the name is the content's");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("there"));
        let first = inode(&path);
        assert_eq!(kept(dir.path()).expect("kept"), path);
        assert_eq!(inode(&path), first);
        let damages: [fn(&mut Vec<u8>); 3] = [Vec::clear, |bytes| bytes.truncate(4096), |bytes| bytes[70_000] ^= 1];
        for damage in damages {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            fs::write(&path, bytes).expect("damaged");
            assert_eq!(kept(dir.path()).expect("written"), path);
            assert!(fs::read(&path).expect("read") == whole);
        }
    }
}
