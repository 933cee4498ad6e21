//! Where the trees themselves lie: right below `coracle-UID`, beside what is kept about them.
//!
//! The kernel walks the host path of every file that a guest names, so each directory above a tree's root costs each call a
//! few hundredths. A tree's directory, or a view's, therefore holds a link to its root instead of the root:
//!
//! ```text
//! coracle-UID/root-xxxxxxxxxx/          the tree
//! coracle-UID/root-yyyyyyyyyy/          the view
//! coracle-UID/DIGEST/root               -> ../root-xxxxxxxxxx
//! coracle-UID/DIGEST/view-…/root        -> ../../root-yyyyyyyyyy
//! coracle-UID/.run-…/root/              the tree of one run alone is in its directory, and goes with it
//! ```
//!
//! Rules:
//! - A root's name is drawn once and never used again: what replaces a tree has another root, so whoever runs in the old one
//!   goes on there.
//! - A root says nothing by itself: it belongs to the directory whose link names it, and is whole, in use or left over
//!   as that one is. So one rename still makes a tree.
//! - The link is made before its root and removed after it: at every moment a killed process leaves a directory by which
//!   the root is found. What a cleaner of old files has taken the link from is looked for as well ([`lost`]).

use std::{
    ffi::OsStr,
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use coracle_format::parse_hex;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, symlinkat, unlinkat},
};

use super::{base::Base, scratch::remove_locked};

/// The link's name, or the root's where it is inside.
pub(super) const ROOT: &str = "root";

const PREFIX: &str = "root-";
const DRAWN: usize = 10;

/// A root that nobody names is left alone for so long after it was last changed; longer where another node may have made it,
/// since names are seen late there, and clocks differ.
const YOUNG: Duration = Duration::from_mins(1);
const YOUNG_ELSEWHERE: Duration = Duration::from_hours(1);

/// Where a root lies, as seen from the directory that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root(String);

impl Root {
    /// The root of a tree or a view.
    pub(super) fn of(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        match readlinkat(dir, ROOT) {
            Ok(target) => Self::parse(&target).ok_or(Errno::ELOOP),
            Err(Errno::EINVAL) => Ok(Self::default()),
            Err(errno) => Err(errno),
        }
    }

    fn parse(target: &OsStr) -> Option<Self> {
        let target = target.to_str()?;
        let rest = target.strip_prefix("../")?;
        is_name(rest.strip_prefix("../").unwrap_or(rest)).then(|| Self(target.to_owned()))
    }

    /// Makes an empty one, so many directories above, with its link; at 0, without one.
    pub(super) fn make(dir: BorrowedFd<'_>, up: usize) -> Result<Self, Errno> {
        if up == 0 {
            mkdirat(dir, ROOT, Mode::S_IRWXU)?;
            return Ok(Self::default());
        }
        let target = "../".repeat(up) + &draw();
        symlinkat(target.as_str(), dir, ROOT)?;
        match mkdirat(dir, target.as_str(), Mode::S_IRWXU) {
            Ok(()) => Ok(Self(target)),
            Err(errno) => {
                // It names what is none of ours.
                unlinkat(dir, ROOT, UnlinkatFlags::NoRemoveDir)?;
                Err(errno)
            }
        }
    }

    /// Opens it.
    pub(super) fn open(&self, dir: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(dir, self.0.as_str(), flags, Mode::empty())
    }

    /// Its path, from that of the directory that it belongs to.
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        let (mut place, mut rest) = (dir, self.0.as_str());
        while let Some(less) = rest.strip_prefix("../") {
            (place, rest) = (place.parent().unwrap_or(place), less);
        }
        place.join(rest)
    }
}

impl Default for Root {
    /// The one inside.
    fn default() -> Self {
        Self(ROOT.to_owned())
    }
}

/// The path that a root above a directory will have, but for the letters that are drawn.
pub(super) fn like(dir: &Path, up: usize) -> PathBuf {
    Root("../".repeat(up) + PREFIX + &"x".repeat(DRAWN)).path(dir)
}

