//! A layer's uncompressed bytes, decompressed by a thread of their own, hashed and measured by the one that reads them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{error::LayerError, limits::Meter};
use crate::source::{Blob, Compression};

/// Bytes handed over at a time: large enough that handing over costs nothing, small enough for a second-level cache.
const PIECE: usize = 256 << 10;
/// Pieces on their way.
const AHEAD: usize = 4;

/// The uncompressed bytes.
pub(crate) struct Stream<'a> {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    hash: Option<Sha256>,
    produced: u64,
    consumed: Arc<AtomicU64>,
    meter: &'a Meter,
}

impl<'a> Stream<'a> {
    /// Opens a blob. Without `hash` no digest is computed.
    pub(crate) fn open(
        blob: &Blob,
        compression: Compression,
        hash: bool,
        meter: &'a Meter,
    ) -> Result<Self, LayerError> {
        let failed = |why| LayerError::Blob { path: blob.file.clone(), why };
        let mut file = File::open(&blob.file).map_err(failed)?;
        file.seek(SeekFrom::Start(blob.offset)).map_err(failed)?;
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: file.take(blob.len), count: Arc::clone(&consumed) };
        let decoder = decoder(BufReader::with_capacity(PIECE, counted), compression).map_err(LayerError::Read)?;
        let (full_sender, full) = sync_channel(AHEAD);
        let (empty, empty_receiver) = sync_channel(AHEAD + 2);
        // Not joined: it ends at its next piece once `full` is gone, and holds nothing but its own file and buffers.
        thread::Builder::new()
            .name("decompress".into())
            .spawn(move || pump(decoder, &full_sender, &empty_receiver))
            .map_err(LayerError::Read)?;
        let hash = hash.then(Sha256::new);
        Ok(Self { full, empty, piece: Vec::new(), at: 0, ended: false, hash, produced: 0, consumed, meter })
    }

    /// Bytes read so far.
    pub(crate) fn len(&self) -> u64 {
        self.produced
    }

    /// `sha256:…` of all bytes read.
    pub(crate) fn digest(self) -> Option<String> {
        let digest: [u8; 32] = self.hash?.finalize().into();
        Some(format!("sha256:{}", coracle_format::hex(&digest)))
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.ended {
            let used = std::mem::take(&mut self.piece);
            self.at = 0;
            let _ = self.empty.try_send(used);
            match self.full.recv() {
                Err(_) => self.ended = true,
                Ok(piece) => {
                    self.piece = piece?;
                    let bytes = self.piece.len() as u64;
                    self.produced += bytes;
                    let consumed = self.consumed.load(Ordering::Relaxed);
                    self.meter.stream(bytes, self.produced, consumed).map_err(io::Error::other)?;
                    if let Some(hash) = &mut self.hash {
                        hash.update(&self.piece);
                    }
                }
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let now = have.len().min(buffer.len());
        buffer[..now].copy_from_slice(&have[..now]);
        self.consume(now);
        Ok(now)
    }
}

/// Fills pieces until the decoder ends, fails, or nobody wants them any more.
fn pump(mut decoder: Box<dyn Read>, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        let mut failed = None;
        while filled < PIECE {
            match decoder.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        piece.truncate(filled);
        let last = filled < PIECE;
        if filled > 0 && full.send(Ok(piece)).is_err() {
            return;
        }
        if let Some(error) = failed {
            let _ = full.send(Err(error));
        }
        if last {
            return;
        }
    }
}

fn decoder<R: BufRead + Send + 'static>(input: R, compression: Compression) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(Gzip { member: Some(GzDecoder::new(input)) }),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
    })
}

/// All members of a gzip file. What follows the last one and is no member is passed over, as gzip(1) does: the blob's own
/// digest was checked when it was fetched.
struct Gzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let mut input = self.member.take().expect("matched above").into_inner();
            if input.fill_buf()?.starts_with(&[0x1f]) {
                self.member = Some(GzDecoder::new(input));
            }
        }
        Ok(0)
    }
}

/// Counts the bytes that the decompressor has taken.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
