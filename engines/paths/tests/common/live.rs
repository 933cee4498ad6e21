//! The live kernel as [`Host`].

use std::{ffi::CStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

use coracle_paths::{Caller, Errno, Host};

pub(crate) struct Live;

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
