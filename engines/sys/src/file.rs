//! Files and links.

use core::{ffi::CStr, mem::size_of, ptr::from_ref};

use crate::{
    Errno, check, check_unit,
    kernel::{
        __NR_close, __NR_openat, __NR_openat2, __NR_read, __NR_readlinkat, __NR_write, AT_FDCWD, O_CLOEXEC,
        O_DIRECTORY, O_PATH, RESOLVE_IN_ROOT, open_how,
    },
    syscall1, syscall3, syscall4,
};

/// A file descriptor by number; closing it is the owner's matter, since inside a guest most belong to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fd(pub i32);

impl Fd {
    /// The working directory, for calls that take a directory.
    pub const CWD: Self = Self(AT_FDCWD);

    /// As a system call's argument.
    #[must_use]
    pub fn arg(self) -> usize {
        // The kernel reads the low 32 bits as a signed number.
        self.0.cast_unsigned() as usize
    }

    fn of(result: isize) -> Result<Self, Errno> {
        check(result).and_then(|fd| i32::try_from(fd).map(Self).map_err(|_| Errno::EBADF))
    }
}

/// Longest path of one call, with its NUL.
const PATH_MAX: usize = 4096;

/// openat(2); `flags` as the kernel's `O_*`.
///
/// # Errors
/// The kernel's.
pub fn open(dir: Fd, path: &CStr, flags: u32, mode: u32) -> Result<Fd, Errno> {
    // SAFETY: `path` is NUL-terminated and outlives the call, which writes no memory.
    Fd::of(unsafe {
        syscall4(__NR_openat, dir.arg(), path.as_ptr().expose_provenance(), flags as usize, mode as usize)
    })
}

/// openat2(2) with `RESOLVE_IN_ROOT`: `dir` is the root for absolute paths, links and `..`. Linux 5.6 and newer.
///
/// # Errors
/// The kernel's; [`Errno::ENOSYS`] before 5.6.
pub fn open_in_root(dir: Fd, path: &CStr, flags: u32) -> Result<Fd, Errno> {
    let how = open_how { flags: u64::from(flags), mode: 0, resolve: u64::from(RESOLVE_IN_ROOT) };
    // SAFETY: `path` is NUL-terminated, `how` an initialised structure of the size given; both outlive the call, which
    // writes no memory.
    Fd::of(unsafe {
        syscall4(
            __NR_openat2,
            dir.arg(),
            path.as_ptr().expose_provenance(),
            from_ref(&how).expose_provenance(),
            size_of::<open_how>(),
        )
    })
}

/// close(2).
///
/// # Errors
/// The kernel's; the number is free again in any case.
pub fn close(fd: Fd) -> Result<(), Errno> {
    // SAFETY: closing touches no memory; that nobody else uses the number is the caller's business, as with any number.
    check_unit(unsafe { syscall1(__NR_close, fd.arg()) })
}

/// read(2).
///
/// # Errors
/// The kernel's.
pub fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is ours alone meanwhile.
    check(unsafe { syscall3(__NR_read, fd.arg(), buffer.as_mut_ptr().expose_provenance(), buffer.len()) })
}

