//! Writes down what a run uses, and keeps files as they were before it first changes them ([`coracle_api::recording`]).
//!
//! One place sees everything: paths come here as the call will reach them, after the walk and before the call, and links as
//! the walk crosses them. A file is looked at when it is first met, so what the run itself makes is known as missing. Rules:
//! - A file is copied before the call that may change it is made. Until then nobody in the run can have changed it.
//! - Events speak of a file by the name that it had when the run began: renames of what was there are remembered. Of a
//!   renamed directory all files are copied first, since no later call need name them by a path that tells whose they are.
//! - `/proc` and `/sys` are the node's.
//! - Nothing here fails a call of the guest: what cannot be kept is told in the record, and a record that cannot be written
//!   ends early, which its reader notices.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use coracle_api::{
    Ended,
    recording::{Event, RECORD, SAVED, State, Used},
};
use coracle_intercept::{Act, Call, Guest, Lent, Scratch, Verdict, acts, reach};

use crate::peer::Peer;

const AF_UNIX: u16 = 1;
const AF_INET: [u16; 2] = [2, 10];

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// None once it could not be written to.
    file: Option<File>,
    saved: PathBuf,
    seen: HashMap<Vec<u8>, Seen>,
    /// Number of the copy of a file, by device and inode: its other names mean the same one.
    copies: HashMap<(u64, u64), u32>,
    count: u32,
    renames: Vec<Rename>,
    network: bool,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy)]
struct Seen {
    kind: Kind,
    used: [bool; 3],
    saved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Missing,
    File { device: u64, inode: u64, links: u64 },
    Directory,
    Other,
}

/// Something that was there when the run began, or a directory, has another name now.
#[derive(Debug)]
struct Rename {
    from: Vec<u8>,
    to: Vec<u8>,
    inode: u64,
    /// The call has succeeded.
    happened: bool,
}

