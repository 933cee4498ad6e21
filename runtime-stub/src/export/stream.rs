//! A tree as one tar: headers from the index, bytes from the payload or from the files of a run.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use coracle_format::{Content, Kind, tar};

use super::tree::{Bytes, Tree};
use crate::{
    actions::ActionError,
    open::{Bundle, FrameReader},
};

/// A tar's block.
const BLOCK: [u8; 512] = [0; 512];

/// Zero bytes at the end of every tar.
pub(super) const END: usize = 1024;

/// Bytes of a file that are read at once.
const PIECE: usize = 1 << 20;

/// Gives the whole tar, piece by piece.
pub(super) fn each(
    bundle: &Bundle,
    tree: &Tree,
    mut take: impl FnMut(&[u8]) -> Result<(), ActionError>,
) -> Result<(), ActionError> {
    let mut contents = Contents::new(bundle);
    if !tree.changed {
        // The payload is that tar.
        for number in 0..tree.kept.frames.len() {
            take(contents.frame(tree, number)?)?;
        }
        return Ok(());
    }
    for number in 0..tree.entries.len() {
        if !tree.has_member(number) {
            continue;
        }
        take(&header(tree, number))?;
        contents.of(tree, number, &mut take)?;
        take(&BLOCK[..padding(tree.size(number))])?;
    }
    take(&[0; END])
}

/// The tar header of an entry.
pub(super) fn header(tree: &Tree, number: usize) -> Vec<u8> {
    tar::header(&tree.entries[number], |first| tree.entries.get(first).map(|entry| &entry.path[..]))
}

/// Zeros behind a file's bytes.
pub(super) fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK.len() as u64) - size).unwrap_or(0)
}

/// Reads what files hold.
pub(super) struct Contents<'a> {
    bundle: &'a Bundle,
    reader: FrameReader<'a>,
    /// The frame that was decompressed last.
    number: Option<usize>,
    plain: Vec<u8>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(bundle: &'a Bundle) -> Self {
        let reader = FrameReader::new(bundle.file(), bundle.payload_offset());
        Self { bundle, reader, number: None, plain: Vec::new() }
    }

    /// A frame of the bundle's payload, decompressed.
    fn frame(&mut self, tree: &Tree, number: usize) -> Result<&[u8], ActionError> {
        if self.number != Some(number) {
            let failed = |why: String| ActionError::Frame { path: self.bundle.path().to_owned(), frame: number, why };
            let frame = tree.kept.frames.get(number).ok_or_else(|| failed("is not there".to_owned()))?;
            let plain = self.reader.plain(frame).map_err(|error| failed(error.to_string()))?;
            self.plain.clear();
            self.plain.extend_from_slice(plain);
            self.number = Some(number);
        }
        Ok(&self.plain)
    }

    /// A frame of the bundle's payload as it is stored.
    pub(super) fn stored(&mut self, tree: &Tree, number: usize) -> Result<&[u8], ActionError> {
        self.reader.stored(&tree.kept.frames[number]).map_err(|error| ActionError::Frame {
            path: self.bundle.path().to_owned(),
            frame: number,
            why: error.to_string(),
        })
    }

    /// What an entry's file holds, piece by piece.
    pub(super) fn of(
        &mut self,
        tree: &Tree,
        number: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let Kind::File { size, .. } = tree.entries[number].kind else { return Ok(()) };
        match &tree.bytes[number] {
            Bytes::None => Ok(()),
            Bytes::Kept(content) => self.kept(tree, *content, size, take),
            Bytes::Host(path) => host(path, size, &mut take),
        }
    }

    /// `size` bytes of the payload from a place on.
    pub(super) fn kept(
        &mut self,
        tree: &Tree,
        content: Content,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let (mut frame, mut offset, mut left) = (content.frame as usize, content.offset as usize, size);
        while left > 0 {
            let plain = self.frame(tree, frame)?;
            // Decoding the index has seen that contents lie inside the frames.
            let here = plain.get(offset..).unwrap_or_default();
            let len = usize::try_from(left).map_or(here.len(), |left| left.min(here.len()));
            take(&here[..len])?;
            left -= len as u64;
            (frame, offset) = (frame + 1, 0);
        }
        Ok(())
    }
}

/// Opens what was a file when it was looked at; a pipe in its place must not hold us up.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// The bytes of a file that a run has left.
fn host(path: &Path, size: u64, take: &mut dyn FnMut(&[u8]) -> Result<(), ActionError>) -> Result<(), ActionError> {
    let failed = |why: io::Error| ActionError::Changes { path: path.to_owned(), why: why.to_string() };
    let file = open_file(path).map_err(failed)?;
    let mut buffer = vec![0; usize::try_from(size).map_or(PIECE, |size| size.clamp(1, PIECE))];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = file.read_at(&mut buffer[..len], at).map_err(failed)?;
        if got == 0 {
            break;
        }
        take(&buffer[..got])?;
        at += got as u64;
    }
    let len = file.metadata().map_err(failed)?.len();
    if at == size && len == size {
        return Ok(());
    }
    let why = "changed while it was read".to_owned();
    Err(ActionError::Changes { path: path.to_owned(), why })
}
