//! Owners and modes in other words, and who one is: answered here only for a guest that takes itself for somebody else.

use core::ffi::c_char;

use coracle_sys::kernel::{
    __NR_capget, __NR_capset, __NR_fchmodat, __NR_fchmodat2, __NR_getegid, __NR_geteuid, __NR_getgid, __NR_getgroups,
    __NR_getresgid, __NR_getresuid, __NR_getuid, __NR_rmdir, __NR_setfsgid, __NR_setfsuid, __NR_setgid, __NR_setgroups,
    __NR_setregid, __NR_setresgid, __NR_setresuid, __NR_setreuid, __NR_setuid, __NR_umount2, __NR_unlink,
    __NR_utimensat, AT_SYMLINK_NOFOLLOW,
};

use super::{AT_FDCWD, asked};
use crate::{
    call::{call, call_by},
    libc::{Next, answer, set_errno},
    state,
};

const EISDIR: isize = 21;
const ENOSYS: isize = 38;
const EOPNOTSUPP: isize = 95;

/// Names whose own work is kept where nobody pretends: it tells all threads.
macro_rules! persons {
    ($($number:ident: $name:ident $text:literal;)+) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(a: usize, b: usize, c: usize) -> isize {
                static NEXT: Next = Next::new($text);
                let args = [a, b, c, 0, 0, 0];
                if state::get().rules.identity.pretends() {
                    return asked($number, args);
                }
                answer(call_by(&NEXT, $number, args))
            }
        )+
    };
}

persons! {
    __NR_getuid: getuid c"getuid";
    __NR_geteuid: geteuid c"geteuid";
    __NR_getgid: getgid c"getgid";
    __NR_getegid: getegid c"getegid";
    __NR_getresuid: getresuid c"getresuid";
    __NR_getresgid: getresgid c"getresgid";
    __NR_getgroups: getgroups c"getgroups";
    __NR_setuid: setuid c"setuid";
    __NR_setgid: setgid c"setgid";
    __NR_setreuid: setreuid c"setreuid";
    __NR_setregid: setregid c"setregid";
    __NR_setresuid: setresuid c"setresuid";
    __NR_setresgid: setresgid c"setresgid";
    __NR_setgroups: setgroups c"setgroups";
    __NR_setfsuid: setfsuid c"setfsuid";
    __NR_setfsgid: setfsgid c"setfsgid";
    __NR_capget: capget c"capget";
    __NR_capset: capset c"capset";
}

/// An id that stays as it is.
const KEEP: usize = u32::MAX as usize;

#[unsafe(no_mangle)]
unsafe extern "C" fn seteuid(id: u32) -> isize {
    // SAFETY: numbers alone.
    unsafe { setresuid(KEEP, id as usize, KEEP) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setegid(id: u32) -> isize {
    // SAFETY: numbers alone.
    unsafe { setresgid(KEEP, id as usize, KEEP) }
}

unsafe extern "C" {
    fn getgrouplist(user: *const c_char, group: u32, groups: *mut u32, count: *mut i32) -> i32;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn initgroups(user: *const c_char, group: u32) -> isize {
    let mut groups = [0; 256];
    let mut count = 256;
    // SAFETY: the caller's string; room for as many as is said.
    let found = unsafe { getgrouplist(user, group, groups.as_mut_ptr(), &raw mut count) };
    if found < 0 {
        set_errno(22);
        return -1;
    }
    // SAFETY: as many as were found.
    unsafe { setgroups(usize::try_from(count).unwrap_or(0), groups.as_ptr().expose_provenance(), 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fchmodat(dir: usize, path: usize, mode: u32, flags: u32) -> isize {
    let args = [dir, path, mode as usize, flags as usize, 0, 0];
    answer(match flags {
        0 => call(__NR_fchmodat, args),
        _ => match call(__NR_fchmodat2, args) {
            // Kernels before 6.6.
            result if result == -ENOSYS => -EOPNOTSUPP,
            result => result,
        },
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn lchmod(path: usize, mode: u32) -> isize {
    // SAFETY: the caller's own arguments.
    unsafe { fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn remove(path: usize) -> isize {
    answer(match call(__NR_unlink, [path, 0, 0, 0, 0, 0]) {
        result if result == -EISDIR => call(__NR_rmdir, [path, 0, 0, 0, 0, 0]),
        result => result,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn umount(path: usize) -> isize {
    asked(__NR_umount2, [path, 0, 0, 0, 0, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn futimens(descriptor: usize, times: usize) -> isize {
    asked(__NR_utimensat, [descriptor, 0, times, 0, 0, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn lutimes(path: usize, times: *const [i64; 4]) -> isize {
    let exact = (!times.is_null()).then(|| {
        // SAFETY: the caller's two `struct timeval`.
        let [seconds, micro, other, other_micro] = unsafe { *times };
        [seconds, micro * 1000, other, other_micro * 1000]
    });
    let at = exact.as_ref().map_or(0, |exact| exact.as_ptr().expose_provenance());
    asked(__NR_utimensat, [AT_FDCWD, path, at, AT_SYMLINK_NOFOLLOW as usize, 0, 0])
}
