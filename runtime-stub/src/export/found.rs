//! A file that a run has left, described as an index describes it.
//!
//! On disk files have less than in the image: no write and set-id bits on shared ones, one owner for all. So what the image
//! says of a name still counts where the disk shows what unpacking writes for it; else what the disk shows, or the ledger
//! that a pretended root kept.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use coracle_format::{Content, Entry, Kind, Time, Xattr};
use coracle_ledger::{Inode, Ledger};

/// Beginning of the names of overlayfs's own attributes.
const MARKS: &[u8] = b"user.overlay.";

/// A file on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) host: PathBuf,
    pub(super) meta: Metadata,
    /// Marks a directory of an overlay's that hides the one below.
    pub(super) opaque: bool,
    xattrs: Vec<Xattr>,
    target: Vec<u8>,
}

impl Found {
    pub(super) fn look(host: PathBuf) -> io::Result<Self> {
        let meta = fs::symlink_metadata(&host)?;
        let (mut xattrs, mut target) = (Vec::new(), Vec::new());
        if meta.is_symlink() {
            target = fs::read_link(&host)?.into_os_string().into_encoded_bytes();
        } else if meta.is_dir() || meta.is_file() {
            xattrs = attributes(&host)?;
        }
        let opaque = xattrs.iter().any(|x| x.name.strip_prefix(MARKS) == Some(b"opaque") && x.value == b"y");
        xattrs.retain(|xattr| !xattr.name.starts_with(MARKS));
        Ok(Self { host, meta, opaque, xattrs, target })
    }

    /// The mark of what an overlay has removed.
    pub(super) fn is_whiteout(&self) -> bool {
        self.meta.file_type().is_char_device() && self.meta.rdev() == 0
    }

    /// What it is; none for sockets, and for devices, which nobody but root can have made.
    fn kind(&self) -> Option<Kind> {
        let kind = self.meta.file_type();
        let content = Content { frame: 0, offset: 0 };
        Some(match () {
            () if kind.is_dir() => Kind::Directory,
            () if kind.is_file() => Kind::File { size: self.meta.len(), content },
            () if kind.is_symlink() => Kind::Symlink { target: self.target.clone() },
            () if kind.is_fifo() => Kind::Fifo,
            () => return None,
        })
    }

    /// Its entry at `path`, where the image had `was`; none if it cannot be in an image.
    pub(super) fn entry(&self, path: &[u8], was: Option<&Entry>, owners: &Owners) -> Option<Entry> {
        let kind = self.kind()?;
        let was = was.filter(|was| same_kind(&was.kind, &kind));
        let disk = u16::try_from(self.meta.mode() & 0o7777).unwrap_or(0);
        let mut entry = Entry {
            path: path.to_vec(),
            mode: was.map(|was| was.mode).filter(|mode| shows_as(*mode, &kind).contains(&disk)).unwrap_or(disk),
            uid: if self.meta.uid() == owners.me.0 { was.map_or(0, |was| was.uid) } else { self.meta.uid() },
            gid: if self.meta.gid() == owners.me.1 { was.map_or(0, |was| was.gid) } else { self.meta.gid() },
            mtime: Time { seconds: self.meta.mtime(), nanoseconds: u32::try_from(self.meta.mtime_nsec()).unwrap_or(0) },
            xattrs: self.xattrs.clone(),
            kind,
        };
        if let Some(was) = was.filter(|was| was.kind == Kind::Directory) {
            // Names come and go in it; its own time says nothing that anybody asks.
            entry.mtime = was.mtime;
        }
        if let Some(was) = was {
            // What only root may set, no disk of ours has.
            let lost = was.xattrs.iter().filter(|xattr| !xattr.name.starts_with(b"user.")).cloned();
            entry.xattrs.extend(lost);
            entry.xattrs.sort();
            entry.xattrs.dedup_by(|one, other| one.name == other.name);
        }
        owners.tell(&mut entry, &self.meta);
        Some(entry)
    }
}

