//! Where runs meet that are to be in the same namespaces: the ranks of one parallel job on one node.
//!
//! The kernel lets a process read another one's memory (`process_vm_readv`, which MPI libraries copy large messages by) only
//! if it has every power in the other's user namespace, and siblings in namespaces of their own have none over each other.
//! So the first rank makes the namespaces, and the others enter those.
//!
//! A file lists who is in: process, its start time, and the namespaces' inodes. Whoever finds one of them alive, and still
//! in those namespaces, enters them; who finds nobody makes new ones, with the lock held until they are complete. Nothing
//! holds the namespaces but the ranks themselves, so nothing is left behind, whenever any of them is killed.
//!
//! Rules: a line is a hint. What it names is opened first, and then looked at: whose it is, what made it, which it is. A
//! meeting that does not come about is no error: the run has namespaces of its own, as without.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use coracle_api::{Identity, LaunchSpec, RunError};
use nix::sched::{CloneFlags, setns};

use crate::{
    shared::{start_of, stat_of, wait_for},
    sys::Step,
    user,
};

/// How long to wait for the first one, which may have slow file systems to bind. Then it is done without it.
const PATIENCE: Duration = Duration::from_secs(20);
/// A list that is longer names many who have ended.
const LONGEST: usize = 16 << 10;
/// Files of meetings that are over are looked for after this time, so that no run that has just begun is looked at.
const OVER: Duration = Duration::from_secs(60);

/// `NS_GET_USERNS`, `NS_GET_PARENT`, `NS_GET_OWNER_UID` (ioctl_nsfs(2), Linux 4.9 and 4.11).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// A kind of namespace that runs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    flag: CloneFlags,
}

/// In the order in which they are entered: the first gives the power to enter the others.
const KINDS: [Kind; 3] = [
    Kind { name: "user", flag: CloneFlags::CLONE_NEWUSER },
    Kind { name: "mnt", flag: CloneFlags::CLONE_NEWNS },
    Kind { name: "uts", flag: CloneFlags::CLONE_NEWUTS },
];

/// A namespace's device and inode number.
type Inode = (u64, u64);

/// Who a run finds at its meeting.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// Nobody: it makes the namespaces, and is waited for.
    First(First),
    /// Others, whose namespaces these are.
    Joined(Joined),
}

/// The file, and how this process is listed there.
#[derive(Debug)]
struct Seat {
    file: File,
    kinds: &'static [Kind],
    /// This process in `/proc`'s own numbers, and its start time.
    own: (i32, u64),
}

/// The run that makes the namespaces. It holds the lock until it has.
#[derive(Debug)]
pub(crate) struct First {
    seat: Seat,
    path: PathBuf,
}

/// A run that enters namespaces. They are open, so they stay, whoever ends now; the lock is free again.
#[derive(Debug)]
pub(crate) struct Joined {
    seat: Seat,
    namespaces: Vec<File>,
}

impl Meeting {
    /// Goes to the run's meeting, if it has one. Called before this process has entered namespaces of its own.
    pub(crate) fn attend(spec: &LaunchSpec) -> Option<Self> {
        let path = spec.meeting.as_deref()?;
        // A run with processes, a network or messages of its own is alone by its own wish.
        if spec.unshare.pid || spec.unshare.ipc || spec.unshare.net {
            return None;
        }
        let kinds = if spec.unshare.uts || spec.hostname.is_some() { &KINDS[..] } else { &KINDS[..2] };
        let mut file = open_locked(path).ok()?;
        let own = (fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()?, start_of("/proc/self/stat")?);
        let text = contents(&mut file).ok()?;
        let found = text.lines().find_map(|line| Line::parse(line)?.open(kinds));
        if found.is_some() && text.len() > LONGEST {
            // Whoever has ended is of no use any more.
            let live = |line: &&str| Line::parse(line).is_some_and(|it| it.lives());
            let live: String = text.lines().filter(live).map(|line| format!("{line}\n")).collect();
            rewrite(&mut file, &live).ok()?;
        }
        let seat = Seat { file, kinds, own };
        Some(match found {
            Some(namespaces) => {
                unlock(&seat.file);
                Self::Joined(Joined { seat, namespaces })
            }
            None => Self::First(First { seat, path: path.to_owned() }),
        })
    }
}

impl Joined {
    /// Enters the namespaces; false if the kernel does not let this run in, which then makes its own.
    pub(crate) fn enter(mut self, identity: &Identity) -> Result<bool, RunError> {
        for (kind, namespace) in self.seat.kinds.iter().zip(&self.namespaces) {
            match setns(namespace, kind.flag) {
                // Nothing has happened yet.
                Err(_) if kind.flag == CloneFlags::CLONE_NEWUSER => return Ok(false),
                answer => answer.step(|| format!("enter the {} namespace of this job's other ranks", kind.name))?,
            }
        }
        user::become_guest(identity)?;
        if let Some(line) = self.seat.line() {
            show();
            // One write at the end: whole lines, whoever else writes. Without it the others stand for this one.
            let _ = self.seat.file.write_all(line.as_bytes());
        }
        Ok(true)
    }
}

impl First {
    /// This process has just entered new namespaces. They count when [`Begun::open`] says that they are complete; none if
    /// they cannot be told.
    pub(crate) fn begin(self) -> Option<Begun> {
        sweep(&self.path);
        Some(Begun { line: self.seat.line()?, file: self.seat.file })
    }
}

impl Seat {
    /// How this process is listed, in the namespaces in which it is now.
    fn line(&self) -> Option<String> {
        let mut line = format!("{} {}", self.own.0, self.own.1);
        for kind in self.kinds {
            let (device, inode) = inode(&fs::metadata(format!("/proc/self/ns/{}", kind.name)).ok()?);
            line.push_str(&format!(" {device}:{inode}"));
        }
        line.push('\n');
        Some(line)
    }
}

