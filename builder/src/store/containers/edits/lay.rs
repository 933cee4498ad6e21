//! Laying edits: each file is copied beside, changed, and renamed over the true one, which is linked away before.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::BorrowedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown, symlink},
        },
    },
    path::{Path, PathBuf},
};

use super::{
    LAID, PRISTINE, Plan, Record, Seen, VERSION, owners,
    times::{self, Times},
};
use crate::store::{
    containers::{Container, ContainerError},
    make_directory, replace,
};
use coracle_api::{Laid, Loader};
use coracle_format::Edit;

/// Edits cannot be laid.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The tree's path is too long for the room in the files.
    #[error(
        "{}: too long a path to be written into the tree's programs: move the store to a shorter one (CORACLE_DIR), or use --execmode=F1",
        .0.display()
    )]
    TooLong(PathBuf),
}

/// One file and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToEdit {
    /// All its names in the tree.
    pub names: Vec<Vec<u8>>,
    /// By offset, without overlap; of a symbolic link the new target.
    pub edits: Vec<(u64, Edit)>,
}

impl Container {
    /// Lays edits into its tree; those that there are go first. `lease` is as in [`own`](Self::own).
    ///
    /// # Errors
    /// [`EditError`]; then the tree is as it was.
    pub fn lay_edits(
        &self,
        lease: Option<BorrowedFd<'_>>,
        plan: impl FnOnce(&Self) -> anyhow::Result<Plan>,
    ) -> anyhow::Result<Laid> {
        self.alone(lease, |_| {
            if self.has_edits() {
                self.restore(true)?;
            }
            let Plan { loaders, files } = plan(self)?;
            match self.write(loaders, &files) {
                Ok(laid) => Ok(laid),
                Err(error) => {
                    let _ = self.restore(true);
                    Err(error.into())
                }
            }
        })
    }

    fn write(&self, loaders: Vec<Loader>, files: &[ToEdit]) -> Result<Laid, EditError> {
        let failed = |action, path: &Path| ContainerError::file(action, path.to_owned());
        let root = self.root();
        let place = fs::canonicalize(&root).map_err(failed("find", &root))?;
        let edits = self.edits();
        let pristine = edits.join(PRISTINE);
        make_directory(&edits).map_err(failed("make", &edits))?;
        make_directory(&pristine).map_err(failed("make", &pristine))?;
        let mut record = Record { version: VERSION, place, loaders, ..Record::default() };
        let mut moved = Vec::new();
        let mut times = Times::default();
        let draft = edits.join("new");
        for file in files {
            let Some((first, others)) = file.names.split_first() else { continue };
            let first = Path::new(OsStr::from_bytes(first));
            let there = root.join(first);
            let before = fs::symlink_metadata(&there).map_err(failed("look at", &there))?;
            let made = if before.is_symlink() {
                link(&there, &before, file, &draft)
            } else {
                copy(&there, &before, file, &record.place, &draft)
            };
            if !made.map_err(failed("copy", &there))? {
                return Err(EditError::TooLong(record.place));
            }
            let after = fs::symlink_metadata(&draft).map_err(failed("look at", &draft))?;
            for name in others {
                let there = root.join(OsStr::from_bytes(name));
                times.note(&there).map_err(failed("look at", &there))?;
                keep(&pristine, Path::new(OsStr::from_bytes(name)), &there)?;
                let again = edits.join("again");
                fs::hard_link(&draft, &again)
                    .and_then(|()| fs::rename(&again, &there))
                    .map_err(failed("replace", &there))?;
            }
            times.note(&there).map_err(failed("look at", &there))?;
            keep(&pristine, first, &there)?;
            fs::rename(&draft, &there).map_err(failed("replace", &there))?;
            moved.push((before.ino(), after.ino()));
            record.files.insert(Seen::of(&after));
        }
        times.set_back();
        owners::tell_of(&self.ledger(), &root, &moved).map_err(failed("write", &self.ledger()))?;
        let path = edits.join(LAID);
        let json = serde_json::to_vec(&record).unwrap_or_default();
        replace(&path, &json, 0o600).map_err(failed("write", &path))?;
        Ok(Laid { pristine, loaders: record.loaders })
    }
}

/// Keeps a file under its own name.
fn keep(pristine: &Path, name: &Path, there: &Path) -> Result<(), ContainerError> {
    let kept = pristine.join(name);
    let failed = || ContainerError::file("keep", there.to_owned());
    if let Some(parent) = kept.parent() {
        fs::create_dir_all(parent).map_err(failed())?;
    }
    match fs::hard_link(there, &kept) {
        Ok(()) => Ok(()),
        // A file system without links, or too many of them.
        Err(_) => copy_whole(there, &kept).map_err(failed()),
    }
}

/// Has a name of a shared file mean a copy.
pub(super) fn copy_away(path: &Path) -> io::Result<fs::Metadata> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".coracle-copy");
    let beside = PathBuf::from(beside);
    copy_whole(path, &beside)?;
    fs::rename(&beside, path)?;
    fs::symlink_metadata(path)
}

fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    let old = File::open(from)?;
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    data(&old, &new)?;
    finish(&old, &new, &meta, to)
}

/// Makes a copy with the edits; false if a path does not fit.
fn copy(from: &Path, meta: &fs::Metadata, file: &ToEdit, place: &Path, to: &Path) -> io::Result<bool> {
    let old = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(from)?;
    let _ = fs::remove_file(to);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    data(&old, &new)?;
    for (offset, edit) in &file.edits {
        let Some(bytes) = edit.bytes(place.as_os_str().as_bytes()) else { return Ok(false) };
        new.write_all_at(&bytes, *offset)?;
    }
    finish(&old, &new, meta, to).map(|()| true)
}

/// Owner, mode, attributes and times of the copy of a file, which may have been edited.
fn finish(old: &File, new: &File, meta: &fs::Metadata, to: &Path) -> io::Result<()> {
    let made = new.metadata()?;
    if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
        fchown(new, Some(meta.uid()), Some(meta.gid()))?;
    }
    for name in xattr::FileExt::list_xattr(old).into_iter().flatten() {
        if let Ok(Some(value)) = xattr::FileExt::get_xattr(old, &name) {
            // What the file system did not take for the file it does not take for the copy.
            let _ = xattr::FileExt::set_xattr(new, &name, &value);
        }
    }
    new.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    times::set(to, meta)
}

fn link(from: &Path, meta: &fs::Metadata, file: &ToEdit, to: &Path) -> io::Result<bool> {
    let [(0, Edit::Bytes(target))] = file.edits.as_slice() else {
        return Err(io::Error::other(format!("{}: a link has one target", from.display())));
    };
    let _ = fs::remove_file(to);
    symlink(OsStr::from_bytes(target), to)?;
    let made = fs::symlink_metadata(to)?;
    if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
        lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    }
    times::set(to, meta).map(|()| true)
}

/// A file's bytes; its blocks, where the file system can share them.
fn data(mut old: &File, mut new: &File) -> io::Result<()> {
    if coracle_view::clone(old, new) {
        return Ok(());
    }
    io::copy(&mut old, &mut new).map(|_| ())
}
