//! Frames of the payload: read, checked against their digest, and only then decompressed.

use std::{fs::File, io, os::unix::fs::FileExt};

use coracle_format::{Frame, sha256};

/// The builder makes frames of a few megabytes; a frame that claims more than this is refused before it takes memory.
pub const MAX_FRAME: u32 = 64 << 20;

/// A frame that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The file cannot be read there.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Larger than any frame that a builder makes.
    #[error("claims {0} bytes, more than a frame may have")]
    TooLarge(u32),
    /// Its bytes are not those that were packed.
    #[error("does not match its SHA-256")]
    Digest,
    /// The decompressor refused it.
    #[error("cannot be decompressed: {0}")]
    Decompress(&'static str),
    /// It decompresses to another length than the index says.
    #[error("decompresses to {found} bytes instead of {expected}")]
    Length {
        /// Bytes that came out.
        found: usize,
        /// Bytes that the index promises.
        expected: u32,
    },
}

/// Reads frames one after the other into buffers that it keeps; each thread has its own.
pub struct FrameReader<'a> {
    file: &'a File,
    payload: u64,
    context: zstd_safe::DCtx<'static>,
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> FrameReader<'a> {
    /// A reader of the payload that starts at `payload` in `file`.
    #[must_use]
    pub fn new(file: &'a File, payload: u64) -> Self {
        Self { file, payload, context: zstd_safe::DCtx::create(), stored: Vec::new(), plain: Vec::new() }
    }

    /// The frame's bytes as stored, after their digest was checked.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn stored(&mut self, frame: &Frame) -> Result<&[u8], FrameError> {
        let bound = zstd_safe::compress_bound(MAX_FRAME as usize);
        if frame.len > MAX_FRAME || frame.stored as usize > bound {
            return Err(FrameError::TooLarge(frame.len.max(frame.stored)));
        }
        self.stored.resize(frame.stored as usize, 0);
        self.file.read_exact_at(&mut self.stored, self.payload + frame.offset).map_err(FrameError::Read)?;
        if sha256(&self.stored) != frame.digest {
            return Err(FrameError::Digest);
        }
        Ok(&self.stored)
    }

    /// The frame's content.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn plain(&mut self, frame: &Frame) -> Result<&[u8], FrameError> {
        self.stored(frame)?;
        let len = frame.len as usize;
        if self.plain.len() < len {
            self.plain.resize(len, 0);
        }
        let found = self
            .context
            .decompress(&mut self.plain[..len], &self.stored)
            .map_err(|code| FrameError::Decompress(zstd_safe::get_error_name(code)))?;
        if found != len {
            return Err(FrameError::Length { found, expected: frame.len });
        }
        Ok(&self.plain[..len])
    }
}
