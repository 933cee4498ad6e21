//! What a run used of the files that it saw, as an engine writes it down for whoever makes an archive of the run.
//!
//! A recording is a directory: the file [`RECORD`] with one [`Event`] after the other, and in [`SAVED`] copies of files as
//! they were before the run first changed them, by number. Paths are those that files had when the run began, absolute and
//! without symbolic links on the way: each link that was crossed is an event of its own. Every path is told once
//! ([`Event::Seen`] or [`Event::Missing`]) before anything else is told of it.
//!
//! On disk an event is its length (four bytes, little-endian), a letter, and fields with a NUL between them, so one that was
//! cut off by a full disk or a kill is noticed.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use crate::Ended;

/// Name of the events' file.
pub const RECORD: &str = "record";
/// Name of the directory of copies.
pub const SAVED: &str = "saved";

/// What a run does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Used {
    /// Opens it for reading; of a directory, its list of names.
    Read,
    /// Executes it, or maps it as the loader of what is executed.
    Executed,
    /// Changes, replaces or removes it.
    Changed,
}

/// What stat(2) told of a file when it was first met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time: seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// How many names it has.
    pub links: u64,
    /// Which file it is: `st_dev` and `st_ino`.
    pub inode: (u64, u64),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A path is met for the first time, and something is there.
    Seen(Vec<u8>, State),
    /// A path is met for the first time, and nothing is there.
    Missing(Vec<u8>),
    /// The path is a symbolic link with this target.
    Link(Vec<u8>, Vec<u8>),
    /// What is done with it; told once for each way.
    Used(Vec<u8>, Used),
    /// A copy of this number holds it as it was.
    Saved(Vec<u8>, u32),
    /// It is about to be changed, and no copy could be made: an error number.
    Unsaved(Vec<u8>, i32),
    /// A socket of this name is connected to.
    Socket(Vec<u8>),
    /// Another node, or a port of this one, is connected to.
    Network,
    /// The run's program has ended.
    Ended(Ended),
}

impl Event {
    /// The event's bytes on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        let mut put = |letter: u8, fields: &[&[u8]]| {
            bytes.push(letter);
            bytes.extend_from_slice(&fields.join(&0));
        };
        match self {
            Self::Seen(path, state) => {
                let State { mode, uid, gid, size, seconds, nanoseconds, links, inode: (device, inode) } = state;
                let numbers = format!("{mode:o} {uid} {gid} {size} {seconds} {nanoseconds} {links} {device} {inode}");
                put(b'f', &[path, numbers.as_bytes()]);
            }
            Self::Missing(path) => put(b'n', &[path]),
            Self::Link(path, target) => put(b'l', &[path, target]),
            Self::Used(path, Used::Read) => put(b'r', &[path]),
            Self::Used(path, Used::Executed) => put(b'x', &[path]),
            Self::Used(path, Used::Changed) => put(b'c', &[path]),
            Self::Saved(path, number) => put(b's', &[path, number.to_string().as_bytes()]),
            Self::Unsaved(path, errno) => put(b'u', &[path, errno.to_string().as_bytes()]),
            Self::Socket(path) => put(b'k', &[path]),
            Self::Network => put(b'i', &[]),
            Self::Ended(Ended::Exited(status)) => put(b'e', &[status.to_string().as_bytes()]),
            Self::Ended(Ended::Signaled(signal)) => put(b'g', &[signal.to_string().as_bytes()]),
        }
        let len = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
            std::str::from_utf8(bytes).ok()?.parse().ok()
        }
        let (letter, rest) = bytes.split_first()?;
        let mut fields = rest.split(|byte| *byte == 0);
        let first = fields.next()?.to_vec();
        let second = fields.next();
        Some(match letter {
            b'f' => Self::Seen(first, State::decode(std::str::from_utf8(second?).ok()?)?),
            b'n' => Self::Missing(first),
            b'l' => Self::Link(first, second?.to_vec()),
            b'r' => Self::Used(first, Used::Read),
            b'x' => Self::Used(first, Used::Executed),
            b'c' => Self::Used(first, Used::Changed),
            b's' => Self::Saved(first, number(second?)?),
            b'u' => Self::Unsaved(first, number(second?)?),
            b'k' => Self::Socket(first),
            b'i' => Self::Network,
            b'e' => Self::Ended(Ended::Exited(number(&first)?)),
            b'g' => Self::Ended(Ended::Signaled(number(&first)?)),
            _ => return None,
        })
    }

    /// All events of a record's bytes; none if it is damaged or was cut off.
    #[must_use]
    pub fn decode_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut events = Vec::new();
        while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            events.push(Self::decode(rest.get(..len)?)?);
            bytes = &rest[len..];
        }
        bytes.is_empty().then_some(events)
    }
}

impl State {
    /// What was told of a file.
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        Self {
            mode: found.mode(),
            uid: found.uid(),
            gid: found.gid(),
            size: found.size(),
            seconds: found.mtime(),
            nanoseconds: u32::try_from(found.mtime_nsec()).unwrap_or(0),
            links: found.nlink(),
            inode: (found.dev(), found.ino()),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ');
        let mode = u32::from_str_radix(numbers.next()?, 8).ok()?;
        Some(Self {
            mode,
            uid: numbers.next()?.parse().ok()?,
            gid: numbers.next()?.parse().ok()?,
            size: numbers.next()?.parse().ok()?,
            seconds: numbers.next()?.parse().ok()?,
            nanoseconds: numbers.next()?.parse().ok()?,
            links: numbers.next()?.parse().ok()?,
            inode: (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_and_a_cut_record_is_none() {
        let path = b"/a \xff\n".to_vec();
        let state =
            State { mode: 0o100_644, uid: 1, gid: 2, size: 3, seconds: -4, nanoseconds: 5, links: 6, inode: (7, 8) };
        let events = vec![
            Event::Seen(path.clone(), state),
            Event::Missing(path.clone()),
            Event::Link(path.clone(), b"to".to_vec()),
            Event::Used(path.clone(), Used::Read),
            Event::Used(path.clone(), Used::Executed),
            Event::Used(path.clone(), Used::Changed),
            Event::Saved(path.clone(), 7),
            Event::Unsaved(path.clone(), 13),
            Event::Socket(path),
            Event::Network,
            Event::Ended(Ended::Exited(3)),
            Event::Ended(Ended::Signaled(9)),
        ];
        let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
        assert_eq!(Event::decode_all(&bytes), Some(events));
        assert_eq!(Event::decode_all(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Event::decode_all(&[]), Some(Vec::new()));
        assert_eq!(Event::decode_all(&[1, 0, 0, 0, b'?']), None);
    }
}
