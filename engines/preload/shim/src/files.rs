//! The host's files, by raw system calls: what the table of meanings asks of them.

use core::{
    ffi::CStr,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
};

use coracle_intercept::{Errno, Facts, File, FileId, ledger::Inode};
use coracle_sys::{
    self as sys, Fd,
    kernel::{
        __NR_faccessat, __NR_fchmodat, __NR_newfstatat, __NR_openat2, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY,
        O_PATH, RESOLVE_NO_SYMLINKS, open_how, stat as Stat,
    },
};

/// Longest path of one call, with its NUL.
const PATH_MAX: usize = coracle_paths::PATH_MAX;
const X_OK: usize = 1;

pub(crate) fn errno(errno: sys::Errno) -> Errno {
    Errno(errno.0)
}

/// fstatat(2).
pub(crate) fn fstatat(dir: Fd, path: &CStr, flags: u32) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<Stat>::uninit();
    // SAFETY: a NUL-terminated path; the kernel writes one structure, which is read only if it did.
    unsafe {
        let result = sys::syscall4(
            __NR_newfstatat,
            dir.arg(),
            path.as_ptr().expose_provenance(),
            stat.as_mut_ptr().expose_provenance(),
            flags as usize,
        );
        sys::check_unit(result).map_err(errno)?;
        Ok(stat.assume_init())
    }
}

fn follow_flag(follow: bool) -> u32 {
    if follow { 0 } else { AT_SYMLINK_NOFOLLOW }
}

/// What stat(2) tells, or lstat(2).
pub(crate) fn stat(path: &CStr, follow: bool) -> Result<Facts, Errno> {
    with_short(path, |dir, path| fstatat(dir, path, follow_flag(follow))).map(|stat| facts(&stat))
}

/// What fstatat(2) tells of a name in a directory.
pub(crate) fn stat_in(dir: Fd, name: &CStr) -> Result<Facts, Errno> {
    fstatat(dir, name, AT_SYMLINK_NOFOLLOW).map(|stat| facts(&stat))
}

