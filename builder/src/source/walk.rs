//! A directory of the host as a tree.
//!
//! An ordinary user reads what an ordinary user can: files that cannot be read are named, as an error or, on request, as a
//! note. Rules:
//! - whatever is mounted inside is taken only if it is a file system for files: never procfs, sysfs and their like; and
//!   nothing that is mounted inside `/` itself, so that a running system can be taken as it is;
//! - symbolic links are taken, not followed (the directory given may be one); sockets are left out with a note;
//! - names of one inode stay names of one inode;
//! - attributes are those that mean something elsewhere: `user.*` and file capabilities;
//! - the owner is 0 for whatever belongs to the owner of the directory itself, unless told otherwise: an ordinary user who
//!   unpacks an image owns what root should. An id kept in `user.rootlesscontainers` (as umoci does) counts first.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use coracle_format::{Time, Xattr};

use crate::flatten::{Data, Inode, InodeId, InodeKind, Tree};

/// Attribute in which rootless tools keep the owner that they could not give.
const ROOTLESS: &[u8] = b"user.rootlesscontainers";

/// How to read a directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct WalkOptions {
    /// Leave out what cannot be read, with a note, instead of failing.
    pub skip_unreadable: bool,
    /// Whose the files are.
    pub owners: Owners,
}

/// Whose the files of a directory are in the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owners {
    /// Root's where they are the directory's own owner's.
    #[default]
    Mapped,
    /// Whose they are on disk.
    Kept,
}

/// A directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Permissions forbid to read it.
    #[error("{}: {why}: run as a user who may read it, or leave it out with --skip-unreadable", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// Any other failure.
    #[error("{}: {why}", path.display())]
    Failed {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// Reads the directory at `root`; a file there is a tree of nothing but itself.
///
/// # Errors
/// What cannot be read.
pub fn walk(root: &Path, options: WalkOptions) -> Result<Tree, WalkError> {
    let here = |why| WalkError::Failed { path: root.to_owned(), why };
    let root = fs::canonicalize(root).map_err(here)?;
    let meta = fs::metadata(&root).map_err(here)?;
    let mut walk = Walk {
        options,
        one_file_system: root == Path::new("/"),
        device: meta.dev(),
        owner: (meta.uid(), meta.gid()),
        tree: Tree::default(),
        names: HashMap::new(),
        skipped: Skipped::default(),
    };
    if !walk.entry(Vec::new(), &root, &meta)? {
        return Err(WalkError::Failed { path: root, why: io::Error::other("it is a socket, which cannot be copied") });
    }
    let mut open = if meta.is_dir() { vec![(Vec::new(), root)] } else { Vec::new() };
    while let Some((path, directory)) = open.pop() {
        walk.directory(&path, &directory, &mut open)?;
    }
    Ok(walk.finish())
}

struct Walk {
    options: WalkOptions,
    one_file_system: bool,
    device: u64,
    owner: (u32, u32),
    tree: Tree,
    /// Inodes with several names, by device and number.
    names: HashMap<(u64, u64), InodeId>,
    skipped: Skipped,
}

/// What was left out.
#[derive(Default)]
struct Skipped {
    sockets: Vec<Vec<u8>>,
    mounts: Vec<Vec<u8>>,
    unreadable: Vec<Vec<u8>>,
}

impl Walk {
    fn directory(
        &mut self,
        path: &[u8],
        directory: &Path,
        open: &mut Vec<(Vec<u8>, PathBuf)>,
    ) -> Result<(), WalkError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(why) => return self.unreadable(path, directory, why),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(why) => return self.unreadable(path, directory, why),
            };
            let host = entry.path();
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            let meta = match fs::symlink_metadata(&host) {
                Ok(meta) => meta,
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue, // gone meanwhile
                Err(why) => {
                    self.unreadable(&path, &host, why)?;
                    continue;
                }
            };
            if self.entry(path.clone(), &host, &meta)? && meta.is_dir() {
                if meta.dev() != self.device && (self.one_file_system || is_of_the_kernel(&host)) {
                    self.skipped.mounts.push(path);
                } else {
                    open.push((path, host));
                }
            }
        }
        Ok(())
    }

    /// Adds one file; false if it is left out.
    fn entry(&mut self, path: Vec<u8>, host: &Path, meta: &Metadata) -> Result<bool, WalkError> {
        let several = meta.nlink() > 1 && !meta.is_dir();
        if several && let Some(id) = self.names.get(&(meta.dev(), meta.ino())) {
            self.tree.paths.insert(path, *id);
            return Ok(true);
        }
        let kind = meta.file_type();
        let kind = if kind.is_dir() {
            InodeKind::Directory
        } else if kind.is_file() {
            if let Err(why) = may_read(host) {
                self.unreadable(&path, host, why)?;
                return Ok(false);
            }
            let data = if meta.len() == 0 { Data::Bytes([].into()) } else { Data::Host(host.to_owned()) };
            InodeKind::File { size: meta.len(), data }
        } else if kind.is_symlink() {
            match fs::read_link(host) {
                Ok(target) => InodeKind::Symlink(target.into_os_string().into_vec()),
                Err(why) => {
                    self.unreadable(&path, host, why)?;
                    return Ok(false);
                }
            }
        } else if kind.is_fifo() {
            InodeKind::Fifo
        } else if kind.is_char_device() {
            let (major, minor) = device(meta.rdev());
            InodeKind::CharDevice(major, minor)
        } else if kind.is_block_device() {
            let (major, minor) = device(meta.rdev());
            InodeKind::BlockDevice(major, minor)
        } else {
            self.skipped.sockets.push(path);
            return Ok(false);
        };
        let mut xattrs = if kind_has_attributes(&kind) { attributes(host) } else { Vec::new() };
        let (mut uid, mut gid) = (meta.uid(), meta.gid());
        if self.options.owners == Owners::Mapped {
            if uid == self.owner.0 {
                uid = 0;
            }
            if gid == self.owner.1 {
                gid = 0;
            }
            if let Ok(at) = xattrs.binary_search_by(|xattr| xattr.name.as_slice().cmp(ROOTLESS))
                && let Some(ids) = rootless_ids(&xattrs.remove(at).value)
            {
                (uid, gid) = ids;
            }
        }
        let id = self.tree.add(Inode {
            mode: u16::try_from(meta.mode() & 0o7777).expect("twelve bits fit"),
            uid,
            gid,
            mtime: Time { seconds: meta.mtime(), nanoseconds: u32::try_from(meta.mtime_nsec()).unwrap_or_default() },
            xattrs,
            kind,
        });
        if several {
            self.names.insert((meta.dev(), meta.ino()), id);
        }
        self.tree.paths.insert(path, id);
        Ok(true)
    }

    fn unreadable(&mut self, path: &[u8], host: &Path, why: io::Error) -> Result<(), WalkError> {
        // Only what a permission forbids may be left out; a disk that fails is no matter of choice.
        if self.options.skip_unreadable && why.kind() == io::ErrorKind::PermissionDenied {
            self.skipped.unreadable.push(path.to_vec());
            Ok(())
        } else if why.kind() == io::ErrorKind::PermissionDenied {
            Err(WalkError::Unreadable { path: host.to_owned(), why })
        } else {
            Err(WalkError::Failed { path: host.to_owned(), why })
        }
    }

    fn finish(self) -> Tree {
        let Self { mut tree, skipped, .. } = self;
        note(&mut tree.notes, skipped.unreadable, "could not be read and were left out");
        note(&mut tree.notes, skipped.sockets, "are sockets and were left out");
        note(&mut tree.notes, skipped.mounts, "are mounted from elsewhere and were left empty");
        tree
    }
}

