//! The bundle's program.
//!
//! `main` is C's and not Rust's, because the standard library's runtime would change what the application inherits: it
//! ignores SIGPIPE, and its set-up costs system calls that a warm start can do without.
#![no_main]

use std::{
    ffi::{CStr, OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// The program's entry.
///
/// # Safety
/// `argv` points to `argc` NUL-terminated strings that live as long as the process.
// SAFETY: the C runtime calls exactly one `main`, and `no_main` keeps rustc from defining another.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: i32, argv: *const *const libc::c_char) -> i32 {
    open_standard_descriptors();
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: this function's own contract, kept by the C runtime.
    let args = (0..count).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) });
    let args: Vec<OsString> = args.map(|arg| OsStr::from_bytes(arg.to_bytes()).to_owned()).collect();
    i32::from(coracle_stub::start::start(args))
}

/// A descriptor 0, 1 or 2 that was closed would be given to the next file that we open, and the application would then
/// read or write it as its own.
fn open_standard_descriptors() {
    for fd in 0..3 {
        // SAFETY: fcntl and open with these arguments touch no memory but the constant path.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}
