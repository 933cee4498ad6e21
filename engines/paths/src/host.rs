//! What a walk asks of the world outside: symbolic links, and who the processes in `/proc` are.

use core::ffi::CStr;

use crate::Errno;

/// The process on whose behalf a path is resolved, as numbered in the host's `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Thread group id: what `/proc/self` names.
    pub pid: u32,
    /// Thread id: what `/proc/thread-self` names.
    pub tid: u32,
}

/// What [`Host::ancestor`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    /// Length of its host path.
    pub len: usize,
    /// How many directories it is above; at least one.
    pub levels: u32,
}

/// The host, as a walk sees it. Tracer, agent, shim and the tests' models each have their own.
pub trait Host {
    /// readlink(2) of a host path, without its terminating NUL, not following the last component.
    ///
    /// A walk asks this of every component that may be a link, and of `DIR/.` to learn whether DIR can be searched. The
    /// path is absolute, and may be longer than `PATH_MAX`: an implementation opens such a one piece by piece, or answers
    /// [`Errno::ENAMETOOLONG`].
    ///
    /// # Errors
    /// The kernel's: [`Errno::EINVAL`] if it exists and is no symbolic link.
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno>;

    /// Whether the kernel meets a symbolic link when it looks `path` up: openat2(2) with `O_PATH` and
    /// `RESOLVE_NO_SYMLINKS` says `ELOOP` then. `Some(false)` if it succeeds, and also for `ENOENT`, `ENOTDIR` and `EACCES`:
    /// no link came before that. `None` for all else: no such call before Linux 5.6, no descriptor left, path too long.
    ///
    /// One such question saves a [`readlink`](Self::readlink) for each component of a path without links. It costs a
    /// descriptor for a moment, which an agent inside the guest may not want.
    fn meets_link(&self, path: &CStr) -> Option<bool> {
        let _ = path;
        None
    }

    /// Whether the `/proc` link `link` leads to the very file that is called `name` now. Asked where `name` ends in
    /// ` (deleted)`, which may be the kernel's word or part of the name.
    fn leads_to(&self, link: &CStr, name: &[u8]) -> bool {
        let _ = (link, name);
        false
    }

    /// The nearest directory above the one that `/proc` link `link` leads to whose path the kernel can tell, where
    /// [`readlink`](Self::readlink) of the link says `ENAMETOOLONG`: its host path goes to `text`.
    ///
    /// # Errors
    /// `ENOTDIR` where the link leads to no directory; what open(2) says.
    fn ancestor(&self, link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
        let _ = (link, text);
        Err(Errno::ENAMETOOLONG)
    }

    /// Whose `/proc/self` is meant.
    fn caller(&self) -> Caller;

    /// The guest directory that is `/` for process `pid` (guests may chroot), or `None` if it is no process of this run:
    /// then its `root`, `cwd`, `exe` and `fd` links cannot be followed, as in a container of its own.
    ///
    /// Not asked for the caller itself. The answer is canonical; it is written to `root`.
    fn root_of(&self, pid: u32, root: &mut [u8]) -> Option<usize>;

    /// The guest path of the program that process `pid` runs, if the kernel's own `/proc/PID/exe` leads elsewhere (to a
    /// loader); `None` if the kernel's link is right.
    fn exe_of(&self, pid: u32, exe: &mut [u8]) -> Option<usize> {
        let _ = (pid, exe);
        None
    }
}

/// As many levels at most are climbed in one step of [`nearest_named`]: `..` so many times is still a short path.
pub const CLIMB: u32 = 1000;

/// What [`Host::ancestor`] asks for, of open directories: by large steps to one that has a path, then the nearest between.
/// `above` opens the directory so many levels above another, `name_of` writes what the kernel calls one.
///
/// # Errors
/// What the two say; `ENAMETOOLONG` of `name_of` means that one more step is to be taken.
pub fn nearest_named<D>(
    start: D,
    above: impl Fn(&D, u32) -> Result<D, Errno>,
    name_of: impl Fn(&D, &mut [u8]) -> Result<usize, Errno>,
    text: &mut [u8],
) -> Result<Ancestor, Errno> {
    let (mut dir, mut levels) = (start, 0);
    loop {
        let next = above(&dir, CLIMB)?;
        match name_of(&next, text) {
            Ok(_) => break,
            Err(Errno::ENAMETOOLONG) => (dir, levels) = (next, levels + CLIMB),
            Err(errno) => return Err(errno),
        }
    }
    let (mut low, mut high) = (0, CLIMB);
    while high - low > 1 {
        let middle = u32::midpoint(low, high);
        match name_of(&above(&dir, middle)?, text) {
            Ok(_) => high = middle,
            Err(_) => low = middle,
        }
    }
    let len = name_of(&above(&dir, high)?, text)?;
    Ok(Ancestor { len, levels: levels + high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_directory_with_a_name_is_found() {
        // Directories are their depths; those deeper than 40 have no name, and above the root there is the root.
        for depth in [41_u32, 42, 100, 1039, 1040, 1041, 5000] {
            let above = |dir: &u32, count: u32| Ok(dir.saturating_sub(count));
            let name_of =
                |dir: &u32, _: &mut [u8]| if *dir > 40 { Err(Errno::ENAMETOOLONG) } else { Ok(1 + *dir as usize) };
            assert_eq!(nearest_named(depth, above, name_of, &mut []), Ok(Ancestor { len: 41, levels: depth - 40 }));
        }
    }
}
