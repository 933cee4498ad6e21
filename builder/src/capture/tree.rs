//! From a record to a tree.
//!
//! Paths of the record have no links on their way, so each goes in as it is, and the links beside it. What was saved
//! comes from its copy; what was only read is taken from where it still is. Directories are made of whatever is met
//! below them.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fs::{self, Metadata},
    io::{self, Read as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use coracle_api::recording::State;
use coracle_format::{Reference, Time, hex};
use sha2::Digest as _;

use super::{CaptureError, Choice, Record, choice::Fate, record::Met};
use crate::flatten::{Data, Inode, InodeId, InodeKind, Tree, open_file};

/// The node's own.
const NODE: [&[u8]; 3] = [b"/proc", b"/sys", b"/dev"];
/// Links that lead to links, at most, as the kernel has it.
const MOST_LINKS: usize = 40;

/// A tree of a run's files, and what is not in it.
#[derive(Debug, Default)]
pub struct Captured {
    /// The tree.
    pub tree: Tree,
    /// Files that are left out because they look like secrets.
    pub secret: BTreeSet<String>,
    /// Files that the user wants left out.
    pub excluded: BTreeSet<String>,
    /// Files that are left out because they cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
    /// Files that are only referred to.
    pub references: Vec<Reference>,
    /// Devices that were used, beyond those that every node has.
    pub devices: BTreeSet<String>,
    /// Files that somebody else changed while the run used them.
    pub unsteady: Vec<String>,
}

/// Takes what the run used, the places that are needed besides, and what the user chose.
///
/// # Errors
/// [`CaptureError::Include`], [`CaptureError::Reference`].
pub fn capture(record: &Record, choice: &Choice, needed: &[PathBuf]) -> Result<Captured, CaptureError> {
    let mut taking = Taking { record, choice, captured: Captured::default(), names: HashMap::new() };
    for place in [&b""[..]].iter().chain(&NODE) {
        taking.directory(place);
    }
    for (path, met) in &record.paths {
        match &met.state {
            Some(_) => taking.met(path, met)?,
            None => taking.parents_of(path),
        }
    }
    if choice.listed {
        for (path, _) in record.paths.iter().filter(|(_, met)| met.read && met.state.is_some_and(is_directory)) {
            taking.below(path, false)?;
        }
    }
    for place in needed {
        // Not there, not needed.
        let _ = taking.walk(place);
    }
    for path in &choice.include {
        let found = taking.walk(path).map_err(|why| CaptureError::Include { path: path.clone(), why })?;
        taking.below(found.as_os_str().as_bytes(), true)?;
    }
    Ok(taking.captured)
}

struct Taking<'a> {
    record: &'a Record,
    choice: &'a Choice,
    captured: Captured,
    /// Files by device and inode: their other names are names of the same.
    names: HashMap<(u64, u64), InodeId>,
}

