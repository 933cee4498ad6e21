//! The record of a run, event by event, as what is known of each path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use coracle_api::{
    Ended,
    recording::{Event, RECORD, SAVED, State, Used},
};

use super::CaptureError;

/// What a run used.
#[derive(Debug, Default)]
pub struct Record {
    /// Every path that was looked up, absolute, and without links on the way.
    pub paths: BTreeMap<Vec<u8>, Met>,
    /// Sockets of the node's that were connected to.
    pub sockets: BTreeSet<Vec<u8>>,
    /// Other nodes were connected to.
    pub network: bool,
    /// How the program ended.
    pub ended: Option<Ended>,
    /// Where copies are.
    directory: PathBuf,
}

/// What is known of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Met {
    /// What was there when it was first met; none if nothing was.
    pub state: Option<State>,
    /// The target, if that was a symbolic link.
    pub target: Option<Vec<u8>>,
    /// It was opened for reading.
    pub read: bool,
    /// It was executed.
    pub executed: bool,
    /// It was opened for writing, replaced or removed.
    pub changed: bool,
    /// A copy of how it was.
    pub saved: Option<PathBuf>,
    /// Why there is none, if one was needed: an error number.
    pub unsaved: Option<i32>,
}

impl Record {
    /// Reads a recording.
    ///
    /// # Errors
    /// [`CaptureError::Record`].
    pub fn read(directory: &Path) -> Result<Self, CaptureError> {
        let broken = |why: String| CaptureError::Record { directory: directory.to_owned(), why };
        let bytes = fs::read(directory.join(RECORD)).map_err(|error| broken(error.to_string()))?;
        let events = Event::decode_all(&bytes).ok_or_else(|| broken("it ends early".to_owned()))?;
        let record = Self::of(events, directory);
        if record.ended.is_none() {
            return Err(broken("the end of the run is not in it".to_owned()));
        }
        Ok(record)
    }

    fn of(events: Vec<Event>, directory: &Path) -> Self {
        let mut record = Self { directory: directory.to_owned(), ..Self::default() };
        for event in events {
            record.add(event);
        }
        record
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Seen(path, state) => self.met(path).state = Some(state),
            Event::Missing(path) => _ = self.met(path),
            Event::Link(path, target) => self.met(path).target = Some(target),
            Event::Used(path, Used::Read) => self.met(path).read = true,
            Event::Used(path, Used::Executed) => self.met(path).executed = true,
            Event::Used(path, Used::Changed) => self.met(path).changed = true,
            Event::Saved(path, number) => {
                self.met(path.clone()).saved = Some(self.directory.join(SAVED).join(number.to_string()));
            }
            Event::Unsaved(path, errno) => self.met(path).unsaved = Some(errno),
            Event::Socket(path) => _ = self.sockets.insert(path),
            Event::Network => self.network = true,
            Event::Ended(ended) => self.ended = Some(ended),
        }
    }

    fn met(&mut self, path: Vec<u8>) -> &mut Met {
        self.paths.entry(path).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_an_end_is_refused() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        assert!(Record::read(dir.path()).is_err());
        let mut bytes = Event::Missing(b"/a".to_vec()).encode();
        fs::write(dir.path().join(RECORD), &bytes).expect("writable");
        assert!(Record::read(dir.path()).is_err());
        bytes.extend(Event::Saved(b"/b".to_vec(), 3).encode());
        bytes.extend(Event::Ended(Ended::Exited(0)).encode());
        fs::write(dir.path().join(RECORD), &bytes).expect("writable");
        let record = Record::read(dir.path()).expect("whole");
        assert_eq!(record.paths[&b"/a"[..]], Met::default());
        assert_eq!(record.paths[&b"/b"[..]].saved, Some(dir.path().join("saved/3")));
    }
}
