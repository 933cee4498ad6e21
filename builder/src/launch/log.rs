//! A container's log: what its runs in the background wrote, byte for byte, line by line.
//!
//! `logs/log`, only ever appended to: `SECONDS.NANOSECONDS STREAM F|P BYTES`, a line each. `F` ends a line of the program's;
//! `P` is a piece of one, whose end had not come yet (a prompt) or is far away. A log that has reached its bound becomes
//! `logs/log.1`, the former `log.1` becomes `log.2`, and the oldest goes: nobody's home is filled by a program that talks.
//! Several writers may have the log open (two streams, `exec -d`): each sees by the file's identity that it was renamed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

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

/// How large a log may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Bytes of one file; 0 for any number.
    pub size: u64,
    /// Files, the one that is written to among them.
    pub files: u32,
}

impl Default for Bound {
    /// 2 files of 32 MiB.
    fn default() -> Self {
        Self { size: 32 << 20, files: 2 }
    }
}

/// Writes what a stream brings.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    bound: Bound,
    file: File,
    rest: Vec<u8>,
    stream: Stream,
}

impl Writer {
    /// Appends to a container's log.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open(container: &Path, stream: Stream, bound: Bound) -> io::Result<Self> {
        let path = path(container);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(Self { file: append(&path)?, path, bound, rest: Vec::new(), stream })
    }

    /// Whether part of a line has come that is not written yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Writes to the log as it is now: a new one, if another writer or this one has put the old one away.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = usize::try_from(self.bound.size).unwrap_or(usize::MAX);
        let mut rest = bytes;
        while most > 0 && rest.len() > most {
            // As many whole entries as one file takes, or one that is longer than that.
            let end = rest[..most].iter().rposition(|byte| *byte == b'\n');
            let end = end.or_else(|| rest.iter().position(|byte| *byte == b'\n')).map_or(rest.len(), |at| at + 1);
            self.write_entries(&rest[..end])?;
            rest = &rest[end..];
        }
        if rest.is_empty() { Ok(()) } else { self.write_entries(rest) }
    }

    fn write_entries(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bound.size > 0 {
            let own = self.file.metadata()?;
            let is_current = |meta: &fs::Metadata| (meta.dev(), meta.ino()) == (own.dev(), own.ino());
            let current = fs::metadata(&self.path).is_ok_and(|meta| is_current(&meta));
            if !current {
                self.file = append(&self.path)?;
            } else if own.len() > 0 && own.len() + bytes.len() as u64 > self.bound.size {
                self.put_away(is_current)?;
            }
        }
        self.file.write_all(bytes)
    }

    /// Renames the log, unless another writer has done so meanwhile.
    fn put_away(&mut self, is_current: impl Fn(&fs::Metadata) -> bool) -> io::Result<()> {
        let lock = File::options().append(true).create(true).open(self.path.with_extension("lock"))?;
        // Where there are no locks, two writers that rotate at one moment put away an empty log.
        let _ = lock.lock();
        if fs::metadata(&self.path).is_ok_and(|meta| is_current(&meta)) {
            for number in (1..self.bound.files).rev() {
                let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
                match fs::rename(&from, numbered(&self.path, number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            if self.bound.files < 2 {
                fs::remove_file(&self.path)?;
            }
        }
        self.file = append(&self.path)?;
        Ok(())
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
        self.write(&out)
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
        self.write(&out)
    }

    fn add(&self, out: &mut Vec<u8>, bytes: &[u8], kind: char) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let stream = if self.stream == Stream::Err { "stderr" } else { "stdout" };
        out.extend(format!("{}.{:09} {stream} {kind} ", now.as_secs(), now.subsec_nanos()).bytes());
        out.extend_from_slice(bytes);
        out.push(b'\n');
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(number.to_string())
}

/// Reads a log from its beginning, and again as it grows.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// Older files that are still to be read, the oldest last.
    older: Vec<File>,
    file: File,
    rest: Vec<u8>,
}

impl Reader {
    /// Opens a container's log; none if it has none.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open(container: &Path) -> io::Result<Option<Self>> {
        let path = path(container);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let older = (1..).map_while(|number| File::open(numbered(&path, number)).ok());
        Ok(Some(Self { older: older.collect(), file, rest: Vec::new(), path }))
    }

    /// What was written since the last time; empty at the end.
    ///
    /// # Errors
    /// What read(2) said.
    pub fn more(&mut self) -> io::Result<Vec<Entry>> {
        while let Some(mut older) = self.older.pop() {
            older.read_to_end(&mut self.rest)?;
        }
        loop {
            self.file.read_to_end(&mut self.rest)?;
            // A log that was put away meanwhile is at its end: nobody writes to it any more, but for a moment.
            let own = self.file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(meta) if (meta.dev(), meta.ino()) != (own.dev(), own.ino()) => {
                    self.file.read_to_end(&mut self.rest)?;
                    self.file = File::open(&self.path)?;
                }
                _ => break,
            }
        }
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
        let mut out = Writer::open(dir.path(), Stream::Out, Bound::default()).expect("opened");
        let mut err = Writer::open(dir.path(), Stream::Err, Bound::default()).expect("opened");
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
    #[test]
    fn a_log_is_bounded_and_its_readers_follow() {
        let dir = tempfile::tempdir().expect("a directory");
        let bound = Bound { size: 1000, files: 3 };
        let mut out = Writer::open(dir.path(), Stream::Out, bound).expect("opened");
        let mut err = Writer::open(dir.path(), Stream::Err, bound).expect("opened");
        let mut follower = Reader::open(dir.path()).expect("opened").expect("there");
        let mut followed = Vec::new();
        let mut all = Vec::new();
        for number in 0..200 {
            let line = format!("line {number}\n").into_bytes();
            if number % 3 == 0 { err.take(&line) } else { out.take(&line) }.expect("written");
            followed.extend(follower.more().expect("read").into_iter().flat_map(|entry| entry.bytes));
            all.extend(line);
        }
        assert_eq!(followed, all, "who follows misses nothing");
        let entries = Reader::open(dir.path()).expect("opened").expect("there").more().expect("read");
        let kept: Vec<u8> = entries.into_iter().flat_map(|entry| entry.bytes).collect();
        assert!(all.ends_with(&kept) && kept.len() > 500, "the newest is kept, in order");
        let files: Vec<_> = fs::read_dir(dir.path().join("logs")).expect("listed").flatten().collect();
        let total: u64 = files.iter().map(|file| file.metadata().expect("there").len()).sum();
        assert!(files.len() == 4 && total <= 3000, "three files and a lock, {total} bytes");
    }
}