impl Taking<'_> {
    /// Takes one path of the record.
    fn met(&mut self, path: &[u8], met: &Met) -> Result<(), CaptureError> {
        let Some(state) = met.state else { return Ok(()) };
        if self.has(path) || self.is_nodes(path, &state) || !self.is_chosen(path, &state) {
            return Ok(());
        }
        let is_file = state.mode & libc::S_IFMT == libc::S_IFREG;
        let other = self.names.get(&state.inode).copied().filter(|_| is_file && state.links > 1);
        if let Some(id) = other {
            self.name(path, id);
            return Ok(());
        }
        let inode = |kind| Some(inode(&state, kind));
        let entry = match state.mode & libc::S_IFMT {
            libc::S_IFDIR => inode(InodeKind::Directory),
            libc::S_IFLNK => met.target.clone().and_then(|target| inode(InodeKind::Symlink(target))),
            libc::S_IFREG => self.file(path, met, &state)?.and_then(inode),
            libc::S_IFIFO => inode(InodeKind::Fifo),
            // Sockets are told of where they are connected to.
            _ => None,
        };
        if let Some(entry) = entry {
            let id = self.put(path, entry);
            if is_file {
                self.names.insert(state.inode, id);
            }
        } else {
            self.parents_of(path);
        }
        Ok(())
    }

    /// Whether the path is the node's own; devices are noted.
    fn is_nodes(&mut self, path: &[u8], state: &State) -> bool {
        let is_device = matches!(state.mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
        if is_device && !is_common(path) {
            self.captured.devices.insert(text(path));
        }
        is_device || NODE.iter().any(|top| is_at_or_below(path, top))
    }

    fn is_chosen(&mut self, path: &[u8], state: &State) -> bool {
        let fate = self.choice.fate(path);
        let list = match fate {
            Fate::Taken => return true,
            Fate::Excluded => &mut self.captured.excluded,
            Fate::Secret => &mut self.captured.secret,
        };
        if !is_directory(*state) {
            list.insert(text(path));
        }
        false
    }

    /// Where a regular file's bytes are; none if it does not go in.
    fn file(&mut self, path: &[u8], met: &Met, state: &State) -> Result<Option<InodeKind>, CaptureError> {
        let host = host(path);
        let source = met.saved.clone().unwrap_or_else(|| host.clone());
        let found = match open_file(&source).and_then(|file| file.metadata()) {
            Ok(found) => found,
            Err(error) => {
                self.captured.unreadable.push((text(path), error.to_string()));
                return Ok(None);
            }
        };
        if met.saved.is_none() {
            if (found.len(), found.mtime()) != (state.size, state.seconds) || met.unsaved.is_some() {
                self.captured.unsteady.push(text(path));
            }
            if self.choice.reference_larger.is_some_and(|most| found.len() > most) {
                let sha256 = digest(&host).map_err(|why| CaptureError::Reference { path: host, why })?;
                self.captured.references.push(Reference { path: text(path), size: found.len(), sha256 });
                return Ok(None);
            }
        }
        Ok(Some(InodeKind::File { size: found.len(), data: Data::Host(source) }))
    }

    /// Takes what is at a path now, whether the run has used it or not. Where it has, as it was then.
    fn now(&mut self, path: &[u8]) -> Result<(), CaptureError> {
        if let Some(met) = self.record.paths.get(path) {
            // What the run made is not there for a run that begins.
            return if met.state.is_some() { self.met(path, met) } else { Ok(()) };
        }
        let Ok(found) = fs::symlink_metadata(host(path)) else { return Ok(()) };
        let target = fs::read_link(host(path)).ok().map(|target| target.into_os_string().into_vec());
        let met = Met { state: Some(State::of(&found)), target, ..Met::default() };
        if found.file_type().is_socket() {
            return Ok(());
        }
        self.met(path, &met)
    }

    /// Takes what is in a directory, and with `deep` all that is below.
    fn below(&mut self, directory: &[u8], deep: bool) -> Result<(), CaptureError> {
        let mut open = VecDeque::from([directory.to_vec()]);
        while let Some(directory) = open.pop_front() {
            let Ok(entries) = fs::read_dir(host(&directory)) else { continue };
            let mut names: Vec<Vec<u8>> = entries.flatten().map(|entry| entry.file_name().into_vec()).collect();
            names.sort();
            for name in names {
                let path = [if directory == b"/" { &b""[..] } else { &directory }, b"/", &name].concat();
                if NODE.iter().any(|top| is_at_or_below(&path, top)) {
                    continue;
                }
                self.now(&path)?;
                let is_dir = fs::symlink_metadata(host(&path)).is_ok_and(|found| found.is_dir());
                if deep && is_dir && self.choice.fate(&path) == Fate::Taken {
                    open.push_back(path);
                }
            }
        }
        Ok(())
    }

    /// Walks to a place of the host, taking every link on the way; where it leads.
    fn walk(&mut self, place: &Path) -> io::Result<PathBuf> {
        let mut rest: VecDeque<PathBuf> = parts(place);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == Path::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let found = fs::symlink_metadata(&next)?;
            // Whatever keeps it from being taken is told with the rest.
            let _ = self.now(next.as_os_str().as_bytes());
            if !found.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                rest.push_front(part);
            }
        }
        Ok(at)
    }

    fn has(&self, path: &[u8]) -> bool {
        self.captured.tree.paths.contains_key(inside(path))
    }

    /// The directories above a path that are there: where the run looked for something that was not, or put something.
    fn parents_of(&mut self, path: &[u8]) {
        let mut above = path;
        while let Some(slash) = above.iter().rposition(|byte| *byte == b'/') {
            above = &above[..slash];
            let made_by_the_run = self.record.paths.get(above).is_some_and(|met| met.state.is_none());
            if above.is_empty() || made_by_the_run || NODE.iter().any(|top| is_at_or_below(above, top)) {
                continue;
            }
            if fs::symlink_metadata(host(above)).is_ok_and(|found| found.is_dir()) {
                self.directory(above);
                return;
            }
        }
    }

    /// Takes a directory, as it was met or else as it is.
    fn directory(&mut self, path: &[u8]) {
        if self.has(path) {
            return;
        }
        let met = self.record.paths.get(path).and_then(|met| met.state).filter(|state| is_directory(*state));
        let now = || fs::symlink_metadata(host(path)).ok().filter(Metadata::is_dir).map(|found| State::of(&found));
        let state = met.or_else(now).unwrap_or(State { mode: libc::S_IFDIR | 0o755, ..State::default() });
        self.put(path, inode(&state, InodeKind::Directory));
    }

    fn put(&mut self, path: &[u8], inode: Inode) -> InodeId {
        let id = self.captured.tree.add(inode);
        self.name(path, id);
        id
    }

    fn name(&mut self, path: &[u8], id: InodeId) {
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            self.directory(&path[..slash]);
        }
        self.captured.tree.paths.insert(inside(path).to_vec(), id);
    }
}

/// A path of the record as one of the tree's.
fn inside(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path of the record as one of the host's.
fn host(path: &[u8]) -> PathBuf {
    let path = if path.is_empty() { b"/" } else { path };
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

fn is_directory(state: State) -> bool {
    state.mode & libc::S_IFMT == libc::S_IFDIR
}

/// Devices that every node has.
fn is_common(path: &[u8]) -> bool {
    let Some(name) = path.strip_prefix(b"/dev/") else { return false };
    let names: [&[u8]; 9] =
        [b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx", b"console", b"pts/ptmx"];
    names.contains(&name) || name.starts_with(b"pts/") || name.starts_with(b"tty")
}

/// The components of a path that say something.
fn parts(path: &Path) -> VecDeque<PathBuf> {
    let says = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(says).map(|part| PathBuf::from(part.as_os_str())).collect()
}

fn inode(state: &State, kind: InodeKind) -> Inode {
    Inode {
        mode: u16::try_from(state.mode & 0o7777).unwrap_or(0o644),
        uid: state.uid,
        gid: state.gid,
        mtime: Time { seconds: state.seconds, nanoseconds: state.nanoseconds },
        xattrs: Vec::new(),
        kind,
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (open_file(path)?, sha2::Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize().into())),
            len => hash.update(&buffer[..len]),
        }
    }
}
