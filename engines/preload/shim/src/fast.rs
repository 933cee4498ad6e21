//! The short way: an absolute path of a tree that never changes, without links on its way, is put together on the stack.
//!
//! Everything else (a link, `..`, a bind, a change) takes the way through the table of meanings, which gives the same answer
//! for these, too. What the tree's table does not have is not there, and no system call is made at all.

use core::{
    ffi::{CStr, c_char},
    mem::MaybeUninit,
};

use coracle_paths::table::Kind;
use coracle_sys::kernel::{
    __NR_access, __NR_faccessat, __NR_lstat, __NR_newfstatat, __NR_open, __NR_openat, __NR_stat, __NR_statx,
    AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, O_ACCMODE, O_CREAT, O_NOFOLLOW, O_PATH, O_TRUNC,
};

use crate::{call::raw, program, state::State};

/// Longest host path, with its NUL, that goes this way.
const ROOM: usize = 512;
const NAME_MAX: usize = coracle_paths::NAME_MAX;
const W_OK: usize = 2;
/// `O_TMPFILE` without `O_DIRECTORY`.
const TEMPORARY: usize = 0o20_000_000;
const ENOENT: isize = 2;

/// Which argument is the path, and whether a link at its end is followed; `None`: the call takes the long way.
#[inline]
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
fn words(number: u32, args: &[usize; 6]) -> Option<(usize, bool)> {
    let follows = |flags: usize| flags & AT_SYMLINK_NOFOLLOW as usize == 0;
    let reads = |flags: usize| flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH) as usize == 0 && flags & TEMPORARY == 0;
    match number {
        __NR_stat => Some((0, true)),
        __NR_lstat => Some((0, false)),
        __NR_newfstatat if args[3] & AT_EMPTY_PATH as usize == 0 => Some((1, follows(args[3]))),
        __NR_statx if args[2] & AT_EMPTY_PATH as usize == 0 => Some((1, follows(args[2]))),
        __NR_access if args[1] & W_OK == 0 => Some((0, true)),
        __NR_faccessat if args[2] & W_OK == 0 => Some((1, true)),
        __NR_open if reads(args[1]) => Some((0, args[1] & O_NOFOLLOW as usize == 0)),
        __NR_openat if reads(args[2]) => Some((1, args[2] & O_NOFOLLOW as usize == 0)),
        _ => None,
    }
}

/// Makes the call, if it can go this way.
#[inline]
pub(crate) fn call(state: &State, number: u32, mut args: [usize; 6]) -> Option<isize> {
    let (at, follow) = words(number, &args)?;
    if args[at] < 4096 || !program::root_is_top() {
        return None;
    }
    let path = core::ptr::with_exposed_provenance::<c_char>(args[at]);
    // SAFETY: the guest's own path.
    let path = unsafe {
        if *path.cast::<u8>() != b'/' {
            return None;
        }
        CStr::from_ptr(path)
    };
    let root = state.rules.view.host_root(None);
    let bytes = path.to_bytes_with_nul();
    if root.len() + bytes.len() > ROOM {
        return None;
    }
    match find(state, path.to_bytes(), follow)? {
        Found::Missing => Some(-ENOENT),
        Found::There => {
            let mut host = MaybeUninit::<[u8; ROOM]>::uninit();
            let start = host.as_mut_ptr().cast::<u8>();
            // SAFETY: both fit, as was just seen; the kernel reads up to the NUL, which is the path's own.
            unsafe {
                start.copy_from_nonoverlapping(root.as_ptr(), root.len());
                start.add(root.len()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            args[at] = start.expose_provenance();
            Some(raw(number, args))
        }
    }
}

enum Found {
    There,
    Missing,
}

/// Looks a path up, component by component; `None`: this is not a case for here.
#[inline]
fn find(state: &State, path: &[u8], follow: bool) -> Option<Found> {
    let view = &state.rules.view;
    let table = view.table()?;
    let mut node = table.root();
    let mut end = 0;
    while end < path.len() {
        let start = end + 1;
        let len = path[start..].iter().position(|byte| *byte == b'/').unwrap_or(path.len() - start);
        end = start + len;
        let name = &path[start..end];
        // An empty name is a slash at the end, or one of several.
        if matches!(name, b"" | b"." | b"..") || len > NAME_MAX || view.mounted_at(&path[..end]).is_some() {
            return None;
        }
        let is_last = end == path.len();
        let Some(next) = table.child(node, name) else {
            return Some(Found::Missing);
        };
        match table.kind(next) {
            Kind::Directory => {}
            Kind::File if is_last => {}
            Kind::Symlink(_) if is_last && !follow => {}
            _ => return None,
        }
        node = next;
    }
    Some(Found::There)
}
