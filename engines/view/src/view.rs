//! A view's directory: made once, opened by every run.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Mutex,
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::{Mode, umask},
};

use crate::{Made, Marks, ViewError, error::errno, make::Maker, marks, spare, truths::Truths, unshare::Locked};

pub(crate) const VIEW: &str = "view";
const LOCK: &str = "view.lock";
pub(crate) const MARKS: &str = "marks";
pub(crate) const ORIGIN: &str = "origin";
const COPIES: &str = "copies";
pub(crate) const TMP: &str = "tmp";
/// Beginning of the names of views that are being made.
const NEW: &str = ".view-";

/// Which view is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The shared tree.
    pub tree: &'a Path,
    /// What the image says of its files ([`crate::truths`]); without it they are what they are on disk.
    pub truths: Option<&'a Path>,
    /// The directory of changes: exists and can be written to.
    pub changes: &'a Path,
}

/// An open view.
#[derive(Debug)]
pub struct View {
    root: PathBuf,
    marks: Vec<u8>,
    device: u64,
    made: Option<Made>,
    pub(crate) tmp: OwnedFd,
    pub(crate) lock: OwnedFd,
    /// Among this process's threads, which share the lock's descriptor.
    pub(crate) turn: Mutex<()>,
}

impl View {
    /// Opens the view in a directory of changes, and makes it first if there is none.
    ///
    /// # Errors
    /// [`ViewError`]. Nothing half-made is left, but for what a killed process leaves, which the next removes.
    pub fn open(asked: &Asked<'_>) -> Result<Self, ViewError> {
        let Asked { changes, .. } = *asked;
        if changes.join("upper").symlink_metadata().is_ok() {
            return Err(ViewError::Overlay(changes.to_owned()));
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let name = changes.join(LOCK);
        let lock =
            openat(AT_FDCWD, &name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(ViewError::step("make", &name))?;
        let locked = Locked::wait(lock.as_fd());
        let truths = read_truths(asked)?;
        let truths = truths.as_deref().and_then(Truths::read);
        let origin = origin(asked.tree, truths.as_ref())?;
        let view = changes.join(VIEW);
        let mut made = None;
        match fs::read(view.join(ORIGIN)) {
            Ok(found) if found == origin => {}
            Ok(found) => {
                let made_from = String::from_utf8_lossy(&found).trim_end().to_owned();
                return Err(ViewError::OtherImage { path: changes.to_owned(), made_from });
            }
            Err(_) if view.symlink_metadata().is_ok() => {
                return Err(ViewError::Damaged { path: view, what: "does not say which image it is a view of" });
            }
            Err(_) if spare::take(asked, &origin, &view) => made = Some(Made::default()),
            Err(_) => made = Some(make(asked, truths.as_ref(), &origin, &view)?),
        }
        drop(locked);
        Self::opened(&view, lock, made)
    }

    fn opened(view: &Path, lock: OwnedFd, made: Option<Made>) -> Result<Self, ViewError> {
        let damaged = |what| ViewError::Damaged { path: view.to_owned(), what };
        let mut file = File::open(view.join(MARKS)).map_err(|_| damaged("has lost its list of shared files"))?;
        let mut bytes = Vec::new();
        let device = file.metadata().and_then(|data| file.read_to_end(&mut bytes).map(|_| data.dev()));
        let device = device.map_err(|_| damaged("has a list of shared files that cannot be read"))?;
        Marks::new(&bytes, device).map_err(|_| damaged("has a list of shared files that was cut short"))?;
        let tmp = view.join(TMP);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let tmp = openat(AT_FDCWD, &tmp, flags, Mode::empty()).map_err(ViewError::step("open", &tmp))?;
        let root = fs::canonicalize(view.join("root")).map_err(|_| damaged("has lost its root"))?;
        Ok(Self { root, marks: bytes, device, made, tmp, lock, turn: Mutex::new(()) })
    }

    /// The guest's tree: a canonical path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an engine may keep what a guest is told of files; it goes with the view.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.with_file_name("ledger")
    }

    /// The file with its marks, for processes that map it themselves.
    #[must_use]
    pub fn marks_file(&self) -> PathBuf {
        self.root.with_file_name(MARKS)
    }

    /// The file that is locked while a link is broken or a name changed.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.root.parent().unwrap_or(&self.root).with_file_name(LOCK)
    }