fn same_kind(one: &Kind, other: &Kind) -> bool {
    let file = |kind: &Kind| matches!(kind, Kind::File { .. } | Kind::HardLink { .. });
    (file(one) && file(other)) || std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// The modes on disk behind which a mode of the image's may be: as shared trees, copies of theirs and directories have it.
fn shows_as(mode: u16, kind: &Kind) -> [u16; 4] {
    match kind {
        Kind::Directory => [mode, (mode & 0o1777) | 0o700, mode & 0o1777, mode | 0o700],
        Kind::Symlink { .. } => [0o777, mode, mode, mode],
        _ => [mode, (mode & 0o555) | 0o400, mode & 0o1777, (mode & 0o777) | 0o600],
    }
}

/// Who owns what a run has left.
#[derive(Debug)]
pub(super) struct Owners {
    /// Whoever runs this; on disk, all that is the image's root's.
    me: (u32, u32),
    /// What root emulation has kept.
    told: HashMap<(u64, u64), coracle_ledger::Entry>,
}

impl Owners {
    /// As the disk says.
    pub(super) fn on_disk() -> Self {
        Self { me: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()), told: HashMap::new() }
    }

    /// As the ledger of a view says, if it has one.
    pub(super) fn of_view(root: &Path, ledger: &Path) -> io::Result<Self> {
        let mut owners = Self::on_disk();
        let bytes = match fs::read(ledger) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(owners),
            Err(error) => return Err(error),
        };
        let words: Vec<AtomicU64> =
            bytes.as_chunks().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect();
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or of another version");
        let home = fs::metadata(root)?.dev();
        let ledger = Ledger::open(&words, home).map_err(damaged)?;
        owners.told = ledger.entries().map(|(Inode { device, number }, entry)| ((device, number), entry)).collect();
        Ok(owners)
    }

    fn tell(&self, entry: &mut Entry, meta: &Metadata) {
        let Some(told) = self.told.get(&(meta.dev(), meta.ino())) else { return };
        if let Some((uid, gid)) = told.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let Some(mode) = told.mode else { return };
        entry.mode = mode & 0o7777;
        if let (Some(device), Kind::File { size: 0, .. }) = (told.device, &entry.kind) {
            let number = |part: u64| u32::try_from(part).unwrap_or_default();
            let (major, minor) = (nix::sys::stat::major(device.into()), nix::sys::stat::minor(device.into()));
            let (major, minor) = (number(major), number(minor));
            let block = u32::from(mode) & libc::S_IFMT == libc::S_IFBLK;
            entry.kind = if block { Kind::BlockDevice { major, minor } } else { Kind::CharDevice { major, minor } };
        }
    }
}

/// Extended attributes of the user's, sorted by name (xattr(7)); none where a file system has none.
fn attributes(path: &Path) -> io::Result<Vec<Xattr>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with NUL; the kernel writes at most the length that it is given (listxattr(2)).
    let names = sized(|buffer| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })?;
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let text = CString::new(name)?;
        // SAFETY: path and name end with NUL; the kernel writes at most the length that it is given (getxattr(2)).
        let read = sized(|buffer| unsafe {
            libc::lgetxattr(path.as_ptr(), text.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        });
        match read {
            Ok(value) => found.push(Xattr { name: name.to_vec(), value }),
            // Removed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Asks for a length, then for as many bytes, until both agree.
fn sized(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let Ok(len) = usize::try_from(call(&mut [])) else {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(error) };
        };
        let mut buffer = vec![0; len];
        if len == 0 {
            return Ok(buffer);
        }
        match usize::try_from(call(&mut buffer)) {
            Ok(got) => {
                buffer.truncate(got);
                return Ok(buffer);
            }
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE) => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// A path below a directory.
pub(super) fn below(dir: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { dir.to_owned() } else { dir.join(OsStr::from_bytes(path)) }
}
