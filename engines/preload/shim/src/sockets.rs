//! Sockets with names in the file system, whose host paths are often too long for an address (108 bytes).
//!
//! The way then leads through a descriptor of the directory that is open for the time of the call, `/proc/self/fd/N`. A
//! socket is bound there under a short name and renamed when the call has ended. What the guest called it is remembered in
//! this process; others are shown what the view makes of the kernel's name.

use core::{
    ffi::CStr,
    sync::atomic::{AtomicU32, Ordering},
};

use coracle_intercept::{
    Errno, Kind,
    errno::{EADDRINUSE, EEXIST},
};
use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_getsockopt, __NR_renameat2, __NR_unlinkat, O_DIRECTORY},
};

use crate::{
    files::{self, Held, Short},
    guarded::Guarded,
    guest::Process,
};

/// Bytes of `sun_path`.
const ROOM: usize = 108;
/// As many names are remembered; the oldest go first.
const REMEMBERED: usize = 32;
const NAME_MAX: usize = 256;
const RENAME_NOREPLACE: usize = 1;

/// A bind(2) that is being made.
#[derive(Debug)]
pub(crate) struct Ongoing {
    /// The kernel's name and the guest's.
    name: Named,
    detour: Option<Detour>,
}

/// Where a socket is bound before it gets its name.
#[derive(Debug)]
struct Detour {
    dir: Held,
    temporary: Short<32>,
    name: Short<NAME_MAX>,
}

#[derive(Debug, Clone, Copy)]
struct Named {
    kernels: [u8; ROOM],
    guests: [u8; ROOM],
    lens: [usize; 2],
}

impl Named {
    fn new(kernels: &[u8], guests: &[u8]) -> Self {
        let mut named = NO_NAME;
        named.lens = [kernels.len().min(ROOM), guests.len().min(ROOM)];
        named.kernels[..named.lens[0]].copy_from_slice(&kernels[..named.lens[0]]);
        named.guests[..named.lens[1]].copy_from_slice(&guests[..named.lens[1]]);
        named
    }
}

const NO_NAME: Named = Named { kernels: [0; ROOM], guests: [0; ROOM], lens: [0; 2] };

static NAMES: Guarded<[Named; REMEMBERED]> = Guarded::new([NO_NAME; REMEMBERED]);
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// See [`coracle_intercept::Guest::socket_to_bind`].
pub(crate) fn start_bind(process: &Process, host: &CStr, given: &[u8], into: &mut [u8]) -> Result<usize, Errno> {
    let path = host.to_bytes();
    let (name, detour): (Short<ROOM_AND_NUL>, _) = if path.len() <= ROOM {
        (Short::new().put(path), None)
    } else {
        let (name, detour) = detour(host)?;
        (name, Some(detour))
    };
    let name = name.as_bytes();
    into.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(name);
    process.socket.replace(Some(Ongoing { name: Named::new(name, given), detour }));
    Ok(name.len())
}

const ROOM_AND_NUL: usize = ROOM + 1;

fn detour(host: &CStr) -> Result<(Short<ROOM_AND_NUL>, Detour), Errno> {
    if files::stat(host, false).is_ok() {
        return Err(EADDRINUSE);
    }
    let path = host.to_bytes();
    let slash = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENOENT)?;
    let (dir, name) = (&path[..=slash], &path[slash + 1..]);
    if dir.len() >= coracle_paths::PATH_MAX || name.len() >= NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let dir = files::open_place(Short::<{ coracle_paths::PATH_MAX }>::new().put(dir).as_c_str(), O_DIRECTORY)?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = Short::<32>::new().put(b".coracle-").number(sys::getpid()).put(b"-").number(serial);
    let bound = Short::new().put(files::link_of(Some(dir.0.0)).as_bytes()).put(b"/").put(temporary.as_bytes());
    Ok((bound, Detour { dir, temporary, name: Short::new().put(name) }))
}

impl Ongoing {
    /// The call has ended with this result; what the guest gets.
    pub(crate) fn ended(self, result: isize) -> isize {
        if result < 0 {
            return result;
        }
        if let Some(detour) = self.detour
            && let Err(errno) = detour.end()
        {
            return -isize::try_from(errno.0).unwrap_or(5);
        }
        NAMES.with(|names| {
            names.rotate_right(1);
            names[0] = self.name;
        });
        result
    }
}

impl Detour {
    fn end(self) -> Result<(), Errno> {
        let dir = self.dir.0.arg();
        let old = self.temporary.as_c_str().as_ptr().expose_provenance();
        let new = self.name.as_c_str().as_ptr().expose_provenance();
        let rename = |flags: usize| {
            // SAFETY: two NUL-terminated names in a directory that is open.
            sys::check_unit(unsafe { sys::syscall5(__NR_renameat2, dir, old, dir, new, flags) })
        };
        let result = match rename(RENAME_NOREPLACE) {
            // A file system that knows no such flag.
            Err(sys::Errno::EINVAL) => rename(0),
            result => result,
        };
        result.map_err(|errno| {
            // SAFETY: as above.
            unsafe { sys::syscall3(__NR_unlinkat, dir, old, 0) };
            if errno.0 == EEXIST.0 { EADDRINUSE } else { files::errno(errno) }
        })
    }
}

/// See [`coracle_intercept::Guest::socket_bound`].
pub(crate) fn bound(name: &[u8], full: usize, given: &mut [u8]) -> Option<usize> {
    NAMES.with(|names| {
        let found = names.iter().find(|named| {
            let kernels = &named.kernels[..named.lens[0]];
            kernels == name || kernels.len() == full && full > name.len() && kernels.starts_with(name)
        })?;
        let guests = &found.guests[..found.lens[1]];
        given.get_mut(..guests.len())?.copy_from_slice(guests);
        (!name.is_empty()).then_some(guests.len())
    })?
}

/// See [`coracle_intercept::Guest::socket_kind`].
pub(crate) fn kind(descriptor: i32) -> Option<Kind> {
    const SOL_SOCKET: usize = 1;
    const SO_TYPE: usize = 3;
    match option(descriptor, SOL_SOCKET, SO_TYPE)? {
        1 => Some(Kind::Stream),
        2 => Some(Kind::Datagram),
        _ => None,
    }
}

/// See [`coracle_intercept::Guest::is_v6_only`].
pub(crate) fn is_v6_only(socket: i32) -> bool {
    const IPPROTO_IPV6: usize = 41;
    const IPV6_V6ONLY: usize = 26;
    option(socket, IPPROTO_IPV6, IPV6_V6ONLY).is_some_and(|value| value != 0)
}

/// The value of an option of a socket, where that is an int.
fn option(descriptor: i32, level: usize, name: usize) -> Option<i32> {
    let (mut value, mut size) = (0_i32, 4_u32);
    let at = |pointer: *mut u8| pointer.expose_provenance();
    // SAFETY: such an option writes at most one int, of the size given.
    let asked = unsafe {
        sys::syscall5(
            __NR_getsockopt,
            Fd(descriptor).arg(),
            level,
            name,
            at((&raw mut value).cast()),
            at((&raw mut size).cast()),
        )
    };
    (asked == 0).then_some(value)
}
