//! Names for temporary files.

use core::ffi::{CStr, c_char};

use coracle_sys::kernel::{__NR_getrandom, __NR_lstat, __NR_mkdir, __NR_openat, __NR_unlink, O_CREAT, O_EXCL, O_RDWR};

use super::{AT_FDCWD, places};
use crate::{
    call::{call, raw},
    environment,
    libc::{answer, set_errno},
};

const EEXIST: isize = 17;
const ENOENT: isize = 2;
const EINVAL: u16 = 22;
/// As often a name may be taken.
const TRIES: u32 = 1000;
/// How many letters are chosen.
const LETTERS: usize = 6;

/// Writes six letters of 62.
fn choose(letters: &mut [u8]) {
    const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut random = 0_u64;
    let here = (&raw mut random).expose_provenance();
    raw(__NR_getrandom, [here, size_of::<u64>(), 0, 0, 0, 0]);
    for letter in letters {
        *letter = ALPHABET[usize::try_from(random % 62).unwrap_or(0)];
        random /= 62;
    }
}

/// Tries names of the caller's pattern until one is not taken; the result of making it.
unsafe fn make(pattern: *mut c_char, suffix: usize, make: impl Fn(usize) -> isize) -> isize {
    // SAFETY: the caller's string.
    let len = unsafe { CStr::from_ptr(pattern) }.count_bytes();
    let invalid = -isize::try_from(EINVAL).unwrap_or(0);
    let Some(at) = len.checked_sub(suffix).and_then(|len| len.checked_sub(LETTERS)) else { return invalid };
    // SAFETY: inside the string, which by definition can be written to.
    let letters = unsafe { core::slice::from_raw_parts_mut(pattern.cast::<u8>().add(at), LETTERS) };
    if letters != b"XXXXXX" {
        return invalid;
    }
    for _ in 0..TRIES {
        choose(letters);
        match make(pattern.expose_provenance()) {
            result if result == -EEXIST => {}
            result => return result,
        }
    }
    letters.copy_from_slice(b"XXXXXX");
    -EEXIST
}

fn open(path: usize, flags: u32) -> isize {
    call(__NR_openat, [AT_FDCWD, path, (flags & !3 | O_RDWR | O_CREAT | O_EXCL) as usize, 0o600, 0, 0])
}

macro_rules! files {
    ($($name:ident ($($arg:ident: $kind:ty),*) $suffix:expr, $flags:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(pattern: *mut c_char $(, $arg: $kind)*) -> isize {
                // SAFETY: the caller's own arguments.
                answer(unsafe { make(pattern, usize::try_from($suffix).unwrap_or(usize::MAX), |path| open(path, $flags)) })
            }
        )+
    };
}

files! {
    mkstemp () 0_i32, 0;
    mkstemp64 () 0_i32, 0;
    mkostemp (flags: u32) 0_i32, flags;
    mkostemp64 (flags: u32) 0_i32, flags;
    mkstemps (suffix: i32) suffix, 0;
    mkstemps64 (suffix: i32) suffix, 0;
    mkostemps (suffix: i32, flags: u32) suffix, flags;
    mkostemps64 (suffix: i32, flags: u32) suffix, flags;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdtemp(pattern: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own argument.
    let result = unsafe { make(pattern, 0, |path| call(__NR_mkdir, [path, 0o700, 0, 0, 0, 0])) };
    if answer(result) < 0 { core::ptr::null_mut() } else { pattern }
}

/// Whether there is nothing of that name, as `make` wants it.
fn is_free(path: usize) -> isize {
    let mut told = [0_u8; 256];
    match call(__NR_lstat, [path, told.as_mut_ptr().expose_provenance(), 0, 0, 0, 0]) {
        0 => -EEXIST,
        result if result == -ENOENT => 0,
        result => result,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mktemp(pattern: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's own argument.
    let result = unsafe { make(pattern, 0, is_free) };
    if answer(result) < 0 {
        // SAFETY: as above; a string of no letters says that there is no name.
        unsafe { pattern.write(0) };
    }
    pattern
}

#[unsafe(no_mangle)]
unsafe extern "C" fn tempnam(dir: *const c_char, prefix: *const c_char) -> *mut c_char {
    let said = environment::value(b"TMPDIR").map_or(core::ptr::null(), CStr::as_ptr);
    let exists = |dir: *const c_char| {
        !dir.is_null() && call(coracle_sys::kernel::__NR_access, [dir.expose_provenance(), 3, 0, 0, 0, 0]) == 0
    };
    let found = [said, dir, c"/tmp".as_ptr()].into_iter().find(|dir| exists(*dir));
    let Some(found) = found else {
        set_errno(2);
        return core::ptr::null_mut();
    };
    // SAFETY: NUL-terminated strings: the caller's, of the environment, or our own.
    let (dir, prefix) = unsafe {
        (CStr::from_ptr(found).to_bytes(), if prefix.is_null() { b"file" } else { CStr::from_ptr(prefix).to_bytes() })
    };
    let prefix = &prefix[..prefix.len().min(5)];
    let mut text = [0_u8; coracle_paths::PATH_MAX];
    let mut len = 0;
    for part in [dir, b"/", prefix, b"XXXXXX"] {
        let Some(room) = text.get_mut(len..len + part.len()) else { return core::ptr::null_mut() };
        room.copy_from_slice(part);
        len += part.len();
    }
    let name = places::duplicate(&text[..len], 0);
    if name.is_null() {
        return name;
    }
    // SAFETY: a new string of that pattern.
    let result = unsafe { make(name, 0, is_free) };
    if answer(result) < 0 {
        places::release(name);
        return core::ptr::null_mut();
    }
    name
}

/// A new file in `/tmp` whose name is gone again.
pub(super) fn nameless() -> isize {
    let mut pattern = *b"/tmp/tmpfXXXXXX\0";
    // SAFETY: our own string.
    let result = unsafe { make(pattern.as_mut_ptr().cast(), 0, |path| open(path, 0)) };
    if result >= 0 {
        call(__NR_unlink, [pattern.as_ptr().expose_provenance(), 0, 0, 0, 0, 0]);
    }
    result
}
