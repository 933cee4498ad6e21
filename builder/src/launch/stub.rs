//! The embedded stub, executed: from memory, or from a file without a name where memory may not be executed.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use coracle_api::Order;
use nix::unistd::fexecve;

use super::{LaunchError, Limit, Options};
use crate::artifacts::STUB;

/// For memfd_create(2): a file that may be executed. Kernels before 6.3 know no such flag, and every such file may be.
const MFD_EXEC: libc::c_uint = 0x10;

/// A nameless file in memory.
fn memory(name: &std::ffi::CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: memfd_create reads the string, which outlives the call, and gives a new descriptor or -1.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A nameless file that holds `bytes`, read from the beginning and inherited by programs.
///
/// # Errors
/// No such file, or no memory.
pub(crate) fn inherited(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = memory(c"coracle-order", 0)?;
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// The stub in memory.
fn in_memory() -> io::Result<OwnedFd> {
    let mut file = match memory(c"coracle", libc::MFD_CLOEXEC | MFD_EXEC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => memory(c"coracle", libc::MFD_CLOEXEC)?,
        answer => answer?,
    };
    file.write_all(STUB)?;
    Ok(file.into())
}

/// The stub in a file of this directory, whose name is gone already.
fn in_file(directory: &Path) -> io::Result<OwnedFd> {
    let path = directory.join(format!(".coracle-stub-{}", std::process::id()));
    // A leftover of a process that was killed and had our id.
    let _ = fs::remove_file(&path);
    let written = File::options().write(true).create_new(true).mode(0o700).open(&path).and_then(|mut file| {
        file.write_all(STUB)?;
        drop(file);
        // What is open for writing cannot be executed.
        File::open(&path)
    });
    let _ = fs::remove_file(&path);
    written.map(Into::into)
}

/// Replaces this process by the stub, which carries out the order; returns only if that fails.
///
/// `places` are directories to try a file in where memory may not be executed.
pub fn replace(order: &Order, options: &Options, places: &[PathBuf]) -> LaunchError {
    let order = match serde_json::to_vec(order).map_err(io::Error::from).and_then(|text| inherited(&text)) {
        Ok(order) => order,
        Err(error) => return LaunchError::step("hand the run to the launcher")(error),
    };
    if let Err(error) = settle(options) {
        return error;
    }
    let args = [c"coracle".to_owned(), argument(&order)];
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    let execute = |stub: OwnedFd| match fexecve(stub.as_fd(), &args, &env) {
        Err(errno) => io::Error::from(errno),
        Ok(never) => match never {},
    };
    let memory = in_memory().map_or_else(|error| error, execute);
    let mut last = (io::Error::from_raw_os_error(libc::ENOENT), PathBuf::new());
    for place in places {
        last = (in_file(place).map_or_else(|error| error, execute), place.clone());
    }
    LaunchError::Stub { memory, file: last.0, path: last.1 }
}

/// The stub as a file to execute by its descriptor, with the first of these that works: `attempt` gets its path in /proc.
///
/// # Errors
/// [`LaunchError::Stub`], or what `attempt` said for another reason.
pub(crate) fn by_path<T>(places: &[PathBuf], attempt: impl Fn(&str) -> io::Result<T>) -> Result<T, LaunchError> {
    let execute = |stub: OwnedFd| attempt(&format!("/proc/self/fd/{}", stub.as_raw_fd()));
    let memory = match in_memory().and_then(execute) {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let mut last = (io::Error::from_raw_os_error(libc::ENOENT), PathBuf::new());
    for place in places {
        match in_file(place).and_then(execute) {
            Ok(done) => return Ok(done),
            Err(error) => last = (error, place.clone()),
        }
    }
    Err(LaunchError::Stub { memory, file: last.0, path: last.1 })
}

/// The stub's argument for an order.
pub(crate) fn argument(order: &OwnedFd) -> CString {
    let text = format!("--coracle-launch={}", order.as_raw_fd());
    // It holds no NUL.
    CString::new(text).unwrap_or_default()
}

/// Sets for this process what the program is to inherit: limits, CPUs, and SIGPIPE, which Rust's start-up ignores.
///
/// # Errors
/// [`LaunchError::Limit`], [`LaunchError::Cpus`].
pub(super) fn settle(options: &Options) -> Result<(), LaunchError> {
    // SAFETY: the default disposition is no function of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    for limit in &options.limits {
        set(limit).map_err(|cause| LaunchError::Limit {
            name: name_of(limit.resource).unwrap_or("?").to_owned(),
            value: format!("{}:{}", limit.soft, limit.hard),
            cause,
        })?;
    }
    if options.cpus.is_empty() {
        return Ok(());
    }
    let mut set = nix::sched::CpuSet::new();
    for cpu in &options.cpus {
        set.set(*cpu).map_err(|error| LaunchError::Cpus(error.into()))?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(|error| LaunchError::Cpus(error.into()))
}

fn set(limit: &Limit) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `value` outlives the call; a resource that does not exist is answered with EINVAL.
    if unsafe { libc::setrlimit(limit.resource, &raw const value) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Docker's names of limits.
const LIMITS: [(&str, u32); 15] = [
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
    ("as", libc::RLIMIT_AS),
];

fn name_of(resource: u32) -> Option<&'static str> {
    LIMITS.iter().find(|(_, number)| *number == resource).map(|(name, _)| *name)
}

/// Reads `NAME=SOFT[:HARD]`; -1 and unlimited mean none.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let names = || LIMITS.map(|(name, _)| name).join(" ");
    let (name, values) = text.split_once('=').ok_or("write NAME=SOFT[:HARD]")?;
    let resource = LIMITS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let resource = resource.ok_or_else(|| format!("there is no limit {name}: choose one of {}", names()))?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(libc::RLIM_INFINITY),
        text => text.parse().map_err(|_| format!("{text:?} is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit exceeds the hard one".to_owned());
    }
    Ok(Limit { resource, soft, hard })
}

#[cfg(test)]
mod tests {
    use super::parse_limit;

    #[test]
    fn limits_are_read() {
        let limit = parse_limit("nofile=10:20").expect("well-formed");
        assert_eq!((limit.resource, limit.soft, limit.hard), (libc::RLIMIT_NOFILE, 10, 20));
        assert_eq!(parse_limit("core=-1").map(|limit| limit.hard), Ok(libc::RLIM_INFINITY));
        for wrong in ["nofile", "nofile=", "nofile=a", "nofile=2:1", "files=1"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
