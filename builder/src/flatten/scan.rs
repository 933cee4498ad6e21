//! One pass over one layer: its members, and the bytes of those files that may last.
//!
//! An uncompressed layer keeps its bytes where they are, in the blob. Others go to a spool: a temporary file without a
//! name, so that nothing is left behind whatever happens.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Data, Options,
    error::LayerError,
    limits::Meter,
    members::{Body, Member, MemberKind, Members, Segment},
    stream::Stream,
};
use crate::source::{Compression, Layer};

/// Bytes written to the spool at a time.
const WRITE: usize = 1 << 20;

/// Reads a layer. `wanted` says for the file of a given number in the layer whether its bytes are to be kept; the others'
/// data stays `None`. The digest is checked where it is known and `check` says so.
pub(crate) fn scan(
    layer: &Layer,
    meter: &Meter,
    options: &Options,
    check: bool,
    wanted: &mut dyn FnMut(usize, &Member) -> bool,
) -> Result<Vec<Member>, LayerError> {
    let hash = check && layer.diff_id.as_deref().is_some_and(|digest| digest.starts_with("sha256:"));
    let stream = Stream::open(&layer.blob, layer.compression, hash, meter)?;
    let blob = match layer.compression {
        Compression::None => {
            let path = &layer.blob.file;
            Some(Arc::new(File::open(path).map_err(|why| LayerError::Blob { path: path.clone(), why })?))
        }
        _ => None,
    };
    let mut spool = Spool::new(&options.spool);
    let mut members = Members::new(stream, meter);
    let mut found = Vec::new();
    while let Some(mut member) = members.next()? {
        let keep = wanted(found.len(), &member);
        if let MemberKind::File { size, data } = &mut member.kind {
            if *size == 0 {
                *data = Some(Data::Bytes(Arc::new([])));
            } else if keep {
                let body = members.body().clone();
                *data = Some(match (&blob, &body.segments) {
                    (Some(file), None) => {
                        Data::Slice { file: Arc::clone(file), offset: layer.blob.offset + body.offset }
                    }
                    _ if options.apart => keep_apart(&options.spool, *size, &body, &mut members)?,
                    _ => spool.keep(*size, &body, &mut members)?,
                });
            }
        }
        found.push(member);
    }
    spool.flush()?;
    let stream = members.drain()?;
    if layer.compression == Compression::None && stream.len() < layer.blob.len {
        return Err(LayerError::Short("the blob".into()));
    }
    if let (Some(found), Some(expected)) = (stream.digest(), &layer.diff_id)
        && found != *expected
    {
        return Err(LayerError::DiffId { found, expected: expected.clone() });
    }
    Ok(found)
}

/// Puts the current member's bytes into a file of their own.
fn keep_apart<R: std::io::BufRead>(
    directory: &Path,
    size: u64,
    body: &Body,
    members: &mut Members<'_, R>,
) -> Result<Data, LayerError> {
    // One directory belongs to one process; several layers are read at once.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = directory.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(LayerError::Spool)?;
    let mut at = 0;
    let whole = [Segment { offset: 0, len: body.stored }];
    for segment in body.segments.as_deref().unwrap_or(&whole) {
        at = segment.offset;
        members.take(segment.len, &mut |piece| {
            file.write_all_at(piece, at).map_err(LayerError::Spool)?;
            at += piece.len() as u64;
            Ok(())
        })?;
    }
    if at != size {
        file.set_len(size).map_err(LayerError::Spool)?;
    }
    Ok(Data::Own(path))
}

/// A temporary file that takes files one behind the other.
struct Spool<'a> {
    directory: &'a Path,
    file: Option<Arc<File>>,
    /// Bytes not yet written, and where they belong.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Spool<'a> {
    fn new(directory: &'a Path) -> Self {
        Self { directory, file: None, buffer: Vec::new(), start: 0 }
    }

    /// Takes the current member's bytes.
    fn keep<R: std::io::BufRead>(
        &mut self,
        size: u64,
        body: &Body,
        members: &mut Members<'_, R>,
    ) -> Result<Data, LayerError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(tempfile::tempfile_in(self.directory).map_err(LayerError::Spool)?);
                self.buffer.reserve(WRITE + (256 << 10));
                self.file.insert(file).clone()
            }
        };
        let offset = self.start + self.buffer.len() as u64;
        match &body.segments {
            None => members.take(body.stored, &mut |piece| self.write(piece))?,
            Some(segments) => {
                for segment in segments {
                    self.seek(offset + segment.offset)?;
                    members.take(segment.len, &mut |piece| self.write(piece))?;
                }
                self.seek(offset + size)?;
                // The file must reach as far as its last hole.
                file.set_len(offset + size).map_err(LayerError::Spool)?;
            }
        }
        Ok(Data::Slice { file, offset })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), LayerError> {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    /// Leaves a hole up to `to`.
    fn seek(&mut self, to: u64) -> Result<(), LayerError> {
        if to != self.start + self.buffer.len() as u64 {
            self.flush()?;
            self.start = to;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        if let Some(file) = &self.file {
            file.write_all_at(&self.buffer, self.start).map_err(LayerError::Spool)?;
        }
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