impl Recorder {
    /// Begins a record in an empty directory.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let saved = directory.join(SAVED);
        fs::create_dir(&saved)?;
        let file = Some(File::create_new(directory.join(RECORD))?);
        Ok(Self {
            file,
            saved,
            seen: HashMap::new(),
            copies: HashMap::new(),
            count: 0,
            renames: Vec::new(),
            network: false,
        })
    }

    /// A call is about to be made.
    pub(crate) fn entered(&mut self, peer: &Peer<'_>, call: &Call, verdict: Verdict, scratch: &Scratch) {
        if let Some(reach) = reach(call) {
            self.reaches(peer, reach.address, reach.len);
            return;
        }
        if !matches!(verdict, Verdict::Make { .. }) {
            return;
        }
        let paths = scratch.lent().each_ref().map(Lent::path);
        let acts = acts(peer, call);
        for (act, path) in acts.into_iter().zip(paths) {
            let (Some(act), Some(path)) = (act, path) else { continue };
            match act {
                Act::Look => _ = self.look(path),
                Act::Open => self.uses(path, Used::Read),
                Act::Change | Act::Move => self.uses(path, Used::Changed),
            }
        }
        // Last: until the call has been made, its new name means what it meant.
        if let (Some(Act::Move), [Some(from), Some(to)]) = (acts[0], paths) {
            self.renames(from, to);
        }
    }

    /// A file is about to be executed, or mapped as an interpreter.
    pub(crate) fn executes(&mut self, path: &CStr) {
        self.uses(path, Used::Executed);
    }

    /// The walk has crossed a link.
    pub(crate) fn crosses(&mut self, path: &CStr) {
        self.look(path);
    }

    /// The run's program has ended.
    pub(crate) fn ended(&mut self, ended: Ended) {
        self.tell(&Event::Ended(ended));
    }

    fn tell(&mut self, event: &Event) {
        let written = self.file.as_mut().map(|file| file.write_all(&event.encode()));
        if matches!(written, Some(Err(_))) {
            self.file = None;
        }
    }

    /// The name that a file had when the run began, and the one that it has now; none for what is not recorded.
    fn names(&mut self, path: &CStr) -> Option<(Vec<u8>, PathBuf)> {
        let now = plain(path.to_bytes())?;
        let mut then = now.clone();
        for at in (0..self.renames.len()).rev() {
            let Some(rename) = self.renames.get_mut(at) else { continue };
            let Some(rest) = below(&then, &rename.to) else { continue };
            if !rename.happened {
                let to = Path::new(OsStr::from_bytes(&rename.to));
                if fs::symlink_metadata(to).is_ok_and(|found| found.ino() == rename.inode) {
                    rename.happened = true;
                } else {
                    // It failed, or the name means something else by now.
                    self.renames.remove(at);
                    continue;
                }
            }
            then = [&self.renames[at].from, rest].concat();
        }
        Some((then, PathBuf::from(OsStr::from_bytes(&now))))
    }

    /// Looks at a file that is met; its name when the run began, its name now.
    fn look(&mut self, path: &CStr) -> Option<(Vec<u8>, PathBuf)> {
        let (name, now) = self.names(path)?;
        self.look_at(&name, &now);
        Some((name, now))
    }

    fn look_at(&mut self, name: &[u8], now: &Path) -> Seen {
        if let Some(seen) = self.seen.get(name) {
            return *seen;
        }
        let found = fs::symlink_metadata(now);
        let kind = match &found {
            Err(_) => Kind::Missing,
            Ok(found) if found.is_file() => {
                Kind::File { device: found.dev(), inode: found.ino(), links: found.nlink() }
            }
            Ok(found) if found.is_dir() => Kind::Directory,
            Ok(_) => Kind::Other,
        };
        let seen = Seen { kind, used: [false; 3], saved: false };
        self.seen.insert(name.to_vec(), seen);
        match found {
            Ok(found) => {
                self.tell(&Event::Seen(name.to_vec(), State::of(&found)));
                if let Ok(target) = fs::read_link(now) {
                    self.tell(&Event::Link(name.to_vec(), target.as_os_str().as_bytes().to_vec()));
                }
            }
            Err(_) => self.tell(&Event::Missing(name.to_vec())),
        }
        // Another name of a file that was changed already shows the change, and the copy does not.
        if let Kind::File { device, inode, links: 2.. } = kind
            && let Some(number) = self.copies.get(&(device, inode)).copied()
        {
            self.has_copy(name, number);
        }
        seen
    }

    fn uses(&mut self, path: &CStr, how: Used) {
        let Some((name, now)) = self.look(path) else { return };
        if how == Used::Changed {
            self.save(&name, &now);
        }
        let at = how as usize;
        if let Some(seen) = self.seen.get_mut(&name)
            && seen.kind != Kind::Missing
            && !std::mem::replace(&mut seen.used[at], true)
        {
            self.tell(&Event::Used(name, how));
        }
    }

    /// Keeps a file as it is, if it has been there since the run began and is not kept yet.
    fn save(&mut self, name: &[u8], now: &Path) {
        let seen = self.look_at(name, now);
        let Kind::File { device, inode, links } = seen.kind else { return };
        if self.seen.get(name).is_none_or(|seen| seen.saved) {
            return;
        }
        if let Some(number) = self.copies.get(&(device, inode)).copied() {
            return self.has_copy(name, number);
        }
        let number = self.count;
        let copy = self.saved.join(number.to_string());
        match copy_file(now, &copy) {
            Ok(found) => {
                self.count += 1;
                self.has_copy(name, number);
                // Somebody else may have put another file there since: its other names are not this one's.
                if found != (device, inode) {
                    return;
                }
                self.copies.insert(found, number);
                if links > 1 {
                    self.others_have_copy(seen.kind, number);
                }
            }
            Err(error) => {
                let _ = fs::remove_file(&copy);
                if let Some(seen) = self.seen.get_mut(name) {
                    seen.saved = true;
                }
                self.tell(&Event::Unsaved(name.to_vec(), error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    /// The other names of a file show its change too.
    fn others_have_copy(&mut self, kind: Kind, number: u32) {
        let same = |seen: &Seen| match (seen.kind, kind) {
            (Kind::File { device, inode, .. }, Kind::File { device: d, inode: i, .. }) => (device, inode) == (d, i),
            _ => false,
        };
        let others: Vec<Vec<u8>> =
            self.seen.iter().filter(|(_, seen)| same(seen)).map(|(name, _)| name.clone()).collect();
        for name in others {
            self.has_copy(&name, number);
        }
    }

    fn has_copy(&mut self, name: &[u8], number: u32) {
        if let Some(seen) = self.seen.get_mut(name)
            && !std::mem::replace(&mut seen.saved, true)
        {
            self.tell(&Event::Saved(name.to_vec(), number));
        }
    }

    fn renames(&mut self, from: &CStr, to: &CStr) {
        let (Some((name, now)), Some(to)) = (self.look(from), plain(to.to_bytes())) else { return };
        let Ok(found) = fs::symlink_metadata(&now) else { return };
        let made_by_the_run = self.seen.get(&name).is_none_or(|seen| seen.kind == Kind::Missing);
        if found.is_dir() {
            if !made_by_the_run {
                self.save_below(&now);
            }
        } else if made_by_the_run {
            // Its new name is looked at as every other, and is as missing.
            return;
        }
        let from = now.into_os_string();
        self.renames.push(Rename { from: from.as_bytes().to_vec(), to, inode: found.ino(), happened: false });
    }

    /// Keeps all files below a directory that is about to be renamed.
    fn save_below(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let Some((name, now)) =
                std::ffi::CString::new(path.as_os_str().as_bytes()).ok().and_then(|path| self.names(&path))
            else {
                continue;
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    self.look_at(&name, &now);
                    self.save_below(&path);
                }
                Ok(_) => self.save(&name, &now),
                Err(_) => {}
            }
        }
    }

    fn reaches(&mut self, peer: &Peer<'_>, address: u64, len: i32) {
        let mut bytes = [0; 110];
        let len = usize::try_from(len).unwrap_or(0).min(bytes.len());
        if len < 2 || peer.read(address, &mut bytes[..len]).is_err() {
            return;
        }
        let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
        if AF_INET.contains(&family) && !std::mem::replace(&mut self.network, true) {
            self.tell(&Event::Network);
        }
        let name = bytes[2..len.max(2)].split(|byte| *byte == 0).next().unwrap_or_default();
        if family == AF_UNIX && name.first() == Some(&b'/') && !self.seen.contains_key(name) {
            let path = Path::new(OsStr::from_bytes(name));
            let is_there = self.look_at(name, path).kind != Kind::Missing;
            if is_there {
                self.tell(&Event::Socket(name.to_vec()));
            }
        }
    }
}

/// Copies a regular file for its owner alone; says which it was. What others have put in its place meanwhile, a link to
/// what is the user's own or a pipe without a writer, is neither followed nor waited for.
fn copy_file(from: &Path, to: &Path) -> io::Result<(u64, u64)> {
    let mut from = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    let found = from.metadata()?;
    if !found.is_file() {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let mut to = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut from, &mut to)?;
    Ok((found.dev(), found.ino()))
}

/// A host path without doubled and trailing slashes and dots; none for what is not recorded.
fn plain(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let mut plain = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        plain.push(b'/');
        plain.extend_from_slice(part);
    }
    let node = [b"/proc", &b"/sys"[..]].iter().any(|top| below(&plain, top).is_some());
    (!node && !plain.is_empty()).then_some(plain)
}

/// What follows `top` in a path that is `top` or below it.
fn below<'p>(path: &'p [u8], top: &[u8]) -> Option<&'p [u8]> {
    path.strip_prefix(top).filter(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    struct Run {
        dir: tempfile::TempDir,
        recorder: Recorder,
    }

    impl Run {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("the temporary directory is writable");
            fs::create_dir(dir.path().join("record")).expect("just made");
            let recorder = Recorder::new(&dir.path().join("record")).expect("an empty directory");
            Self { dir, recorder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn c(&self, name: &str) -> CString {
            CString::new(self.path(name).as_os_str().as_bytes()).expect("no NUL")
        }

        fn events(&self) -> Vec<Event> {
            let bytes = fs::read(self.path("record").join(RECORD)).expect("it was made");
            Event::decode_all(&bytes).expect("whole")
        }

        fn saved(&self, name: &str) -> Option<Vec<u8>> {
            let path = self.path(name).into_os_string();
            let number = self.events().into_iter().find_map(|event| match event {
                Event::Saved(found, number) if found == path.as_bytes() => Some(number),
                _ => None,
            })?;
            fs::read(self.path("record").join(SAVED).join(number.to_string())).ok()
        }
    }

    #[test]
    fn a_file_is_kept_as_it_was_before_its_first_change_under_every_name() {
        let mut run = Run::new();
        fs::write(run.path("a"), "before").expect("writable");
        fs::hard_link(run.path("a"), run.path("b")).expect("same directory");
        fs::hard_link(run.path("a"), run.path("c")).expect("same directory");
        run.recorder.uses(&run.c("c"), Used::Read);
        run.recorder.uses(&run.c("a"), Used::Changed);
        fs::write(run.path("a"), "after").expect("writable");
        run.recorder.uses(&run.c("a"), Used::Changed);
        run.recorder.uses(&run.c("b"), Used::Read);
        assert_eq!(run.saved("a").as_deref(), Some(&b"before"[..]));
        assert_eq!(run.saved("b").as_deref(), Some(&b"before"[..]));
        assert_eq!(run.saved("c").as_deref(), Some(&b"before"[..]));
    }

    #[test]
    fn what_the_run_makes_was_missing_also_below_a_directory_that_it_renames() {
        let mut run = Run::new();
        run.recorder.look(&run.c("made"));
        fs::create_dir(run.path("made")).expect("writable");
        run.recorder.uses(&run.c("made/f"), Used::Changed);
        fs::write(run.path("made/f"), "x").expect("writable");
        run.recorder.renames(&run.c("made"), &run.c("other"));
        fs::rename(run.path("made"), run.path("other")).expect("same directory");
        run.recorder.uses(&run.c("other/f"), Used::Read);
        let seen = run.events().into_iter().any(|event| matches!(event, Event::Seen(..)));
        assert!(!seen, "{:?}", run.events());
    }

    #[test]
    fn a_renamed_directory_keeps_its_files_under_their_first_names() {
        let mut run = Run::new();
        fs::create_dir(run.path("old")).expect("writable");
        fs::write(run.path("old/f"), "before").expect("writable");
        run.recorder.uses(&run.c("old"), Used::Changed);
        run.recorder.renames(&run.c("old"), &run.c("new"));
        fs::rename(run.path("old"), run.path("new")).expect("same directory");
        run.recorder.uses(&run.c("new/f"), Used::Changed);
        fs::write(run.path("new/f"), "after").expect("writable");
        assert_eq!(run.saved("old/f").as_deref(), Some(&b"before"[..]));
        assert!(run.events().iter().any(|event| matches!(event, Event::Used(path, Used::Changed)
            if path.ends_with(b"old/f"))));
    }

    #[test]
    fn what_others_put_in_a_files_place_is_neither_followed_nor_waited_for() {
        let mut run = Run::new();
        fs::write(run.path("own"), "the user's own").expect("writable");
        for name in ["link", "pipe"] {
            fs::write(run.path(name), "before").expect("writable");
            run.recorder.look(&run.c(name));
            fs::remove_file(run.path(name)).expect("ours");
        }
        std::os::unix::fs::symlink("own", run.path("link")).expect("the name is free");
        nix::unistd::mkfifo(&run.path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("the name is free");
        run.recorder.uses(&run.c("link"), Used::Changed);
        run.recorder.uses(&run.c("pipe"), Used::Changed);
        assert_eq!((run.saved("link"), run.saved("pipe")), (None, None));
        let unsaved = run.events().into_iter().filter(|event| matches!(event, Event::Unsaved(..))).count();
        assert_eq!(unsaved, 2);
    }

    #[test]
    fn a_rename_that_failed_means_nothing() {
        let mut run = Run::new();
        fs::create_dir(run.path("old")).expect("writable");
        fs::create_dir(run.path("new")).expect("writable");
        fs::write(run.path("new/f"), "its own").expect("writable");
        run.recorder.renames(&run.c("old"), &run.c("new"));
        run.recorder.uses(&run.c("new/f"), Used::Read);
        assert!(run.events().iter().any(|event| matches!(event, Event::Used(path, Used::Read)
            if path.ends_with(b"new/f"))));
    }

    #[test]
    fn the_nodes_own_is_not_recorded() {
        assert_eq!(plain(b"/proc/self/maps"), None);
        assert_eq!(plain(b"/proc"), None);
        assert_eq!(plain(b"/"), None);
        assert_eq!(plain(b"relative"), None);
        assert_eq!(plain(b"//a//b/").as_deref(), Some(&b"/a/b"[..]));
        assert_eq!(plain(b"/process").as_deref(), Some(&b"/process"[..]));
    }
}
