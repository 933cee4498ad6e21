//! Whether a tree in the cache is still the one that was unpacked.
//!
//! Two things can have happened since. The node went down before the kernel had written all pages: nothing is synced while
//! unpacking, ten thousand files would take too long. And a cleaner of temporary files has been at it: they delete one
//! by one what nobody used for some days.
//!
//! The `trust` file tells: its first line names the format and when the tree was unpacked; `directory` lines hold a few
//! directories with the modification times that they were left with, which deleting or adding a name changes; each `boot`
//! line is a boot of this or another node under which the tree was found whole; a `weight` line holds what it takes on disk.
//! Lines are only ever appended.
//!
//! The canary is a file that is written before anything else of the tree, and read never. A cleaner goes by the newest of a
//! file's times (systemd-tmpfiles: access, modification, change and birth; tmpwatch likewise, or by access time alone). The
//! canary's are all from before any other file of the tree was made, so a cleaner that has passed and deleted anything has
//! deleted the canary. Between a cleaner's first deletion and its reaching the canary lies its one pass over this tree.
//!
//! All this is what each start looks at: half a dozen system calls, and one per directory.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::{SystemTime, UNIX_EPOCH},
};

use coracle_format::{Fixup, FixupSet, Index, Kind};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{Mode, SFlag, fstatat},
};

use super::{
    lease::LEASE,
    roots::{ROOT, Root},
};
use crate::unpack::edited_len;

/// Written first, read never.
pub(super) const CANARY: &str = "canary";
/// What was found whole, and when.
pub(super) const TRUST: &str = "trust";
/// The index, decompressed.
pub(super) const INDEX: &str = "index";
/// The table of the tree's names.
pub(super) const NAMES: &str = "names";
/// The list of true modes and owners.
pub(super) const TRUTHS: &str = "truths";

const HEADER: &str = "coracle-tree 1";

/// Directories that are looked at on each start: the fullest ones.
const SAMPLE: usize = 8;

/// Longer than any kernel waits before it writes a page back (30 s by default, plus the time to write).
const SETTLED: i64 = 180;

/// What a look at a tree finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// As it was unpacked.
    Whole,
    /// Nothing is missing at first sight, but the tree was last found whole under another boot.
    OtherBoot {
        /// It had been on the disk for long enough when that boot ended.
        settled: bool,
    },
    /// Something is missing or different.
    Damaged(String),
}

/// This boot of this node.
pub(super) fn boot_id() -> String {
    let mut bytes = [0; 36];
    let read = File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read_exact(&mut bytes));
    match (read, std::str::from_utf8(&bytes)) {
        (Ok(()), Ok(id)) => id.to_owned(),
        // No /proc: then nothing tells boots apart, and no tree of another boot is trusted unseen.
        _ => "unknown".to_owned(),
    }
}

/// Writes the canary into the directory of a new tree, before anything else.
pub(super) fn write_canary(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    write(dir, CANARY, b"A cleaner that deletes old files deletes this one first.\n")
}

