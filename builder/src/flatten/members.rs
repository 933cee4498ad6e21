//! The members of a tar, one after the other, from a stream.
//!
//! Headers are the tar crate's; what stands around them is read here, because the crate cuts extended headers at newlines
//! (attributes are binary), knows only the oldest of GNU's sparse formats, and sets no bounds. Rules:
//! - names leave here clean: relative, without `.`, `..` and empty parts; absolute names are taken as relative, and a name
//!   that climbs above the root is refused;
//! - only regular files have data, whatever the size field of another type says;
//! - nothing is reserved on the word of a header.

use std::io::{self, BufRead};

use coracle_format::{Time, Xattr};
use tar::Header;

use super::{
    Data,
    error::LayerError,
    fields::{check_sum, clean, number, until_nul},
    limits::Meter,
    pax::{Extended, decimal},
};

const BLOCK: u64 = 512;
/// Longest extended header; Go's reader has the same bound, so no image beyond it works elsewhere.
const EXTENDED_MOST: u64 = 1 << 20;
/// Most runs of data in one sparse file.
const SEGMENTS_MOST: usize = 1 << 20;

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Clean path below the root; the root itself is empty.
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) kind: MemberKind,
}

/// What a member is.
#[derive(Debug, Clone)]
pub(crate) enum MemberKind {
    Directory,
    /// `data` is not known to this reader: whoever takes the bytes fills it in.
    File {
        size: u64,
        data: Option<Data>,
    },
    /// Clean path of the other name.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// Where the bytes of the member just read lie.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    /// Offset of the first byte in the stream.
    pub(crate) offset: u64,
    /// Bytes in the stream.
    pub(crate) stored: u64,
    /// Runs of data in a file with holes; none if the file is stored whole.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Reads members.
pub(crate) struct Members<'a, R> {
    input: R,
    meter: &'a Meter,
    /// Offset in the stream.
    at: u64,
    /// Bytes left of the current member's data, and of the padding after it.
    left: u64,
    padding: u64,
    global: Extended,
    body: Body,
}

impl<'a, R: BufRead> Members<'a, R> {
    pub(crate) fn new(input: R, meter: &'a Meter) -> Self {
        Self { input, meter, at: 0, left: 0, padding: 0, global: Extended::default(), body: Body::default() }
    }

