//! A container's log: what its runs in the background wrote, byte for byte, line by line.
//!
//! One file per container, `logs/log`, only ever appended to: `SECONDS.NANOSECONDS STREAM F|P BYTES`, a line each. `F` ends
//! a line of the program's; `P` is a piece of one, whose end had not come yet (a prompt) or is far away.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The longest piece of a line.
const LONGEST: usize = 16 << 10;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Err,
}

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was read, in seconds since 1970.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// From which stream.
    pub stream: Stream,
    /// The bytes, with the line break if it ends a line.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// Whether it ends a line.
    #[must_use]
    pub fn ends_line(&self) -> bool {
        self.bytes.ends_with(b"\n")
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let (seconds, nanoseconds) = time.split_once('.')?;
        let stream = if fields.next()? == b"stderr" { Stream::Err } else { Stream::Out };
        let whole = fields.next()? == b"F";
        let mut bytes = fields.next()?.to_vec();
        if whole {
            bytes.push(b'\n');
        }
        Some(Self { seconds: seconds.parse().ok()?, nanoseconds: nanoseconds.parse().ok()?, stream, bytes })
    }
}

/// Where a container's log is.
#[must_use]
pub fn path(container: &Path) -> PathBuf {
    container.join("logs/log")
}

/// Writes what a stream brings.
#[derive(Debug)]
pub struct Writer {
    file: File,
    rest: Vec<u8>,
    stream: Stream,
}

impl Writer {
    /// Appends to a container's log.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open(container: &Path, stream: Stream) -> io::Result<Self> {
        let path = path(container);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(Self { file: File::options().append(true).create(true).open(path)?, rest: Vec::new(), stream })
    }

    /// Takes bytes as they come; whole lines are written at once.
    ///
    /// # Errors
    /// What write(2) said; the bytes are lost then.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            self.add(&mut out, &self.rest[from..from + length], 'F');
            from += length + 1;
        }
        while self.rest.len() - from > LONGEST {
            self.add(&mut out, &self.rest[from..from + LONGEST], 'P');
            from += LONGEST;
        }
        self.rest.drain(..from);
        // One write each, so that lines of two streams are never mixed.
        self.file.write_all(&out)
    }

    /// Writes what has come of a line so far: nothing more is on its way at the moment.
    ///
    /// # Errors
    /// What write(2) said.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        self.add(&mut out, &self.rest, 'P');
        self.rest.clear();
        self.file.write_all(&out)
    }

    fn add(&self, out: &mut Vec<u8>, bytes: &[u8], kind: char) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let stream = if self.stream == Stream::Err { "stderr" } else { "stdout" };
        out.extend(format!("{}.{:09} {stream} {kind} ", now.as_secs(), now.subsec_nanos()).bytes());
        out.extend_from_slice(bytes);
        out.push(b'\n');
    }
}

/// Reads a log from its beginning, and again as it grows.
#[derive(Debug)]
pub struct Reader {
    file: File,
    rest: Vec<u8>,
}

impl Reader {
    /// Opens a container's log; none if it has none.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open(container: &Path) -> io::Result<Option<Self>> {
        match File::open(path(container)) {
            Ok(file) => Ok(Some(Self { file, rest: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What was written since the last time; empty at the end.
    ///
    /// # Errors
    /// What read(2) said.
    pub fn more(&mut self) -> io::Result<Vec<Entry>> {
        use std::io::Read as _;
        self.file.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        // A line that a full disk cut short is passed over.
        Ok(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).filter_map(Entry::parse).collect())
    }
}

/// The last lines: `count` of them, with the pieces of the one that has not ended.
#[must_use]
pub fn tail(entries: Vec<Entry>, count: usize) -> Vec<Entry> {
    let mut lines = 0;
    let mut from = entries.len();
    for (at, entry) in entries.iter().enumerate().rev() {
        lines += usize::from(entry.ends_line() || at + 1 == entries.len());
        if lines > count {
            break;
        }
        from = at;
    }
    entries.into_iter().skip(from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut out = Writer::open(dir.path(), Stream::Out).expect("opened");
        let mut err = Writer::open(dir.path(), Stream::Err).expect("opened");
        out.take(b"one\n\ntw").expect("written");
        err.take(b"\xff\xfe F x\n").expect("written");
        out.take(b"o\nprompt> ").expect("written");
        out.flush().expect("written");
        out.flush().expect("nothing to write");
        let mut reader = Reader::open(dir.path()).expect("opened").expect("there");
        let entries = reader.more().expect("read");
        let stream = |stream| {
            let of = entries.iter().filter(|entry| entry.stream == stream);
            of.flat_map(|entry| entry.bytes.clone()).collect::<Vec<u8>>()
        };
        assert_eq!(stream(Stream::Out), b"one\n\ntwo\nprompt> ");
        assert_eq!(stream(Stream::Err), b"\xff\xfe F x\n");
        let last = |count| tail(entries.clone(), count).iter().map(|entry| entry.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(last(0), Vec::<Vec<u8>>::new());
        assert_eq!(last(2), [b"two\n".to_vec(), b"prompt> ".to_vec()]);
        assert_eq!(last(99).len(), entries.len());
        out.take(&[b'x'; 40_000]).expect("written");
        out.take(b"\n").expect("written");
        let more = reader.more().expect("read");
        assert_eq!(more.len(), 3, "a long line comes in pieces");
        assert_eq!(more.iter().map(|entry| entry.bytes.len()).sum::<usize>(), 40_001);
    }
}
