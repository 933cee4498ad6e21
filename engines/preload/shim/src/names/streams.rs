//! Streams: fopen(3) and its kin, by our own open and the C library's fdopen.

use core::ffi::{CStr, c_char, c_void};

use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_close, __NR_openat, O_APPEND, O_CLOEXEC, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY},
};

use super::{AT_FDCWD, asked};
use crate::{
    call::raw,
    files::link_of,
    libc::{Next, errno, fdopen, set_errno},
};

const EINVAL: u16 = 22;
const ENOSYS: u16 = 38;

/// The flags of open(2) that a mode means.
pub(super) fn flags(mode: &CStr) -> Option<u32> {
    let (first, rest) = mode.to_bytes().split_first()?;
    // glibc takes an encoding behind a comma.
    let rest = rest.split(|byte| *byte == b',').next().unwrap_or(rest);
    let base = match first {
        b'r' => O_RDONLY,
        b'w' => O_WRONLY | O_CREAT | O_TRUNC,
        b'a' => O_WRONLY | O_CREAT | O_APPEND,
        _ => return None,
    };
    Some(rest.iter().fold(base, |flags, byte| match byte {
        b'+' => flags & !(O_RDONLY | O_WRONLY) | O_RDWR,
        b'e' => flags | O_CLOEXEC,
        b'x' => flags | O_EXCL,
        _ => flags,
    }))
}

fn open(path: *const c_char, flags: u32) -> Option<i32> {
    let args = [AT_FDCWD, path.expose_provenance(), flags as usize, 0o666, 0, 0];
    i32::try_from(asked(__NR_openat, args)).ok().filter(|descriptor| *descriptor >= 0)
}

fn close(descriptor: i32) {
    let before = errno();
    raw(__NR_close, [Fd(descriptor).arg(), 0, 0, 0, 0, 0]);
    set_errno(u16::try_from(before).unwrap_or(EINVAL));
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut c_void {
    let null = core::ptr::null_mut();
    // SAFETY: the caller's string.
    let Some(flags) = flags(unsafe { CStr::from_ptr(mode) }) else {
        set_errno(EINVAL);
        return null;
    };
    let Some(descriptor) = open(path, flags) else { return null };
    // SAFETY: a descriptor that was just opened so, and the caller's mode.
    let stream = unsafe { fdopen(descriptor, mode) };
    if stream.is_null() {
        close(descriptor);
    }
    stream
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's own arguments.
    unsafe { fopen(path, mode) }
}

type Freopen = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void) -> *mut c_void;

/// The file is opened by us, and the C library opens it once more by its descriptor.
unsafe fn freopen_by(next: &Next, path: *const c_char, mode: *const c_char, stream: *mut c_void) -> *mut c_void {
    let null = core::ptr::null_mut();
    let Some(next) = next.get() else {
        set_errno(ENOSYS);
        return null;
    };
    // SAFETY: the function of that name.
    let next: Freopen = unsafe { core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next)) };
    if path.is_null() {
        // SAFETY: the caller's own arguments.
        return unsafe { next(path, mode, stream) };
    }
    // SAFETY: the caller's string.
    let Some(flags) = flags(unsafe { CStr::from_ptr(mode) }) else {
        set_errno(EINVAL);
        return null;
    };
    let opened = open(path, flags | O_CLOEXEC);
    let link = match opened {
        Some(descriptor) => link_of(Some(descriptor)),
        // It closes the stream, and finds nothing to open.
        None => crate::files::Short::new().put(b"/proc/self/fd/-"),
    };
    let before = errno();
    // That the file must be new was seen to.
    let plain: &CStr = match flags {
        flags if flags & O_EXCL == 0 => c"",
        flags if flags & O_RDWR != 0 => c"w+",
        _ => c"w",
    };
    let mode = if plain.is_empty() { mode } else { plain.as_ptr() };
    // SAFETY: NUL-terminated strings, and the caller's stream.
    let result = unsafe { next(link.as_c_str().as_ptr(), mode, stream) };
    match opened {
        Some(descriptor) => close(descriptor),
        None => set_errno(u16::try_from(before).unwrap_or(EINVAL)),
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn freopen(path: *const c_char, mode: *const c_char, stream: *mut c_void) -> *mut c_void {
    static NEXT: Next = Next::new(c"freopen");
    // SAFETY: the caller's own arguments.
    unsafe { freopen_by(&NEXT, path, mode, stream) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut c_void) -> *mut c_void {
    static NEXT: Next = Next::new(c"freopen64");
    // SAFETY: the caller's own arguments.
    unsafe { freopen_by(&NEXT, path, mode, stream) }
}

/// A nameless file in the guest's `/tmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn tmpfile() -> *mut c_void {
    const TEMPORARY: u32 = 0o20_200_000;
    let path = c"/tmp".as_ptr().expose_provenance();
    let flags = (TEMPORARY | O_RDWR | O_EXCL) as usize;
    let mut result = crate::call::call(__NR_openat, [AT_FDCWD, path, flags, 0o600, 0, 0]);
    if result < 0 {
        result = super::temporary::nameless();
    }
    let Ok(descriptor) = sys::check(result).and_then(|fd| i32::try_from(fd).map_err(|_| sys::Errno::EBADF)) else {
        crate::libc::answer(result);
        return core::ptr::null_mut();
    };
    // SAFETY: a descriptor that was just opened so.
    let stream = unsafe { fdopen(descriptor, c"w+".as_ptr()) };
    if stream.is_null() {
        close(descriptor);
    }
    stream
}

#[unsafe(no_mangle)]
unsafe extern "C" fn tmpfile64() -> *mut c_void {
    // SAFETY: takes nothing.
    unsafe { tmpfile() }
}
