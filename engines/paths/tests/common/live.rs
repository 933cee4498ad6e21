//! The live kernel as [`Host`].

use std::{ffi::CStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

use coracle_paths::{Caller, Errno, Host};

/// `asks`: it answers [`Host::meets_link`].
pub(crate) struct Live {
    pub(crate) asks: bool,
}

impl Host for Live {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        match fs::read_link(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))) {
            Ok(text) => {
                let text = text.as_os_str().as_bytes();
                target[..text.len()].copy_from_slice(text);
                Ok(text.len())
            }
            Err(error) => Err(errno(&error)),
        }
    }

    fn meets_link(&self, path: &CStr) -> Option<bool> {
        if !self.asks {
            return None;
        }
        let flags = u64::try_from(libc::O_PATH | libc::O_CLOEXEC).expect("positive");
        let how: [u64; 3] = [flags, 0, libc::RESOLVE_NO_SYMLINKS];
        // SAFETY: the path is NUL-terminated, `how` is the kernel's open_how; the descriptor is ours to close.
        unsafe {
            let fd = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), 24);
            if let Ok(fd) = i32::try_from(fd)
                && fd >= 0
            {
                libc::close(fd);
                return Some(false);
            }
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ELOOP) => Some(true),
            Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES) => Some(false),
            _ => None,
        }
    }

    fn caller(&self) -> Caller {
        Caller { pid: std::process::id(), tid: std::process::id() }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno(u16::try_from(error.raw_os_error().expect("an error of the system")).expect("a small number"))
}
