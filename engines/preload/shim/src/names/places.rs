//! Where one is, and what a path is called: getcwd(3) and realpath(3).

use core::{
    ffi::{CStr, c_char},
    slice,
};

use coracle_intercept::{Errno, Guest};
use coracle_paths::PATH_MAX;
use coracle_sys::kernel::__NR_getcwd;

use crate::{
    call::call,
    environment,
    guest::Process,
    libc::{answer, free, malloc, set_errno},
    pool, state,
};

const ERANGE: u16 = 34;
const EINVAL: u16 = 22;
const ENOMEM: u16 = 12;

/// Copies a string into memory that the caller is to free.
pub(super) fn duplicate(text: &[u8], size: usize) -> *mut c_char {
    // SAFETY: malloc takes a number.
    let memory = unsafe { malloc(size.max(text.len() + 1)) }.cast::<c_char>();
    if memory.is_null() {
        set_errno(ENOMEM);
        return memory;
    }
    // SAFETY: as large as the text and its NUL at least, and new.
    unsafe {
        memory.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        memory.add(text.len()).write(0);
    }
    memory
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getcwd(buffer: *mut c_char, size: usize) -> *mut c_char {
    let null = core::ptr::null_mut();
    if !buffer.is_null() {
        if size == 0 {
            set_errno(EINVAL);
            return null;
        }
        let result = call(__NR_getcwd, [buffer.expose_provenance(), size, 0, 0, 0, 0]);
        return if answer(result) < 0 { null } else { buffer };
    }
    let mut text = [0_u8; PATH_MAX];
    let result = answer(call(__NR_getcwd, [text.as_mut_ptr().expose_provenance(), PATH_MAX, 0, 0, 0, 0]));
    let Some(text) = usize::try_from(result).ok().and_then(|len| text.get(..len.max(1) - 1)) else { return null };
    if size != 0 && text.len() >= size {
        set_errno(ERANGE);
        return null;
    }
    duplicate(text, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __getcwd_chk(buffer: *mut c_char, size: usize, _: usize) -> *mut c_char {
    // SAFETY: the caller's own arguments.
    unsafe { getcwd(buffer, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getwd(buffer: *mut c_char) -> *mut c_char {
    // SAFETY: by its definition the buffer has so much room.
    unsafe { getcwd(buffer, PATH_MAX) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __getwd_chk(buffer: *mut c_char, _: usize) -> *mut c_char {
    // SAFETY: as in `getwd`.
    unsafe { getwd(buffer) }
}

/// `PWD`, if that is the working directory.
#[unsafe(no_mangle)]
unsafe extern "C" fn get_current_dir_name() -> *mut c_char {
    let process = Process::default();
    if let Some(said) = environment::value(b"PWD")
        && said.to_bytes().first() == Some(&b'/')
        && let Some(mut scratch) = pool::take()
        && let Ok(host) = scratch.find(&state::get().rules, &process, said.to_bytes())
        && let (Ok(said_file), Ok(file)) = (process.stat(host, true), process.stat(c".", true))
        && said_file.inode == file.inode
    {
        return duplicate(said.to_bytes(), 0);
    }
    // SAFETY: a null buffer asks for new memory.
    unsafe { getcwd(core::ptr::null_mut(), 0) }
}

/// Gives `to` the guest path of a file that exists, without links.
fn canonical<T>(path: &CStr, to: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
    let process = Process::default();
    let mut scratch = pool::take().ok_or(Errno(ENOMEM))?;
    let host = scratch.find(&state::get().rules, &process, path.to_bytes())?;
    process.stat(host, true)?;
    // A link of `/proc` leads where only the kernel knows.
    if coracle_paths::Magic::of(host.to_bytes()).is_some_and(coracle_paths::Magic::shows_host_path)
        && let Some(mut block) = pool::take()
    {
        let (text, into) = pool::bytes(&mut block).split_at_mut(PATH_MAX);
        let len = coracle_paths::Host::readlink(&process, host, text)?;
        if let Some(place) = state::get().rules.view.to_guest(&text[..len], &mut into[..PATH_MAX]) {
            return Ok(to(&into[..place.len]));
        }
    }
    Ok(to(scratch.program()))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    let null = core::ptr::null_mut();
    if path.is_null() {
        set_errno(EINVAL);
        return null;
    }
    let give = |found: &[u8]| {
        if found.len() >= PATH_MAX {
            set_errno(Errno::ENAMETOOLONG.0);
            return null;
        }
        if resolved.is_null() {
            return duplicate(found, 0);
        }
        // SAFETY: by its definition the buffer has PATH_MAX bytes.
        let into = unsafe { slice::from_raw_parts_mut(resolved.cast::<u8>(), found.len() + 1) };
        into[..found.len()].copy_from_slice(found);
        into[found.len()] = 0;
        resolved
    };
    // SAFETY: the caller's string.
    match canonical(unsafe { CStr::from_ptr(path) }, give) {
        Ok(answer) => answer,
        Err(errno) => {
            set_errno(errno.0);
            null
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __realpath_chk(path: *const c_char, resolved: *mut c_char, _: usize) -> *mut c_char {
    // SAFETY: the caller's own arguments.
    unsafe { realpath(path, resolved) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: the caller's own argument.
    unsafe { realpath(path, core::ptr::null_mut()) }
}

/// Frees memory that [`duplicate`] made.
pub(super) fn release(text: *mut c_char) {
    // SAFETY: the C library's own memory.
    unsafe { free(text.cast()) };
}