/// write(2).
///
/// # Errors
/// The kernel's.
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`, and writes no memory.
    check(unsafe { syscall3(__NR_write, fd.arg(), bytes.as_ptr().expose_provenance(), bytes.len()) })
}

/// readlinkat(2); the length of the target, cut to the buffer's.
///
/// # Errors
/// The kernel's; [`Errno::EINVAL`] if it is no link.
pub fn readlinkat(dir: Fd, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `path` is NUL-terminated; the kernel writes at most `target.len()` bytes into `target`, ours alone meanwhile.
    check(unsafe {
        syscall4(
            __NR_readlinkat,
            dir.arg(),
            path.as_ptr().expose_provenance(),
            target.as_mut_ptr().expose_provenance(),
            target.len(),
        )
    })
}

/// readlink(2) of a path of any length: one longer than the kernel takes is opened piece by piece.
///
/// # Errors
/// The kernel's; [`Errno::EINVAL`] if it is no link, [`Errno::ENAMETOOLONG`] only for a component.
pub fn readlink(path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
    if path.count_bytes() < PATH_MAX {
        return readlinkat(Fd::CWD, path, target);
    }
    let mut piece = [0_u8; PATH_MAX];
    let mut rest = path;
    let mut dir = Fd::CWD;
    let answer = loop {
        if rest.count_bytes() < PATH_MAX {
            break readlinkat(dir, rest, target);
        }
        let bytes = rest.to_bytes();
        // Up to and with the last slash that fits; a component of more than a whole path is too long for any directory.
        let Some(end) = bytes[..PATH_MAX - 1].iter().rposition(|byte| *byte == b'/') else {
            break Err(Errno::ENAMETOOLONG);
        };
        piece[..=end].copy_from_slice(&bytes[..=end]);
        piece[end + 1] = 0;
        let next = CStr::from_bytes_until_nul(&piece)
            .map_err(|_| Errno::EINVAL)
            .and_then(|piece| open(dir, piece, O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
        let next = match next {
            Ok(next) => next,
            Err(errno) => break Err(errno),
        };
        leave(dir);
        dir = next;
        let after = end + bytes[end..].iter().take_while(|byte| **byte == b'/').count();
        rest = match CStr::from_bytes_with_nul(&rest.to_bytes_with_nul()[after..]) {
            Ok(rest) => rest,
            Err(_) => break Err(Errno::EINVAL),
        };
    };
    leave(dir);
    answer
}

/// Closes a directory that [`readlink`] opened.
fn leave(dir: Fd) {
    if dir != Fd::CWD {
        // An O_PATH descriptor has nothing to write back: close cannot fail in a way that matters.
        let _ = close(dir);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{
        ffi::CString,
        fs,
        os::unix::{ffi::OsStrExt, fs::symlink},
        path::Path,
        process::Command,
        string::String,
    };

    use super::{Fd, close, open, open_in_root, read, readlink};
    use crate::{
        Errno,
        kernel::{O_DIRECTORY, O_PATH, O_RDONLY},
    };

    fn c(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).expect("no NUL")
    }

    #[test]
    fn links_and_roots() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("etc")).expect("mkdir");
        fs::write(dir.path().join("etc/name"), "inside").expect("write");
        symlink("/etc/name", dir.path().join("link")).expect("symlink");
        let mut text = [0; 64];
        let len = readlink(&c(&dir.path().join("link")), &mut text).expect("a link");
        assert_eq!(&text[..len], b"/etc/name");
        assert_eq!(readlink(&c(&dir.path().join("etc")), &mut text), Err(Errno::EINVAL));
        assert_eq!(readlink(&c(&dir.path().join("none")), &mut text), Err(Errno::ENOENT));
        let top = open(Fd::CWD, &c(dir.path()), O_PATH | O_DIRECTORY, 0).expect("the directory opens");
        match open_in_root(top, c"link", O_RDONLY) {
            Err(Errno::ENOSYS) => std::println!("skipped: this kernel has no openat2"),
            file => {
                let file = file.expect("the link leads inside");
                let len = read(file, &mut text).expect("it is read");
                assert_eq!(&text[..len], b"inside");
                close(file).expect("close");
            }
        }
        close(top).expect("close");
    }

    /// Twenty directories of 250 bytes each are more than one call takes.
    #[test]
    fn long_paths_are_walked_in_pieces() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let name = "n".repeat(250);
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do mkdir $1 && cd -P $1 || exit 1; done; ln -s to link";
        let made = Command::new("sh").args(["-c", script, "sh", &name]).current_dir(dir.path()).status();
        assert!(made.expect("sh runs").success());
        let mut path = String::from(dir.path().to_str().expect("utf-8"));
        for _ in 0..20 {
            path.push('/');
            path.push_str(&name);
        }
        let mut text = [0; 64];
        let len = readlink(&c(Path::new(&std::format!("{path}/link"))), &mut text).expect("a link");
        assert_eq!(&text[..len], b"to");
        assert_eq!(readlink(&c(Path::new(&std::format!("{path}/none"))), &mut text), Err(Errno::ENOENT));
        assert_eq!(readlink(&c(Path::new(&path)), &mut text), Err(Errno::EINVAL));
    }
}
