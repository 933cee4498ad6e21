//! What the tracer knows of guests' sockets: names that are being bound or reached, and what guests call those that are
//! bound.
//!
//! An address has room for 108 bytes; host paths are often longer. Then the way leads through a descriptor of the tracer's
//! that is open for the time of the call, `/proc/PID/fd/N`. A socket is bound there under a short name of its own and
//! renamed as soon as the call has ended, since the guest's last component alone may fill an address. The kernel goes
//! on telling peers the name that was bound; no two sockets share such a name, so it can be turned back.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{CStr, CString},
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use coracle_intercept::{
    Errno, Kind,
    errno::{EADDRINUSE, EEXIST},
};

use crate::{
    peer::last_errno,
    request::{Gone, registers, set_registers},
    tracer::Tracer,
};

/// As many bound names are remembered; the oldest go first. Then a guest sees the name as the view translates it.
const REMEMBERED: usize = 4096;
/// Bytes of `sun_path`.
const ROOM: usize = 108;

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Kernel's name to guest's name.
    bound: HashMap<Vec<u8>, Vec<u8>>,
    /// Kernel's names, the oldest first.
    order: VecDeque<Vec<u8>>,
    /// Calls that are being made, by thread.
    calls: HashMap<i32, Ongoing>,
    serial: u64,
}

/// A call that is being made.
#[derive(Debug)]
enum Ongoing {
    Bind {
        name: Vec<u8>,
        given: Vec<u8>,
        detour: Option<Detour>,
    },
    /// What it reaches is held open.
    Reach {
        _file: OwnedFd,
    },
}

/// Where a socket is bound before it gets its name.
#[derive(Debug)]
struct Detour {
    dir: OwnedFd,
    temporary: CString,
    name: CString,
}

impl Sockets {
    /// See [`coracle_intercept::Guest::socket_to_bind`].
    pub(crate) fn start_bind(
        &mut self,
        thread: i32,
        host: &CStr,
        given: &[u8],
        into: &mut [u8],
    ) -> Result<usize, Errno> {
        let path = host.to_bytes();
        let (name, detour) = if path.len() <= ROOM {
            (path.to_vec(), None)
        } else {
            let (name, detour) = self.detour(host)?;
            (name, Some(detour))
        };
        into.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&name);
        let len = name.len();
        self.calls.insert(thread, Ongoing::Bind { name, given: given.to_vec(), detour });
        Ok(len)
    }

    fn detour(&mut self, host: &CStr) -> Result<(Vec<u8>, Detour), Errno> {
        // SAFETY: a NUL-terminated path; faccessat writes nothing.
        if unsafe { libc::faccessat(libc::AT_FDCWD, host.as_ptr(), libc::F_OK, libc::AT_SYMLINK_NOFOLLOW) } == 0 {
            return Err(EADDRINUSE);
        }
        let path = host.to_bytes();
        let slash = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENOENT)?;
        let [dir, name] = [&path[..=slash], &path[slash + 1..]].map(|part| CString::new(part).unwrap_or_default());
        let dir = open(&dir, libc::O_DIRECTORY)?;
        self.serial += 1;
        let temporary = format!(".coracle-{}", self.serial);
        let bound = format!("/proc/{}/fd/{}/{temporary}", std::process::id(), dir.as_raw_fd());
        let temporary = CString::new(temporary).unwrap_or_default();
        Ok((bound.into_bytes(), Detour { dir, temporary, name }))
    }

    /// See [`coracle_intercept::Guest::socket_to_reach`].
    pub(crate) fn start_reach(&mut self, thread: i32, host: &CStr, into: &mut [u8]) -> Result<usize, Errno> {
        let file = open(host, 0)?;
        let name = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into_bytes();
        into.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&name);
        self.calls.insert(thread, Ongoing::Reach { _file: file });
        Ok(name.len())
    }

    /// A call of this thread has ended with this result; what the guest gets.
    pub(crate) fn ended(&mut self, thread: i32, result: i64) -> i64 {
        let Some(call) = self.calls.remove(&thread) else { return result };
        let Ongoing::Bind { name, given, detour } = call else { return result };
        if result < 0 {
            return result;
        }
        if let Some(detour) = detour
            && let Err(errno) = detour.end()
        {
            return -i64::from(errno.0);
        }
        if self.bound.insert(name.clone(), given).is_none() {
            self.order.push_back(name);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.bound.remove(&oldest);
        }
        result
    }

    /// The thread is no more.
    pub(crate) fn forget(&mut self, thread: i32) {
        self.calls.remove(&thread);
    }

    /// See [`coracle_intercept::Guest::socket_bound`].
    pub(crate) fn bound(&self, name: &[u8], full: usize, given: &mut [u8]) -> Option<usize> {
        let found = self.bound.get(name).or_else(|| {
            // Cut: the latest that it may be.
            let cut = |whole: &&Vec<u8>| whole.len() == full && full > name.len() && whole.starts_with(name);
            self.order.iter().rev().find(cut).and_then(|whole| self.bound.get(whole))
        })?;
        given.get_mut(..found.len())?.copy_from_slice(found);
        Some(found.len())
    }
}

impl Detour {
    fn end(self) -> Result<(), Errno> {
        let Self { dir, temporary, name } = self;
        let dir = dir.as_raw_fd();
        // SAFETY: two NUL-terminated names in a directory that is open.
        let renamed = unsafe {
            libc::syscall(libc::SYS_renameat2, dir, temporary.as_ptr(), dir, name.as_ptr(), libc::RENAME_NOREPLACE)
        };
        if renamed == 0 {
            return Ok(());
        }
        let errno = last_errno();
        // A file system that knows no such flag.
        // SAFETY: as above.
        if errno == Errno::EINVAL && unsafe { libc::renameat(dir, temporary.as_ptr(), dir, name.as_ptr()) } == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { libc::unlinkat(dir, temporary.as_ptr(), 0) };
        Err(if errno == EEXIST { EADDRINUSE } else { errno })
    }
}

fn open(path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// See [`coracle_intercept::Guest::socket_kind`].
pub(crate) fn kind(process: i32, descriptor: i32) -> Option<Kind> {
    match option(process, descriptor, libc::SOL_SOCKET, libc::SO_TYPE)? {
        libc::SOCK_STREAM => Some(Kind::Stream),
        libc::SOCK_DGRAM => Some(Kind::Datagram),
        _ => None,
    }
}

/// The value of an option of a guest's socket, where that is an int: asks a copy of the descriptor (Linux 5.6).
pub(crate) fn option(process: i32, descriptor: i32, level: i32, name: i32) -> Option<i32> {
    let own = |fd: i64| {
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: pidfd_open takes integers.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: pidfd_getfd takes integers.
    let socket = own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })?;
    let mut value = 0_i32;
    let mut size = libc::socklen_t::try_from(size_of_val(&value)).ok()?;
    // SAFETY: such an option writes at most one int, of the size given.
    let asked = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    (asked == 0).then_some(value)
}

impl Tracer<'_> {
    /// A thread has stopped before it could enter again the sendmmsg(2) of which some messages have been sent: these are its
    /// result. What stopped it, a signal's handler perhaps, is to meet no call half made.
    pub(crate) fn end_sending(&mut self, thread: i32) -> Result<(), Gone> {
        let Some(tracee) = self.tracees.get_mut(&thread) else { return Ok(()) };
        let sent = mem::take(&mut tracee.sent);
        if sent == 0 {
            return Ok(());
        }
        let mut now = registers(thread)?;
        now.set_instruction(now.instruction().wrapping_add(2));
        now.set_result(sent.into());
        set_registers(thread, &now)
    }
}