fn is_name(name: &str) -> bool {
    let is_drawn = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.strip_prefix(PREFIX).is_some_and(|drawn| drawn.len() == DRAWN && drawn.bytes().all(is_drawn))
}

/// A name that no other root has or had.
fn draw() -> String {
    const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // Keyed by chance; a child of fork(2) has its parent's keys, but neither its number nor its time.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u128(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos()));
    let mut number = hasher.finish();
    let mut name = PREFIX.to_owned();
    for _ in 0..DRAWN {
        let letter = usize::try_from(number % 36).unwrap_or(0);
        name.push(char::from(LETTERS[letter]));
        number /= 36;
    }
    name
}

/// What belongs to a tree: itself and the views in its directory, those that are half made or on their way out, too.
fn parts(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let views = names.filter(|name| is_part(name.as_bytes())).map(|name| dir.join(name));
    std::iter::once(dir.to_owned()).chain(views.collect::<Vec<_>>())
}

fn is_part(name: &[u8]) -> bool {
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    (starts("view-") || starts(".new-") || starts(".old-")) && !name.windows(5).any(|part| part == b".lock")
}

/// The roots beside a tree's directory: its own and its views'.
pub(super) fn beside(dir: &Path) -> Vec<PathBuf> {
    let root = |part: PathBuf| {
        let target = fs::read_link(part.join(ROOT)).ok()?;
        Some(Root::parse(target.as_os_str())?.path(&part)).filter(|path| !path.starts_with(dir))
    };
    parts(dir).filter_map(root).collect()
}

/// Removes a tree's directory and its roots, which go first.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    for root in beside(dir) {
        match remove_locked(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    remove_locked(dir)
}

/// Roots in `base` that no directory names: a cleaner has taken the link, or an older version the directory.
///
/// A link is older than its root, so every root that is listed first has its link in what is listed then, unless that
/// was renamed meanwhile: then none is said to be lost.
pub(super) fn lost(base: &Base) -> Vec<PathBuf> {
    let young = if base.is_network() { YOUNG_ELSEWHERE } else { YOUNG };
    base.path().map(|path| lost_before(&path, SystemTime::now() - young)).unwrap_or_default()
}

pub(super) fn lost_before(base: &Path, time: SystemTime) -> Vec<PathBuf> {
    find_lost(base, time).unwrap_or_default()
}

fn find_lost(base: &Path, time: SystemTime) -> io::Result<Vec<PathBuf>> {
    let list = |dir: &Path| -> io::Result<Vec<_>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect() };
    let is_root = |name: &OsStr| name.to_str().is_some_and(is_name);
    let mut roots: Vec<_> = list(base)?.into_iter().filter(|name| is_root(name)).map(|name| base.join(name)).collect();
    roots.retain(|root| fs::symlink_metadata(root).is_ok_and(|data| is_before(&data, time)));
    if roots.is_empty() {
        return Ok(roots);
    }
    for name in list(base)? {
        let is_tree = name.to_str().is_some_and(|name| parse_hex(name).is_some());
        if !is_tree && !is_part(name.as_bytes()) {
            continue;
        }
        let dir = base.join(&name);
        let inside = match list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            inside => inside?,
        };
        let views = inside.into_iter().filter(|name| is_part(name.as_bytes()));
        for part in std::iter::once(dir.clone()).chain(views.map(|name| dir.join(name))) {
            match fs::read_link(part.join(ROOT)) {
                Ok(target) => {
                    let named = Root::parse(target.as_os_str()).map(|root| root.path(&part));
                    roots.retain(|root| Some(root) != named.as_ref());
                }
                // Without a link, if it is still there.
                Err(_) => {
                    fs::symlink_metadata(&part)?;
                }
            }
        }
    }
    Ok(roots)
}

/// Whether it is a directory that was changed last before that time.
fn is_before(data: &fs::Metadata, time: SystemTime) -> bool {
    let changed = u64::try_from(data.ctime()).map(Duration::from_secs).unwrap_or_default();
    data.is_dir() && SystemTime::UNIX_EPOCH + changed < time
}