    /// The directory in which copies are made.
    #[must_use]
    pub fn copies_directory(&self) -> PathBuf {
        self.root.with_file_name(TMP)
    }

    /// The file in which such processes tell each other which copy was made last of a shared file: the number of its inode,
    /// 8 bytes for each slot of the marks. Made if it is not there.
    ///
    /// # Errors
    /// [`ViewError::Step`].
    pub fn copies_file(&self) -> Result<PathBuf, ViewError> {
        let path = self.root.with_file_name(COPIES);
        let len = self.marks().slots() as u64 * 8;
        let made = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| if file.metadata()?.len() == len { Ok(()) } else { file.set_len(len) });
        match made {
            Ok(()) => Ok(path),
            Err(error) => Err(ViewError::step("make", &path)(errno(&error))),
        }
    }

    /// Which of its inodes are shared.
    #[must_use]
    pub fn marks(&self) -> Marks<'_> {
        // `open` has seen that they are marks.
        Marks::new(&self.marks, self.device).unwrap_or_else(|_| Marks::none())
    }

    /// What it was made of, if it was made just now.
    #[must_use]
    pub fn made(&self) -> Option<Made> {
        self.made
    }
}

/// The bytes of what the image says of its files, if there are any.
pub(crate) fn read_truths(asked: &Asked<'_>) -> Result<Option<Vec<u8>>, ViewError> {
    let Some(path) = asked.truths else { return Ok(None) };
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ViewError::step("read", path)(errno(&error))),
    }
}

/// One line that names the image: by its digest, or by the place of a tree that has none.
pub(crate) fn origin(tree: &Path, truths: Option<&Truths<'_>>) -> Result<Vec<u8>, ViewError> {
    if let Some(truths) = truths {
        let hex: String = truths.image.iter().map(|byte| format!("{byte:02x}")).collect();
        return Ok(format!("image {hex}\n").into_bytes());
    }
    let tree = fs::canonicalize(tree).map_err(|error| ViewError::step("open", tree)(errno(&error)))?;
    Ok([b"tree ", tree.as_os_str().as_bytes(), b"\n"].concat())
}

/// Makes a view beside its place and puts it there when it is whole.
fn make(asked: &Asked<'_>, truths: Option<&Truths<'_>>, origin: &[u8], view: &Path) -> Result<Made, ViewError> {
    for old in fs::read_dir(asked.changes).into_iter().flatten().flatten() {
        if old.file_name().as_bytes().starts_with(NEW.as_bytes()) {
            // We hold the lock, so whoever made it is gone.
            let _ = fs::remove_dir_all(old.path());
        }
    }
    let half = HalfMade(asked.changes.join(format!("{NEW}{}", std::process::id())));
    let dir = |name: &str| -> Result<PathBuf, ViewError> {
        let path = half.0.join(name);
        fs::create_dir(&path).map_err(|error| ViewError::step("make", &path)(errno(&error)))?;
        Ok(path)
    };
    dir("")?;
    dir(TMP)?;
    let root = dir("root")?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |path: &Path| openat(AT_FDCWD, path, flags, Mode::empty()).map_err(ViewError::step("open", path));
    let (source, target) = (open(asked.tree)?, open(&root)?);
    let mut maker = Maker::new(source.as_fd(), target.as_fd(), truths, &root);
    // Pipes get their own mode.
    let mask = umask(Mode::empty());
    let done = maker.run();
    umask(mask);
    done?;
    for (name, bytes) in [(MARKS, marks::build(&maker.marks, maker.writable)), (ORIGIN, origin.to_vec())] {
        let path = half.0.join(name);
        fs::write(&path, bytes).map_err(|error| ViewError::step("write", &path)(errno(&error)))?;
    }
    let made = maker.made;
    drop(maker);
    fs::rename(&half.0, view).map_err(|error| ViewError::step("make", view)(errno(&error)))?;
    Ok(made)
}

/// Removed unless it was given its name.
struct HalfMade(PathBuf);

impl Drop for HalfMade {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
