//! Owners and modes that the tree on disk does not show, by path.
//!
//! The file is text but for the paths: `MODE UID GID MAJOR:MINOR PATH` and a NUL byte for each, mode (with the file's type)
//! in octal, path below the root. What is not in it belongs to root, with the mode that it has on disk. The last line is
//! `end COUNT` and a NUL, so that a list that was cut or emptied is no shorter list.

use std::{collections::BTreeMap, fs, io, path::Path};

/// What a file is to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// (major, minor) of a device, which is an empty file on disk.
    pub device: (u32, u32),
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Vec<u8>, Owner>);

impl Owners {
    /// Adds a path.
    pub fn insert(&mut self, path: &[u8], owner: Owner) {
        self.0.insert(path.to_vec(), owner);
    }

    /// What a path should be.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Owner> {
        self.0.get(path)
    }

    /// All of them, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Owner)> {
        self.0.iter().map(|(path, owner)| (path.as_slice(), owner))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, Owner { mode, uid, gid, device: (major, minor) }) in &self.0 {
            bytes.extend_from_slice(format!("{mode:o} {uid} {gid} {major}:{minor} ").as_bytes());
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        bytes.extend_from_slice(format!("end {}\0", self.0.len()).as_bytes());
        bytes
    }

    /// The file's bytes understood; `None` if they are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut owners = Self::default();
        let mut rest = bytes;
        loop {
            let end = rest.iter().position(|byte| *byte == 0)?;
            if let Some(count) = rest[..end].strip_prefix(b"end ") {
                let is_whole = rest.len() == end + 1 && count == owners.0.len().to_string().as_bytes();
                return is_whole.then_some(owners);
            }
            let mut fields = rest[..end].splitn(5, |byte| *byte == b' ');
            let mut text = || std::str::from_utf8(fields.next()?).ok();
            let mode = u32::from_str_radix(text()?, 8).ok()?;
            let (uid, gid) = (text()?.parse().ok()?, text()?.parse().ok()?);
            let (major, minor) = text()?.split_once(':')?;
            let device = (major.parse().ok()?, minor.parse().ok()?);
            owners.insert(fields.next()?, Owner { mode, uid, gid, device });
            rest = &rest[end + 1..];
        }
    }

    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` if it is damaged.
    pub fn load(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Self::decode(&bytes)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the list of owners is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}
