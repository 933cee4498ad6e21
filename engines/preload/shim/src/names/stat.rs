//! The stat family of glibc before 2.33, which had a version number in front, and calls around it.

use core::mem::MaybeUninit;

use coracle_sys::kernel::{
    __NR_faccessat, __NR_faccessat2, __NR_fstat, __NR_lstat, __NR_mknod, __NR_mknodat, __NR_newfstatat, __NR_stat,
    __NR_statfs, AT_EACCESS, statfs64 as Statfs,
};

use super::{AT_FDCWD, asked};
use crate::{call::call, libc::answer};

const ENOSYS: isize = 38;
const S_IFIFO: usize = 0o010_000;

macro_rules! with_version {
    ($($number:ident: $($name:ident)+;)+) => {
        $($(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(_: i32, a: usize, b: usize, c: usize, d: usize) -> isize {
                asked($number, [a, b, c, d, 0, 0])
            }
        )+)+
    };
}

with_version! {
    __NR_stat: __xstat __xstat64;
    __NR_lstat: __lxstat __lxstat64;
    __NR_fstat: __fxstat __fxstat64;
    __NR_newfstatat: __fxstatat __fxstatat64;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __xmknod(_: i32, path: usize, mode: u32, device: *const usize) -> isize {
    // SAFETY: the caller's promise.
    let device = unsafe { *device };
    asked(__NR_mknod, [path, mode as usize, device, 0, 0, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __xmknodat(_: i32, dir: usize, path: usize, mode: u32, device: *const usize) -> isize {
    // SAFETY: the caller's promise.
    let device = unsafe { *device };
    asked(__NR_mknodat, [dir, path, mode as usize, device, 0, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkfifo(path: usize, mode: u32) -> isize {
    asked(__NR_mknod, [path, mode as usize & 0o7777 | S_IFIFO, 0, 0, 0, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkfifoat(dir: usize, path: usize, mode: u32) -> isize {
    asked(__NR_mknodat, [dir, path, mode as usize & 0o7777 | S_IFIFO, 0, 0, 0])
}

/// faccessat(2) with flags has a number of its own, which kernels before 5.8 lack.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn faccessat(dir: usize, path: usize, mode: u32, flags: u32) -> isize {
    let args = [dir, path, mode as usize, flags as usize, 0, 0];
    answer(match flags {
        0 => call(__NR_faccessat, args),
        _ => match call(__NR_faccessat2, args) {
            result if result == -ENOSYS => call(__NR_faccessat, args),
            result => result,
        },
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn euidaccess(path: usize, mode: u32) -> isize {
    // SAFETY: the caller's own arguments.
    unsafe { faccessat(AT_FDCWD, path, mode, AT_EACCESS) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn eaccess(path: usize, mode: u32) -> isize {
    // SAFETY: the caller's own arguments.
    unsafe { faccessat(AT_FDCWD, path, mode, AT_EACCESS) }
}

/// `struct statvfs`.
#[repr(C)]
struct Statvfs {
    block_size: u64,
    fragment_size: u64,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
    files_available: u64,
    id: u64,
    flags: u64,
    longest_name: u64,
    kind: u32,
    spare: [u32; 5],
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statvfs(path: usize, into: *mut Statvfs) -> isize {
    /// The kernel's word that its flags hold.
    const ST_VALID: u64 = 0x20;
    let mut told = MaybeUninit::<Statfs>::zeroed();
    let result = asked(__NR_statfs, [path, told.as_mut_ptr().expose_provenance(), 0, 0, 0, 0]);
    if result != 0 {
        return result;
    }
    // SAFETY: zeroed, and then written by the kernel; `into` is the caller's.
    unsafe {
        let told = told.assume_init();
        let number = |value: i64| value.cast_unsigned();
        let block_size = number(told.f_bsize);
        into.write(Statvfs {
            block_size,
            fragment_size: if told.f_frsize == 0 { block_size } else { number(told.f_frsize) },
            blocks: told.f_blocks,
            free: told.f_bfree,
            available: told.f_bavail,
            files: told.f_files,
            files_free: told.f_ffree,
            files_available: told.f_ffree,
            id: u64::from(told.f_fsid.val[0].cast_unsigned()) | u64::from(told.f_fsid.val[1].cast_unsigned()) << 32,
            flags: number(told.f_flags) & !ST_VALID,
            longest_name: number(told.f_namelen),
            kind: 0,
            spare: [0; 5],
        });
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statvfs64(path: usize, into: *mut Statvfs) -> isize {
    // SAFETY: the same structure.
    unsafe { statvfs(path, into) }
}
