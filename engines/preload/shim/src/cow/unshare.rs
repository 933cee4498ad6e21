//! Breaking a link: a name that means a shared file gets a copy of its own in place.

use core::{
    ffi::CStr,
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_intercept::{Errno, FileId, errno::EROFS};
use coracle_sys::{
    self as sys, Fd,
    kernel::{
        __NR_fchmod, __NR_renameat, __NR_unlinkat, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, MAP_ANONYMOUS, MAP_NORESERVE,
        MAP_PRIVATE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR,
        PROT_READ, PROT_WRITE, stat as Stat,
    },
};

use super::{View, copy, turn::Turn};
use crate::{
    call::raw,
    files::{self, Held, Short},
    signals::Blocked,
};

/// Bits of a directory's mode by which its owner may change names in it.
const OWNER_MAY_CHANGE: u32 = 0o300;
/// As many names of copies may be taken.
const TRIES: u32 = 100;
/// Bytes for a path, and for attributes, which have at most 64 KiB each.
const PATH: usize = 8 << 10;
const MEMORY: usize = PATH + (128 << 10);

/// Memory for one copy.
struct Memory(usize);

impl Memory {
    fn map() -> Result<Self, Errno> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe { sys::map(0, MEMORY, PROT_READ | PROT_WRITE, flags, None, 0) };
        at.map(Self).map_err(files::errno)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped, zero, and ours alone until it is dropped.
        unsafe { slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(self.0), MEMORY) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; what was borrowed of it ends with it.
        let _ = unsafe { sys::unmap(self.0, MEMORY) };
    }
}

/// Gives the name `host` (absolute, no symbolic link at its end) a copy of the shared file that it means, with permission
/// bits `mode`; the copy, or none if the name means another file by now. Times of its directory stay.
pub(super) fn unshare(view: &View, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno> {
    let blocked = Blocked::all();
    let mut memory = Memory::map()?;
    let (path, buffer) = memory.bytes().split_at_mut(PATH);
    let bytes = host.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]).map_err(|_| Errno::EINVAL)?;
    // The slash itself is the path of what lies in the root.
    let directory = &bytes[..slash.max(1)];
    path.get_mut(..directory.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(directory);
    let parent = open_parent(CStr::from_bytes_until_nul(path).map_err(|_| Errno::ENAMETOOLONG)?)?;
    let flags = O_NOFOLLOW | O_CLOEXEC;
    let from = match sys::open(parent.0, name, flags | O_RDONLY | O_NONBLOCK, 0) {
        Ok(from) => Held(from),
        // Gone, or a link by now.
        Err(sys::Errno::ENOENT | sys::Errno::ELOOP | sys::Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(files::errno(errno)),
    };
    let old = status(from.0)?;
    if id_of(&old) != *shared {
        return Ok(None);
    }
    let copy = Copy::new(view.temporary)?;
    blocked.without_file_size(|| copy.fill(&from, &old, mode, buffer))?;
    let new = status(copy.file.0)?;
    drop(from);
    let _turn = Turn::wait(view.lock);
    let before = status(parent.0)?;
    let done = copy.put(&parent, name, shared, &before)?;
    // Only what could be opened for reading can have its times set back.
    let _ = copy::times(parent.0, &before);
    Ok(done.then(|| id_of(&new)))
}

fn open_parent(path: &CStr) -> Result<Held, Errno> {
    let flags = O_DIRECTORY | O_CLOEXEC;
    let opened = match sys::open(Fd::CWD, path, flags | O_RDONLY, 0) {
        Err(sys::Errno::EACCES) => sys::open(Fd::CWD, path, flags | O_PATH, 0),
        opened => opened,
    };
    opened.map(Held).map_err(files::errno)
}

fn status(file: Fd) -> Result<Stat, Errno> {
    files::fstatat(file, c"", AT_EMPTY_PATH)
}

/// What tells a file apart.
fn id_of(stat: &Stat) -> FileId {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    FileId { device: stat.st_dev, inode: stat.st_ino, mtime: (stat.st_mtime.cast_signed(), nanoseconds) }
}

/// A file among the view's copies; its name there is removed at the end, whatever it means then.
struct Copy {
    directory: Held,
    name: Short<48>,
    file: Held,
}

impl Copy {
    fn new(temporary: &CStr) -> Result<Self, Errno> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let directory = files::open_place(temporary, O_DIRECTORY)?;
        let flags = O_NOFOLLOW | O_CLOEXEC | O_RDWR | O_CREAT | O_EXCL;
        for _ in 0..TRIES {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            // Neither a tracer's copies are called so, nor those of another thread or process.
            let name = Short::new().number(sys::getpid()).put(b"-in-").number(count);
            match sys::open(directory.0, name.as_c_str(), flags, 0o600) {
                Ok(file) => return Ok(Self { directory, name, file: Held(file) }),
                // Left by a killed process of the same number.
                Err(sys::Errno::EEXIST) => {}
                Err(errno) => return Err(files::errno(errno)),
            }
        }
        Err(EROFS)
    }

    fn fill(&self, from: &Held, old: &Stat, mode: u32, buffer: &mut [u8]) -> Result<(), Errno> {
        copy::data(from.0, self.file.0, usize::try_from(old.st_size).unwrap_or(0), buffer)?;
        copy::xattrs(from.0, self.file.0, buffer);
        change_mode(self.file.0, mode & 0o1777)?;
        copy::times(self.file.0, old)
    }

    /// Gives the copy the name, if that still means the shared file.
    fn put(&self, parent: &Held, name: &CStr, shared: &FileId, before: &Stat) -> Result<bool, Errno> {
        match files::fstatat(parent.0, name, AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if id_of(&stat) == *shared => {}
            Ok(_) | Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        let rename = || {
            let (old, new) = (self.name.as_c_str().as_ptr(), name.as_ptr());
            let (old, new) = (old.expose_provenance(), new.expose_provenance());
            sys::check_unit(raw(__NR_renameat, [self.directory.0.arg(), old, parent.0.arg(), new, 0, 0]))
        };
        match rename() {
            Ok(()) => Ok(true),
            Err(sys::Errno::EACCES | sys::Errno::EPERM) => {
                // The guest has locked the directory; to the guest, changing a file in it is no change of the directory.
                let mode = before.st_mode & 0o7777;
                change_mode(parent.0, mode | OWNER_MAY_CHANGE)?;
                let done = rename();
                change_mode(parent.0, mode)?;
                done.map(|()| true).map_err(files::errno)
            }
            Err(errno) => Err(files::errno(errno)),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let name = self.name.as_c_str().as_ptr().expose_provenance();
        raw(__NR_unlinkat, [self.directory.0.arg(), name, 0, 0, 0, 0]);
    }
}

/// fchmod(2), also of a place.
fn change_mode(file: Fd, mode: u32) -> Result<(), Errno> {
    match sys::check_unit(raw(__NR_fchmod, [file.arg(), mode as usize, 0, 0, 0, 0])) {
        Err(sys::Errno::EBADF) => files::set_mode(files::link_of(Some(file.0)).as_c_str(), mode),
        done => done.map_err(files::errno),
    }
}
