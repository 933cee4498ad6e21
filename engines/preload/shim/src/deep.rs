//! Directories that lie so deep that the kernel can tell no path of theirs: found by their parents.

use core::{ffi::CStr, mem::MaybeUninit};

use coracle_intercept::Errno;
use coracle_paths::{Ancestor, CLIMB, PATH_MAX, nearest_named};
use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_getdents64, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY},
};

use crate::files::{self, Held, link_of};

fn open(dir: Fd, path: &CStr, flags: u32) -> Result<Held, Errno> {
    sys::open(dir, path, flags | O_DIRECTORY | O_CLOEXEC, 0).map(Held).map_err(files::errno)
}

/// What the kernel calls an open directory.
fn name_of(dir: &Held, text: &mut [u8]) -> Result<usize, Errno> {
    files::readlink(link_of(Some(dir.0.0)).as_c_str(), text)
}

/// The directory so many levels above.
fn above(dir: &Held, count: u32) -> Result<Held, Errno> {
    let mut path = [0; 3 * CLIMB as usize + 1];
    for step in path.chunks_exact_mut(3).take(count as usize) {
        step.copy_from_slice(b"../");
    }
    open(dir.0, CStr::from_bytes_until_nul(&path).map_err(|_| Errno::ENAMETOOLONG)?, O_PATH)
}

/// See [`coracle_paths::Host::ancestor`].
#[inline(never)]
pub(crate) fn ancestor(link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
    nearest_named(open(Fd::CWD, link, O_PATH)?, above, name_of, text)
}

/// See [`coracle_intercept::Guest::whole_place`]: the path of [`ancestor`], and the names below it as their parents list
/// them, the last of which is found first and stands at the end of `text`.
#[inline(never)]
pub(crate) fn whole_place(link: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
    let above = ancestor(link, text)?;
    let mut start = text.len();
    let mut dir = open(Fd::CWD, link, O_PATH)?;
    for _ in 0..above.levels {
        let parent = open(dir.0, c"..", O_RDONLY)?;
        let mut name = [0; 256];
        let len = name_in(&parent, &dir, &mut name)?;
        start = start.checked_sub(len + 1).filter(|start| *start > above.len).ok_or(Errno::ENAMETOOLONG)?;
        text[start] = b'/';
        text[start + 1..=start + len].copy_from_slice(&name[..len]);
        dir = parent;
    }
    let len = text.len() - start;
    text.copy_within(start.., above.len);
    Ok(above.len + len)
}

/// What `parent` calls `child`. A removed directory has no name.
fn name_in(parent: &Held, child: &Held, name: &mut [u8; 256]) -> Result<usize, Errno> {
    /// Where the length and the name are in `struct linux_dirent64`.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let wanted = files::stat(link_of(Some(child.0.0)).as_c_str(), true)?.inode;
    let mut entries = MaybeUninit::<[u8; PATH_MAX]>::zeroed();
    loop {
        let at = entries.as_mut_ptr().expose_provenance();
        // SAFETY: the kernel writes at most as much as there is room for.
        let result = unsafe { sys::syscall3(__NR_getdents64, parent.0.arg(), at, PATH_MAX) };
        let len = sys::check(result).map_err(files::errno)?;
        if len == 0 {
            return Err(Errno::ENOENT);
        }
        // SAFETY: zeroed, and integers.
        let mut rest = unsafe { entries.assume_init_ref() }.get(..len).unwrap_or_default();
        while let [_, ..] = rest {
            let size = usize::from(u16::from_ne_bytes([rest[LENGTH], rest[LENGTH + 1]]));
            let (entry, after) = rest.split_at_checked(size).filter(|_| size > NAME).ok_or(Errno::ENOENT)?;
            rest = after;
            let entry = CStr::from_bytes_until_nul(&entry[NAME..]).map_err(|_| Errno::ENOENT)?;
            if matches!(entry.to_bytes(), b"." | b"..") {
                continue;
            }
            // Under a mount point the number in the list is another.
            if files::stat_in(parent.0, entry).is_ok_and(|facts| facts.inode == wanted) {
                let entry = entry.to_bytes();
                name.get_mut(..entry.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(entry);
                return Ok(entry.len());
            }
        }
    }
}

/// See [`coracle_paths::Host::leads_to`]. What asks has callers with small stacks, and seldom comes here.
#[inline(never)]
pub(crate) fn leads_to(link: &CStr, name: &[u8]) -> bool {
    let mut path = [0; PATH_MAX];
    let Some(room) = path.get_mut(..name.len()).filter(|_| name.len() < PATH_MAX) else { return false };
    room.copy_from_slice(name);
    let Ok(name) = CStr::from_bytes_until_nul(&path) else { return false };
    match (files::stat(link, true), files::stat(name, false)) {
        (Ok(there), Ok(here)) => there.inode == here.inode,
        _ => false,
    }
}