/// `3 of its files are sockets and were left out: /a, /b, /c`.
fn note(notes: &mut Vec<String>, mut paths: Vec<Vec<u8>>, what: &str) {
    const NAMED: usize = 8;
    if paths.is_empty() {
        return;
    }
    paths.sort();
    let shown: Vec<_> = paths.iter().take(NAMED).map(|path| format!("/{}", String::from_utf8_lossy(path))).collect();
    let more = if paths.len() > NAMED { ", …" } else { "" };
    notes.push(format!("{} of its files {what}: {}{more}", paths.len(), shown.join(", ")));
}

/// Asks the kernel, for the effective ids, which know of capabilities and access lists.
fn may_read(path: &Path) -> io::Result<()> {
    nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, nix::unistd::AccessFlags::R_OK, nix::fcntl::AtFlags::AT_EACCESS)
        .map_err(io::Error::from)
}

/// Whether a directory lies on a file system that shows the kernel's state and holds no files.
fn is_of_the_kernel(path: &Path) -> bool {
    const MAGICS: [i64; 14] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x1cd1,      // devpts
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x1980_0202, // mqueue
        0x6265_6570, // configfs
        0x6165_676c, // pstore
        0x4249_4e4d, // binfmt_misc
        0x0187,      // autofs: looking inside mounts things
    ];
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    nix::sys::statfs::statfs(path.as_c_str())
        .is_ok_and(|found| MAGICS.iter().any(|magic| i128::from(found.filesystem_type().0) == i128::from(*magic)))
}

fn kind_has_attributes(kind: &InodeKind) -> bool {
    matches!(kind, InodeKind::Directory | InodeKind::File { .. })
}

