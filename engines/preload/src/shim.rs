//! The shim, as the bytes of a shared object. They are carried compressed, since they travel in every bundle.

use std::io;

/// What guests' loaders inject (`engines/preload/shim`, built by `build.rs`): one zstd frame, or nothing where there is no
/// shim for this processor.
const FRAME: &[u8] = include_bytes!(env!("CORACLE_SHIM_FILE"));

/// A name for this very shim: a sum of its bytes ([`coracle_api::content_sum`]), counted when it was built.
pub(crate) const NAME: &str = concat!("shim-", env!("CORACLE_SHIM_SUM"), ".so");

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

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_the_contents() {
        let Ok(bytes) = super::bytes() else { return };
        assert_eq!(super::NAME, format!("shim-{:016x}.so", coracle_api::content_sum(&bytes)));
    }
}
