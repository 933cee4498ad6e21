//! The tree: one root file system in memory, without its files' bytes.
//!
//! Paths lead to inodes, as in a real file system: two paths with one inode are hard links. Metadata is the inode's.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_format::{Time, Xattr};

/// A flattened image.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Path below the root (no leading slash, the root itself is empty, any bytes but NUL) to inode. Sorted bytewise, so a
    /// parent comes before its children. Every path's parent is there and is a directory.
    pub paths: BTreeMap<Vec<u8>, InodeId>,
    /// The inodes; some may be reached by no path any more.
    pub inodes: Vec<Inode>,
    /// What was left out or changed on the way, in words for the user.
    pub notes: Vec<String>,
}

/// Number of an inode in [`Tree::inodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

/// A file of whatever kind, apart from its names.
#[derive(Debug, Clone)]
pub struct Inode {
    /// `mode & 0o7777`.
    pub mode: u16,
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// What it is.
    pub kind: InodeKind,
}

/// Kinds of inodes.
#[derive(Debug, Clone)]
pub enum InodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Its bytes.
        data: Data,
    },
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device, (major, minor): recorded, never made.
    CharDevice(u32, u32),
    /// A block device, (major, minor): recorded, never made.
    BlockDevice(u32, u32),
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone)]
pub enum Data {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A whole file of the host.
    Host(PathBuf),
    /// A whole file that was made for this tree alone, and may be renamed away.
    Own(PathBuf),
    /// A run of bytes in an open file (a spool, or an uncompressed layer), read with pread(2).
    Slice {
        /// The file.
        file: Arc<File>,
        /// Where the bytes start.
        offset: u64,
    },
}

impl Data {
    /// Reads the bytes at offset `at` of the file, as many as `buffer` holds.
    ///
    /// # Errors
    /// Those of the host; `UnexpectedEof` if the file has become shorter than the tree says.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
                let from = rest.and_then(|rest| rest.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(from);
                Ok(())
            }
            Self::Host(path) | Self::Own(path) => open_file(path)?.read_exact_at(buffer, at),
            Self::Slice { file, offset } => file.read_exact_at(buffer, offset + at),
        }
    }

    /// Where the bytes come from, in words.
    #[must_use]
    pub fn origin(&self) -> String {
        match self {
            Self::Bytes(_) => "memory".to_owned(),
            Self::Host(path) => path.display().to_string(),
            Self::Own(_) | Self::Slice { .. } => "its layer".to_owned(),
        }
    }
}

/// Opens a regular file of the host's that was found earlier. What somebody has put in its place meanwhile is neither
/// followed nor waited for.
///
/// # Errors
/// Those of the host; `InvalidInput` for what is no regular file any more.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file any more"))
    }
}

impl Tree {
    /// The inode at a path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Inode> {
        self.paths.get(path).map(|id| self.inode(*id))
    }

    /// An inode by its number.
    ///
    /// # Panics
    /// On a number of another tree.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0 as usize]
    }

    /// An inode by its number, to be changed under all its names.
    ///
    /// # Panics
    /// On a number of another tree.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0 as usize]
    }

    /// Adds an inode that no path leads to yet.
    ///
    /// # Panics
    /// At 2^32 inodes, far beyond what limits allow.
    pub fn add(&mut self, inode: Inode) -> InodeId {
        let id = InodeId(u32::try_from(self.inodes.len()).expect("limits keep inodes below 2^32"));
        self.inodes.push(inode);
        id
    }

    /// Removes a path with all below it.
    pub fn remove(&mut self, path: &[u8]) {
        self.paths.remove(path);
        let start = [path, b"/"].concat();
        let below: Vec<Vec<u8>> = self
            .paths
            .range(start.clone()..)
            .map(|(path, _)| path.clone())
            .take_while(|p| p.starts_with(&start))
            .collect();
        for path in below {
            self.paths.remove(&path);
        }
    }
}