/// Writes a new file of the tree's directory.
pub(super) fn write(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    file.write_all(bytes).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Writes down how a tree that was just unpacked looks, and what it weighs.
pub(super) fn write_trust(
    dir: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    index: &Index,
    boot: &str,
    weight: u64,
) -> Result<(), Errno> {
    let mut text = format!("{HEADER} {}\n", now()).into_bytes();
    for path in fullest(index) {
        let shown = if path.is_empty() { b"." } else { path };
        let stat = fstatat(root, shown, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let _ = write!(text, "directory {} {} ", stat.st_mtime, stat.st_mtime_nsec);
        text.extend_from_slice(shown);
        text.push(b'\n');
    }
    let _ = writeln!(text, "weight {weight}");
    let _ = writeln!(text, "boot {boot}");
    write(dir, TRUST, &text)
}

/// What the tree takes on disk, if that was written down.
pub(super) fn weight(dir: BorrowedFd<'_>) -> Option<u64> {
    let text = read(dir).ok()?;
    let mut lines = text.split(|byte| *byte == b'\n');
    std::str::from_utf8(lines.find_map(|line| line.strip_prefix(b"weight "))?).ok()?.parse().ok()
}

/// Adds this boot to those that the tree is trusted under.
pub(super) fn add_boot(dir: BorrowedFd<'_>, boot: &str) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, TRUST, flags, Mode::empty())?);
    let line = format!("boot {boot}\n");
    file.write_all(line.as_bytes()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Whether this process can look at all: it has descriptors left, memory, and no filter that forbids the calls.
///
/// # Errors
/// What it lacks.
pub(super) fn able_to_look(base: BorrowedFd<'_>) -> Result<(), Errno> {
    /// As many as a look has open at once.
    const OPEN: usize = 8;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let _open = (0..OPEN).map(|_| openat(base, ".", flags, Mode::empty())).collect::<Result<Vec<_>, _>>()?;
    fstatat(base, ".", AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match readlinkat(base, ".") {
        // It is no link: so far the kernel looked.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Looks at the tree of `dir`, with its root, if it has one.
pub(super) fn look(dir: BorrowedFd<'_>, root: Option<&Root>, boot: &str) -> Finding {
    let gone = |name: &str| Finding::Damaged(format!("its {name} is gone, as after a cleaner of old files"));
    for name in [CANARY, INDEX] {
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {}
            _ => return gone(name),
        }
    }
    let Ok(text) = read(dir) else { return gone(TRUST) };
    let Some(root) = root.and_then(|root| root.open(dir, OFlag::O_PATH).ok()) else { return gone(ROOT) };
    check(dir, &root, &text, boot).unwrap_or_else(Finding::Damaged)
}

fn check(dir: BorrowedFd<'_>, root: &OwnedFd, text: &[u8], boot: &str) -> Result<Finding, String> {
    let unreadable = || format!("its {TRUST} file is damaged");
    let mut lines = text.split(|byte| *byte == b'\n');
    let header = lines.next().and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(unreadable)?;
    let unpacked: i64 = header.strip_prefix(HEADER).and_then(|rest| rest.trim().parse().ok()).ok_or_else(unreadable)?;
    let mut known = false;
    for line in lines {
        if let Some(rest) = line.strip_prefix(b"boot ") {
            known |= rest == boot.as_bytes() && boot != "unknown";
        } else if let Some(rest) = line.strip_prefix(b"directory ") {
            check_directory(root, rest).ok_or_else(unreadable)??;
        }
    }
    if known {
        return Ok(Finding::Whole);
    }
    // Somebody started from it so late that by then the kernel had written everything.
    let used = fstatat(dir, LEASE, AtFlags::AT_SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_mtime);
    Ok(Finding::OtherBoot { settled: used >= unpacked + SETTLED })
}

/// `None`: no valid line.
fn check_directory(root: &OwnedFd, line: &[u8]) -> Option<Result<(), String>> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<i64>().ok();
    let (seconds, nanoseconds) = (number()?, number()?);
    let path = fields.next()?;
    let shown = || std::ffi::OsStr::from_bytes(path).display().to_string();
    Some(match fstatat(root, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if (stat.st_mtime, stat.st_mtime_nsec) == (seconds, nanoseconds) => Ok(()),
        Ok(_) => Err(format!("its directory {} was changed", shown())),
        Err(_) => Err(format!("its directory {} is gone", shown())),
    })
}

fn read(dir: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, TRUST, flags, Mode::empty())?);
    // One call for what is nearly always all of it.
    let mut text = vec![0; 4096];
    let len = file.read(&mut text).map_err(errno)?;
    let full = len == text.len();
    text.truncate(len);
    if full {
        file.read_to_end(&mut text).map_err(errno)?;
    }
    Ok(text)
}

/// The root and the directories with the most names, short of paths with line breaks.
fn fullest(index: &Index) -> Vec<&[u8]> {
    let mut counts = HashMap::<&[u8], usize>::new();
    for entry in &index.entries {
        let parent = entry.path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &entry.path[..at]);
        *counts.entry(parent).or_default() += 1;
    }
    counts.insert(b"", usize::MAX);
    let mut counts: Vec<_> =
        counts.into_iter().filter(|(path, _)| !path.contains(&b'\n') && path.len() < 1024).collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
    counts.into_iter().take(SAMPLE).map(|(path, _)| path).collect()
}

/// Compares every name of the tree with the index: kind, length and time; of a view's, less what `fixups` say. Reads no
/// content.
pub(super) fn compare(root: BorrowedFd<'_>, index: &Index, fixups: Option<&FixupSet>) -> Result<(), String> {
    let edits: HashMap<u32, &[Fixup]> = fixups.into_iter().flat_map(FixupSet::files).collect();
    for (number, entry) in (0_u32..).zip(&index.entries) {
        // The entry that holds the file's length, and its number.
        let number = if let Kind::HardLink { entry } = entry.kind { entry } else { number };
        let (kind, size) = match &entry.kind {
            Kind::Directory => (SFlag::S_IFDIR, None),
            Kind::File { size, .. } => (SFlag::S_IFREG, Some(*size)),
            Kind::Symlink { target } => (SFlag::S_IFLNK, Some(target.len() as u64)),
            Kind::HardLink { entry } => match index.entries[*entry as usize].kind {
                Kind::File { size, .. } => (SFlag::S_IFREG, Some(size)),
                _ => continue,
            },
            // Not every file system has them.
            Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => continue,
        };
        let path: &[u8] = if entry.path.is_empty() { b"." } else { &entry.path };
        if path.len() > 4000 {
            continue;
        }
        let shown = || std::ffi::OsStr::from_bytes(path).display();
        let stat = fstatat(root, path, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|_| format!("{} is gone", shown()))?;
        let right_time = stat.st_mtime == entry.mtime.seconds || !matches!(entry.kind, Kind::File { .. });
        let edits = edits.get(&number).copied().unwrap_or_default();
        let size = size.map(|size| edited_len(size, &entry.kind, edits));
        let right_size = size.is_none_or(|size| u64::try_from(stat.st_size) == Ok(size));
        if stat.st_mode & SFlag::S_IFMT.bits() != kind.bits() || !right_time || !right_size {
            return Err(format!("{} is not as it was unpacked", shown()));
        }
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