/// A meeting whose first run is about to be complete. Dropped, the lock is free and nobody is there.
#[derive(Debug)]
pub(crate) struct Begun {
    file: File,
    line: String,
}

impl Begun {
    /// Lets the others in.
    pub(crate) fn open(mut self) {
        show();
        // If it cannot be written, the others make their own.
        let _ = rewrite(&mut self.file, &self.line);
        unlock(&self.file);
    }
}

/// Removes what meetings that are over have left beside this one. Called while host paths still mean what they say.
fn sweep(meeting: &Path) {
    let Some(dir) = meeting.parent() else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > OVER);
        if path == meeting || !entry.metadata().and_then(|meta| meta.modified()).is_ok_and(old) {
            continue;
        }
        let Ok(mut file) = open(&path) else { continue };
        // Locked, so that nobody is about to begin there; who waits for the lock sees that the file is gone.
        if try_lock(&file)
            && let Ok(text) = contents(&mut file)
            && !text.lines().any(|line| Line::parse(line).is_some_and(|line| line.lives()))
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// One who is, or was, there.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    process: i32,
    start: u64,
    namespaces: Vec<Inode>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (process, start) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let inode = |field: &str| {
            let (device, inode) = field.split_once(':')?;
            Some((device.parse().ok()?, inode.parse().ok()?))
        };
        Some(Self { process, start, namespaces: fields.map(inode).collect::<Option<_>>()? })
    }

    fn lives(&self) -> bool {
        self.process > 0 && start_of(&stat_of(self.process)) == Some(self.start)
    }

    /// The namespaces, if it is still in those that the line says, and they are what this process may make itself.
    fn open(&self, kinds: &[Kind]) -> Option<Vec<File>> {
        if self.namespaces.len() != kinds.len() || !self.lives() {
            return None;
        }
        let open = |kind: &Kind| File::open(format!("/proc/{}/ns/{}", self.process, kind.name)).ok();
        let files: Vec<File> = kinds.iter().map(open).collect::<Option<_>>()?;
        let same = |(file, inode): (&File, &Inode)| same(file, *inode);
        // The number may have become another process's between the two looks; then these are not its namespaces.
        (files.iter().zip(&self.namespaces).all(same) && self.lives() && is_child_of_ours(&files[0])).then_some(())?;
        files[1..].iter().all(|file| belongs_to(file, self.namespaces[0])).then_some(files)
    }
}

fn inode(meta: &fs::Metadata) -> Inode {
    (meta.dev(), meta.ino())
}

fn same(file: &File, expected: Inode) -> bool {
    file.metadata().is_ok_and(|meta| inode(&meta) == expected)
}

/// Whether a user namespace was made in our own, by this user. A kernel that does not tell decides when it is entered.
fn is_child_of_ours(user: &File) -> bool {
    let mut owner: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t to `owner`, which outlives the call.
    let told = unsafe { libc::ioctl(user.as_raw_fd(), NS_GET_OWNER_UID, &raw mut owner) } == 0;
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (geteuid(2)).
    let us = unsafe { libc::geteuid() };
    let ours = fs::metadata("/proc/self/ns/user").map(|meta| inode(&meta));
    !(told && owner != us) && related(user, NS_GET_PARENT).is_none_or(|parent| ours.is_ok_and(|it| same(&parent, it)))
}

fn belongs_to(namespace: &File, user: Inode) -> bool {
    related(namespace, NS_GET_USERNS).is_none_or(|owner| same(&owner, user))
}

/// The namespace that a request to nsfs answers with, if the kernel knows the request.
fn related(namespace: &File, request: libc::Ioctl) -> Option<File> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: both requests take no argument and give a new descriptor or -1 (ioctl_nsfs(2)).
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    // SAFETY: just made, and owned by nobody else.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
}

/// Who has come to power by a new namespace is hidden from other processes of its user until it executes a program. That
/// program is open to them anyway; to enter its namespaces they must see it from here on.
fn show() {
    // SAFETY: this option takes plain integers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}

/// Opens a meeting's file, made if it is not there; only one of our own is believed.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (geteuid(2)).
    let ours = meta.is_file() && meta.uid() == unsafe { libc::geteuid() } && meta.mode() & 0o022 == 0;
    if ours { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// The same, with the lock: of the file that has that name then.
fn open_locked(path: &Path) -> io::Result<File> {
    let until = Instant::now() + PATIENCE;
    loop {
        let file = open(path)?;
        wait_for(&file, until.saturating_duration_since(Instant::now()))?;
        if file.metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

fn try_lock(file: &File) -> bool {
    // SAFETY: flock takes integers; the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

fn unlock(file: &File) {
    // Forked processes have the descriptor, too: unlocking is not left to closing it.
    // SAFETY: flock takes integers; the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// What a meeting's file says. A file that was damaged says less, and hinders nobody.
fn contents(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn rewrite(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn only_whole_lines_are_believed() {
        let line = Line { process: 12, start: 345, namespaces: vec![(4, 4_026_531_837), (4, 4_026_531_841)] };
        assert_eq!(Line::parse("12 345 4:4026531837 4:4026531841"), Some(line));
        for wrong in ["", "12", "12 345 4", "12 345 4:x", "x 345 4:5", "12 345 4:5 ", "12 345  4:5", "\0\0\0"] {
            assert_eq!(Line::parse(wrong), None, "{wrong:?}");
        }
        let own = std::process::id();
        let start = crate::shared::start_of("/proc/self/stat").expect("this process has one");
        let lives = |start: u64| Line::parse(&format!("{own} {start} 4:5 4:6")).is_some_and(|line| line.lives());
        assert!(lives(start) && !lives(start + 1));
    }
}