/// The attributes worth keeping, sorted. A file system without them has none.
fn attributes(path: &Path) -> Vec<Xattr> {
    let wanted = |name: &OsStr| {
        let name = name.as_bytes();
        name.starts_with(b"user.") || name == b"security.capability"
    };
    let Ok(names) = xattr::list(path) else { return Vec::new() };
    let mut found: Vec<Xattr> = names
        .filter(|name| wanted(name))
        .filter_map(|name| {
            let value = xattr::get(path, &name).ok()??;
            Some(Xattr { name: name.into_vec(), value })
        })
        .collect();
    found.sort();
    found
}

/// Owner and group in a `user.rootlesscontainers` attribute: a protobuf message of two varints, fields 1 and 2.
fn rootless_ids(mut bytes: &[u8]) -> Option<(u32, u32)> {
    let mut ids = [0_u32; 2];
    while let Some((&key, rest)) = bytes.split_first() {
        let field = match key {
            0x08 => 0,
            0x10 => 1,
            _ => return None,
        };
        let (mut value, mut shift) = (0_u64, 0);
        bytes = rest;
        loop {
            let (&byte, rest) = bytes.split_first()?;
            bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 35 {
                return None;
            }
        }
        // u32::MAX is the message's way to say that nothing is known.
        ids[field] = u32::try_from(value).ok().filter(|id| *id != u32::MAX)?;
    }
    Some((ids[0], ids[1]))
}

/// Major and minor number.
fn device(number: u64) -> (u32, u32) {
    (libc::major(number), libc::minor(number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    };

    use super::*;

    #[test]
    fn a_directory_becomes_a_tree() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let root = temporary.path().join("root");
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("d/e")).expect("made");
        fs::write(at("d/a"), "aa").expect("written");
        fs::hard_link(at("d/a"), at("b")).expect("linked");
        fs::set_permissions(at("b"), fs::Permissions::from_mode(0o4711)).expect("changed");
        symlink("../nowhere", at("l")).expect("linked");
        fs::write(root.join(OsStr::from_bytes(b"\xff")), "").expect("written");
        nix::unistd::mkfifo(&at("p"), nix::sys::stat::Mode::S_IRUSR).expect("made");
        let _socket = UnixListener::bind(at("s")).expect("bound");
        let has_attributes = xattr::set(at("b"), "user.test", b"\x00\n").is_ok();

        // The directory itself may be a link.
        symlink("root", temporary.path().join("link")).expect("linked");
        let tree = walk(&temporary.path().join("link"), WalkOptions::default()).expect("walked");
        let names: Vec<&[u8]> = tree.paths.keys().map(Vec::as_slice).collect();
        assert_eq!(names, [&b""[..], b"b", b"d", b"d/a", b"d/e", b"l", b"p", b"\xff"]);
        assert_eq!(tree.paths[&b"b"[..]], tree.paths[&b"d/a"[..]]);
        let file = tree.get(b"b").expect("there");
        assert_eq!((file.mode, file.uid, file.gid), (0o4711, 0, 0));
        assert!(matches!(&file.kind, InodeKind::File { size: 2, data: Data::Host(_) }));
        if has_attributes {
            assert_eq!(file.xattrs, [Xattr { name: b"user.test".to_vec(), value: b"\x00\n".to_vec() }]);
        }
        assert!(matches!(&tree.get(b"l").expect("there").kind, InodeKind::Symlink(to) if to == b"../nowhere"));
        assert!(matches!(tree.get(b"p").expect("there").kind, InodeKind::Fifo));
        assert_eq!(tree.notes, ["1 of its files are sockets and were left out: /s"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        if nix::unistd::geteuid().is_root() {
            harness::skip::because("root reads everything");
            return;
        }
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let secret = temporary.path().join("secret");
        fs::write(&secret, "x").expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).expect("changed");
        let error = walk(temporary.path(), WalkOptions::default()).expect_err("unreadable").to_string();
        assert!(error.contains("secret") && error.contains("--skip-unreadable"), "{error}");
        let options = WalkOptions { skip_unreadable: true, ..WalkOptions::default() };
        let tree = walk(temporary.path(), options).expect("walked");
        assert_eq!(tree.paths.len(), 1);
        assert_eq!(tree.notes.len(), 1);
    }

    #[test]
    fn rootless_owners_are_understood() {
        assert_eq!(rootless_ids(&[0x08, 0x2a, 0x10, 0xac, 0x02]), Some((42, 300)));
        assert_eq!(rootless_ids(&[0x10, 0x05]), Some((0, 5)));
        assert_eq!(rootless_ids(&[0x08]), None);
        assert_eq!(rootless_ids(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
    }
}