fn facts(stat: &Stat) -> Facts {
    Facts {
        inode: Inode { device: stat.st_dev, number: stat.st_ino },
        mode: stat.st_mode,
        links: stat.st_nlink,
        uid: stat.st_uid,
        gid: stat.st_gid,
        device: u32::try_from(stat.st_rdev).unwrap_or(0),
        modified: (stat.st_mtime.cast_signed(), u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

/// Which file it is, and its mode.
pub(crate) fn file(path: &CStr, follow: bool) -> Result<File, Errno> {
    let facts = stat(path, follow)?;
    let id = FileId { device: facts.inode.device, inode: facts.inode.number, mtime: facts.modified };
    Ok(File { id, mode: facts.mode })
}

/// Whether a directory may be searched.
pub(crate) fn search(path: &CStr) -> Result<(), Errno> {
    with_short(path, |dir, path| {
        // SAFETY: a NUL-terminated path.
        sys::check_unit(unsafe { sys::syscall3(__NR_faccessat, dir.arg(), path.as_ptr().expose_provenance(), X_OK) })
            .map_err(errno)
    })
}

/// chmod(2).
pub(crate) fn set_mode(path: &CStr, mode: u32) -> Result<(), Errno> {
    with_short(path, |dir, path| {
        // SAFETY: a NUL-terminated path.
        sys::check_unit(unsafe {
            sys::syscall3(__NR_fchmodat, dir.arg(), path.as_ptr().expose_provenance(), mode as usize)
        })
        .map_err(errno)
    })
}

/// readlink(2).
pub(crate) fn readlink(path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
    with_short(path, |dir, path| sys::readlinkat(dir, path, target).map_err(errno))
}

/// Asks openat2(2) whether there is a link on the way, unless it was refused as such: the kernel is older than 5.6, or a
/// sandbox does not know it. See [`coracle_paths::Host::meets_link`].
pub(crate) fn meets_link(path: &CStr) -> Option<bool> {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let how = open_how { flags: (O_PATH | O_CLOEXEC).into(), mode: 0, resolve: RESOLVE_NO_SYMLINKS.into() };
    // SAFETY: a NUL-terminated path, and a structure of the size given; the kernel writes no memory.
    let result = unsafe {
        sys::syscall4(
            __NR_openat2,
            Fd::CWD.arg(),
            path.as_ptr().expose_provenance(),
            core::ptr::from_ref(&how).expose_provenance(),
            size_of::<open_how>(),
        )
    };
    match sys::check(result) {
        Ok(descriptor) => {
            drop(Held(Fd(i32::try_from(descriptor).unwrap_or(-1))));
            Some(false)
        }
        Err(sys::Errno::ELOOP) => Some(true),
        Err(sys::Errno::ENOENT | sys::Errno::ENOTDIR | sys::Errno::EACCES) => Some(false),
        Err(sys::Errno::ENOSYS | sys::Errno::EPERM) => {
            REFUSED.store(true, Ordering::Relaxed);
            None
        }
        Err(_) => None,
    }
}

/// A directory or file opened as a place (`O_PATH`), which is closed again by whoever holds it.
pub(crate) fn open_place(path: &CStr, flags: u32) -> Result<Held, Errno> {
    with_short(path, |dir, path| sys::open(dir, path, O_PATH | O_CLOEXEC | flags, 0).map(Held).map_err(errno))
}

/// A descriptor of our own among the guest's, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Fd);

impl Drop for Held {
    fn drop(&mut self) {
        // A descriptor of a place has nothing to write back.
        let _ = sys::close(self.0);
    }
}

/// Asks about a path of any length: of one that is too long for the kernel, directories are opened on the way.
fn with_short<T>(path: &CStr, ask: impl FnOnce(Fd, &CStr) -> Result<T, Errno>) -> Result<T, Errno> {
    if path.count_bytes() < PATH_MAX {
        return ask(Fd::CWD, path);
    }
    let (dir, rest) = shorten(path)?;
    ask(dir.0, rest)
}

/// The directory that holds the last part of a long path, and that part.
#[cold]
#[inline(never)]
fn shorten(path: &CStr) -> Result<(Held, &CStr), Errno> {
    let mut piece = [0_u8; PATH_MAX];
    let mut rest = path;
    let mut held: Option<Held> = None;
    while rest.count_bytes() >= PATH_MAX || held.is_none() {
        let bytes = rest.to_bytes();
        let room = &bytes[..bytes.len().min(PATH_MAX - 1)];
        let end = room.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        piece[..=end].copy_from_slice(&bytes[..=end]);
        piece[end + 1] = 0;
        let name = CStr::from_bytes_until_nul(&piece).map_err(|_| Errno::ENAMETOOLONG)?;
        let dir = held.as_ref().map_or(Fd::CWD, |held| held.0);
        held = Some(Held(sys::open(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0).map_err(errno)?));
        let next = end + bytes[end..].iter().take_while(|byte| **byte == b'/').count();
        rest = CStr::from_bytes_with_nul(&rest.to_bytes_with_nul()[next..]).map_err(|_| Errno::ENAMETOOLONG)?;
    }
    held.map(|held| (held, rest)).ok_or(Errno::ENAMETOOLONG)
}

/// Text that is put together: a path of `/proc`, a line.
#[derive(Debug)]
pub(crate) struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Appends a text; what does not fit is left out, and a NUL always follows.
    pub(crate) fn put(mut self, text: &[u8]) -> Self {
        let len = text.len().min(N - 1 - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&text[..len]);
        self.len += len;
        self
    }

    /// Appends a number in decimal.
    pub(crate) fn number(self, mut number: u32) -> Self {
        let mut digits = [0; 10];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..])
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// `/proc/self/cwd`, or `/proc/self/fd/N`.
pub(crate) fn link_of(descriptor: Option<i32>) -> Short<32> {
    match descriptor {
        None => Short::new().put(b"/proc/self/cwd"),
        Some(number) if number < 0 => Short::new().put(b"/proc/self/fd/-"),
        Some(number) => Short::new().put(b"/proc/self/fd/").number(number.unsigned_abs()),
    }
}
