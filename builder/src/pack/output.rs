//! The output file: nothing of it is seen before it is whole, and nothing is left of it if it never is.
//!
//! A file without a name (`O_TMPFILE`) vanishes with the process, however that ends; where the file system has none, a
//! named one is removed on drop and on the signals that end a process. Either takes the output's place by rename(2).

use std::{
    ffi::{CString, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal},
    unistd::linkat,
};

use super::PackError;

/// Mode of every bundle, whatever the umask.
const MODE: u32 = 0o755;

/// A file on its way to its name.
#[derive(Debug)]
pub struct Output {
    file: File,
    goal: Goal,
}

#[derive(Debug)]
enum Goal {
    /// Without a name until it takes this one.
    Unnamed(PathBuf),
    /// Named until it takes the other.
    Named { temporary: PathBuf, path: PathBuf },
    /// Copied there when whole: standard output, a pipe, a device.
    Stream(File, PathBuf),
}

impl Output {
    /// Prepares to write `path`; `-` is standard output.
    ///
    /// # Errors
    /// The folder is missing, not a folder, or not to be written to; the path is a directory.
    pub fn create(path: &Path) -> Result<Self, PackError> {
        if path == Path::new("-") {
            let stdout = io::stdout();
            let stdout = std::os::fd::AsFd::as_fd(&stdout).try_clone_to_owned().map_err(PackError::Write)?;
            return Self::stream(stdout.into(), path);
        }
        // Through a symbolic link the file it names is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => return Err(PackError::Directory(path)),
            Ok(there) if there.file_type().is_fifo() || there.file_type().is_char_device() => {
                let opened = OpenOptions::new().write(true).open(&path);
                let opened = opened.map_err(|error| PackError::Place { path: path.clone(), error })?;
                return Self::stream(opened, &path);
            }
            _ => {}
        }
        let folder = folder_of(&path);
        let unnamed = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder);
        let refused = match unnamed {
            Ok(file) if Path::new("/proc/self/fd").is_dir() => return Ok(Self { file, goal: Goal::Unnamed(path) }),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        match refused.as_ref().and_then(io::Error::raw_os_error) {
            // EISDIR: a kernel before 3.11, which does not know the flag. ENOENT may also be a missing folder.
            None | Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT) => Self::named(path),
            Some(code) => {
                let error = io::Error::from_raw_os_error(code);
                Err(PackError::Create { folder: folder.to_owned(), error })
            }
        }
    }

    /// Where the file system has no files without names.
    fn named(path: PathBuf) -> Result<Self, PackError> {
        let folder = folder_of(&path).to_owned();
        let temporary = sibling(&path);
        remove_on_signal(&temporary);
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary);
        let file = opened.map_err(|error| {
            forget_signals();
            PackError::Create { folder, error }
        })?;
        Ok(Self { file, goal: Goal::Named { temporary, path } })
    }

    fn stream(to: File, path: &Path) -> Result<Self, PackError> {
        let file = tempfile::tempfile().map_err(|error| PackError::Create { folder: std::env::temp_dir(), error })?;
        Ok(Self { file, goal: Goal::Stream(to, path.to_owned()) })
    }

    /// The file to write, at offset 0.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// The rename, or the copy to a stream, failed; the output is then as it was.
    pub fn finish(self) -> Result<(), PackError> {
        self.finish_as(MODE)
    }

    /// As [`finish`](Self::finish), with another mode than a bundle's.
    ///
    /// # Errors
    /// As there.
    pub fn finish_as(mut self, mode: u32) -> Result<(), PackError> {
        let place = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| PackError::Place { path, error }
        };
        match &mut self.goal {
            Goal::Stream(to, path) => {
                use io::{Seek as _, Write as _};
                self.file.rewind().map_err(PackError::Write)?;
                io::copy(&mut self.file, to).and_then(|_| to.flush()).map_err(place(path))
            }
            Goal::Named { temporary, path } => {
                self.file.set_permissions(Permissions::from_mode(mode)).map_err(place(path))?;
                fs::rename(temporary, &*path).map_err(place(path))
            }
            Goal::Unnamed(path) => {
                self.file.set_permissions(Permissions::from_mode(mode)).map_err(place(path))?;
                let temporary = sibling(path);
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                remove_on_signal(&temporary);
                let named = linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &temporary, AtFlags::AT_SYMLINK_FOLLOW);
                let placed = named
                    .map_err(io::Error::from)
                    .and_then(|()| fs::rename(&temporary, &*path).inspect_err(|_| drop(fs::remove_file(&temporary))));
                forget_signals();
                placed.map_err(place(path))
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Goal::Named { temporary, .. } = &self.goal {
            // Gone already if it was renamed; and a failure to clean up must not hide what went wrong before.
            let _ = fs::remove_file(temporary);
            forget_signals();
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

/// A hidden name beside `path` that no other process takes.
fn sibling(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// The file that a signal removes, as a C string, or null. Leaked on each change: at most a few per process.
static DOOMED: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

fn remove_on_signal(path: &Path) {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    DOOMED.store(path.into_raw(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(remove_and_die), SaFlags::SA_RESETHAND, SigSet::empty());
    for ending in ENDING {
        // SAFETY: the handler calls only async-signal-safe functions and touches only an atomic.
        if let Ok(before) = unsafe { signal::sigaction(ending, &action) }
            && matches!(before.handler(), SigHandler::SigIgn)
        {
            // SAFETY: the action is the one that was in force; nohup's ignoring stays in force.
            let _ = unsafe { signal::sigaction(ending, &before) };
        }
    }
}

fn forget_signals() {
    DOOMED.store(ptr::null_mut(), Ordering::SeqCst);
}

/// SA_RESETHAND brought back the default action, so raising the signal again ends the process by it.
extern "C" fn remove_and_die(number: libc::c_int) {
    let path = DOOMED.load(Ordering::SeqCst);
    if !path.is_null() {
        // SAFETY: non-null pointers in DOOMED come from CString::into_raw and are never freed.
        unsafe { libc::unlink(path) };
    }
    // SAFETY: raise(3) is async-signal-safe and takes any number.
    unsafe { libc::raise(number) };
}
