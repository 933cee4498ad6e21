//! What the launcher takes from the process that started it: arguments, environment, ids, working directory.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

/// The process as it was started. Read once, before anything changes it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `argv[0]`.
    pub argv0: OsString,
    /// The other arguments.
    pub args: Vec<OsString>,
    /// The environment, in order.
    pub env: Vec<(OsString, OsString)>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Working directory, if it still has a path.
    pub cwd: Option<PathBuf>,
}

impl Caller {
    /// Reads this process; `argv` is what main got.
    #[must_use]
    pub fn read(argv: Vec<OsString>) -> Self {
        let mut argv = argv.into_iter();
        // SAFETY: geteuid and getegid take no argument, touch no memory and cannot fail (getuid(2)).
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self {
            argv0: argv.next().unwrap_or_default(),
            args: argv.collect(),
            env: std::env::vars_os().collect(),
            uid,
            gid,
            groups: groups().unwrap_or_default(),
            cwd: std::env::current_dir().ok().filter(|dir| dir.is_absolute()),
        }
    }

    /// A variable of the caller's environment.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// A path made absolute by the caller's working directory, without resolving anything.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let full = self.cwd.as_deref().unwrap_or(Path::new("/")).join(path);
        // Drops `.` and doubled slashes; `..` stays, for it must be resolved through symbolic links.
        full.components().collect()
    }
}

fn groups() -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        // SAFETY: the buffer holds as many gid_t as the first argument says (getgroups(2) writes no more).
        let count = unsafe { libc::getgroups(i32::try_from(groups.len()).unwrap_or(i32::MAX), groups.as_mut_ptr()) };
        if let Ok(count) = usize::try_from(count) {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || groups.len() > 1 << 16 {
            return Err(error);
        }
        groups.resize(groups.len() * 16, 0);
    }
}