    /// Where the bytes of the member just read lie.
    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// The next member, or none at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, LayerError> {
        let mut extended = self.global.clone();
        let (mut long_path, mut long_link) = (None, None);
        let mut announced = false;
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(block) = self.header_block()? else {
                return if announced { Err(LayerError::Short("an entry's headers".into())) } else { Ok(None) };
            };
            let header = Header::from_byte_slice(&block);
            let start = self.at - BLOCK;
            check_sum(&block).ok_or_else(|| LayerError::tar(start, "a header with a wrong checksum"))?;
            let field = |bytes: &[u8], what: &str| {
                number(bytes).ok_or_else(|| LayerError::tar(start, format!("a header without a valid {what}")))
            };
            let size = u64::try_from(field(&header.as_old().size, "size")?)
                .map_err(|_| LayerError::tar(start, "a negative size"))?;
            match block[156] {
                b'x' | b'X' => {
                    let bytes = self.special(size)?;
                    extended.merge(&bytes, false).map_err(|what| LayerError::tar(start, what))?;
                }
                b'g' => {
                    let bytes = self.special(size)?;
                    self.global.merge(&bytes, true).map_err(|what| LayerError::tar(start, what))?;
                    extended.merge(&bytes, true).map_err(|what| LayerError::tar(start, what))?;
                    continue; // may well be the last thing in the archive
                }
                b'L' => long_path = Some(until_nul(self.special(size)?)),
                b'K' => long_link = Some(until_nul(self.special(size)?)),
                b'V' => {
                    self.expect(size)?;
                    continue;
                }
                _ => {
                    if let Some(path) = long_path {
                        extended.path = Some(path);
                    }
                    if let Some(link) = long_link {
                        extended.link = Some(link);
                    }
                    return self.member(&block, size, extended, start).map(Some);
                }
            }
            announced = true;
        }
    }

    fn member(
        &mut self,
        block: &[u8; 512],
        size: u64,
        mut extended: Extended,
        start: u64,
    ) -> Result<Member, LayerError> {
        let header = Header::from_byte_slice(block);
        let old = header.as_old();
        let sparse_name = extended.sparse.name.take();
        let name = sparse_name.or(extended.path.take()).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.take().or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let field = |bytes: &[u8], what: &str| {
            number(bytes).ok_or_else(|| LayerError::tar(start, format!("{name:?} without a valid {what}")))
        };
        let id = |over: Option<u64>, bytes: &[u8], what: &str| {
            let id = over.map_or_else(|| field(bytes, what).map(|id| u64::try_from(id).unwrap_or(u64::MAX)), Ok)?;
            u32::try_from(id).map_err(|_| LayerError::refused(&name, format!("its {what} is out of range")))
        };
        let device = || -> Result<(u32, u32), LayerError> {
            let number = |at: usize| {
                u32::try_from(field(&block[at..at + 8], "device number")?)
                    .map_err(|_| LayerError::refused(&name, "its device number is out of range"))
            };
            Ok((number(329)?, number(337)?))
        };
        let target = || match link.as_deref() {
            Some(link) if !link.is_empty() && !link.contains(&0) && link.len() < 4096 => Ok(link.to_vec()),
            _ => Err(LayerError::refused(&name, "a link without a valid target")),
        };
        let path = clean(&name).map_err(|why| LayerError::refused(&name, why))?;
        let (mode, uid, gid) = (
            u16::try_from(field(&old.mode, "mode")? & 0o7777).expect("twelve bits fit"),
            id(extended.uid, &old.uid, "owner")?,
            id(extended.gid, &old.gid, "group")?,
        );
        let mtime = match extended.mtime {
            Some(time) => time,
            None => Time { seconds: field(&old.mtime, "time")?, nanoseconds: 0 },
        };
        let mut kind = match block[156] {
            0 if name.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File { size: 0, data: None },
            b'1' => {
                let link = target()?;
                MemberKind::HardLink(clean(&link).map_err(|why| {
                    LayerError::refused(&name, format!("a hard link to {:?}: {why}", super::error::shown(&link)))
                })?)
            }
            b'2' => MemberKind::Symlink(target()?),
            b'3' | b'4' => {
                let (major, minor) = device()?;
                if block[156] == b'3' {
                    MemberKind::CharDevice(major, minor)
                } else {
                    MemberKind::BlockDevice(major, minor)
                }
            }
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => {
                let why = format!("its type {:?} is none that an image may hold", char::from(other));
                return Err(LayerError::refused(&name, why));
            }
        };
        if let MemberKind::File { size: real, .. } = &mut kind {
            *real = self.body_of(block, extended.size.unwrap_or(size), &mut extended, &name)?;
        }
        let xattrs = std::mem::take(&mut extended.xattrs);
        let metadata = path.len()
            + link.map_or(0, |link| link.len())
            + xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 48).sum::<usize>();
        let size = if let MemberKind::File { size, .. } = kind { size } else { 0 };
        self.meter.entry(size, metadata as u64)?;
        Ok(Member { path, mode, uid, gid, mtime, xattrs, kind })
    }

    /// Finds out where the file's bytes lie, and returns its true size.
    fn body_of(
        &mut self,
        block: &[u8; 512],
        stored: u64,
        extended: &mut Extended,
        name: &[u8],
    ) -> Result<u64, LayerError> {
        let damaged = |what: &str| LayerError::refused(name, format!("its map of holes {what}"));
        let mut numbers = None;
        let mut real = extended.sparse.real_size;
        if block[156] == b'S' {
            let header = Header::from_byte_slice(block);
            let gnu = header.as_gnu().ok_or_else(|| damaged("is not GNU tar's"))?;
            let read = gnu.real_size().map_err(|_| damaged("has no size"))?;
            real = Some(read);
            numbers = Some(self.old_gnu_map(gnu).map_err(|error| error.unwrap_or_else(|| damaged("is malformed")))?);
        }
        self.expect(stored)?;
        if numbers.is_none() && real.is_some() {
            numbers = if extended.sparse.major == Some(1) {
                Some(self.map_before_data().map_err(|error| error.unwrap_or_else(|| damaged("is malformed")))?)
            } else {
                extended.sparse.map.take()
            };
        }
        self.body = Body { offset: self.at, stored: self.left, segments: None };
        let (Some(numbers), Some(real)) = (numbers, real) else {
            return Ok(self.left);
        };
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        let (mut end, mut sum) = (0, 0_u64);
        if numbers.len() % 2 != 0 || numbers.len() / 2 > SEGMENTS_MOST {
            return Err(damaged("is malformed"));
        }
        for pair in numbers.chunks_exact(2) {
            let (offset, len) = (pair[0], pair[1]);
            if offset < end || offset.checked_add(len).is_none_or(|to| to > real) {
                return Err(damaged("leads outside the file"));
            }
            end = offset + len;
            sum += len; // at most `real`, as the runs do not overlap
            if len > 0 {
                segments.push(Segment { offset, len });
            }
        }
        if sum != self.left {
            return Err(damaged("does not match its data"));
        }
        self.body.segments = Some(segments);
        Ok(real)
    }

    /// The map in the header and in the blocks behind it. `Err(None)` is a malformed one.
    fn old_gnu_map(&mut self, gnu: &tar::GnuHeader) -> Result<Vec<u64>, Option<LayerError>> {
        let mut numbers = Vec::new();
        let mut take = |entries: &[tar::GnuSparseHeader]| -> Result<(), Option<LayerError>> {
            for entry in entries.iter().filter(|entry| !entry.is_empty()) {
                numbers.push(entry.offset().map_err(|_| None)?);
                numbers.push(entry.length().map_err(|_| None)?);
            }
            if numbers.len() / 2 > SEGMENTS_MOST { Err(None) } else { Ok(()) }
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            if !self.block(extension.as_mut_bytes()).map_err(Some)? {
                return Err(Some(LayerError::Short("a sparse file's map".into())));
            }
            take(extension.sparse())?;
            more = extension.is_extended();
        }
        Ok(numbers)
    }

    /// The map of format 1.0: decimal lines at the head of the data, padded to a block. `Err(None)` is a malformed one.
    fn map_before_data(&mut self) -> Result<Vec<u64>, Option<LayerError>> {
        let mut block = [0; 512];
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut expected = None;
        while expected.is_none_or(|count| numbers.len() < count) {
            self.left = self.left.checked_sub(BLOCK).ok_or(None)?;
            if !self.block(&mut block).map_err(Some)? {
                return Err(Some(LayerError::Short("a sparse file's map".into())));
            }
            text.extend_from_slice(&block);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let number = decimal(&text[..end]).ok_or(None)?;
                text.drain(..=end);
                if expected.is_some() {
                    numbers.push(number);
                } else {
                    let count = usize::try_from(number).ok().filter(|count| *count <= SEGMENTS_MOST).ok_or(None)?;
                    expected = Some(2 * count);
                }
                if expected.is_some_and(|count| numbers.len() == count) {
                    break;
                }
            }
            if text.len() > 2 * 512 && !text.contains(&b'\n') {
                return Err(None);
            }
        }
        Ok(numbers)
    }

    /// Gives the next `len` bytes of the member's data to `sink`, piece by piece.
    pub(crate) fn take(
        &mut self,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        debug_assert!(len <= self.left);
        let mut left = len;
        while left > 0 {
            let piece = self.input.fill_buf().map_err(lift)?;
            if piece.is_empty() {
                return Err(LayerError::Short("a file".into()));
            }
            let now = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&piece[..now])?;
            self.input.consume(now);
            left -= now as u64;
            self.left -= now as u64;
            self.at += now as u64;
        }
        Ok(())
    }

    /// Reads on to the end of the stream, past the end of the archive, and gives the input back.
    pub(crate) fn drain(mut self) -> Result<R, LayerError> {
        loop {
            let len = self.input.fill_buf().map_err(lift)?.len();
            if len == 0 {
                return Ok(self.input);
            }
            self.input.consume(len);
        }
    }

    /// `size` bytes of data follow.
    fn expect(&mut self, size: u64) -> Result<(), LayerError> {
        if size > u64::MAX / 4 {
            return Err(LayerError::tar(self.at, "a size beyond the largest file"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    /// The data of an extended header.
    fn special(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > EXTENDED_MOST {
            return Err(LayerError::tar(self.at, format!("an extended header of {size} bytes")));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        self.take(size, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn skip(&mut self, len: u64) -> Result<(), LayerError> {
        let mut left = len;
        while left > 0 {
            let have = self.input.fill_buf().map_err(lift)?.len() as u64;
            if have == 0 {
                return Err(LayerError::Short("a file".into()));
            }
            let now = have.min(left);
            self.input.consume(usize::try_from(now).expect("no more than a buffer holds"));
            left -= now;
            self.at += now;
        }
        Ok(())
    }

    /// The next header; none at the end of the archive, which two blocks of zeros mark, or the end of the stream.
    fn header_block(&mut self) -> Result<Option<[u8; 512]>, LayerError> {
        let mut block = [0; 512];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block != [0; 512] {
            return Ok(Some(block));
        }
        if self.block(&mut block)? && block != [0; 512] {
            return Err(LayerError::tar(self.at - BLOCK, "something after a block of zeros"));
        }
        Ok(None)
    }

    /// Fills `block`, or says that the stream is at its end.
    fn block(&mut self, block: &mut [u8; 512]) -> Result<bool, LayerError> {
        let mut filled = 0;
        while filled < block.len() {
            let read = self.input.read(&mut block[filled..]).map_err(lift)?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        self.at += filled as u64;
        match filled {
            0 => Ok(false),
            512 => Ok(true),
            _ => Err(LayerError::Short("a header".into())),
        }
    }
}

/// The layer error that travelled inside an [`io::Error`], or a failed read.
fn lift(error: io::Error) -> LayerError {
    match error.downcast::<LayerError>() {
        Ok(error) => error,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => LayerError::Short("its compressed data".into()),
        Err(error) => LayerError::Read(error),
    }
}
