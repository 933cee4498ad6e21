//! Own host name, own network: what the new namespaces need before the guest starts.

use std::{io, mem, os::fd::AsRawFd};

use coracle_api::{LaunchSpec, RunError};
use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::sethostname,
};

use crate::sys::Step;

/// Sets the host name that was asked for, and brings up loopback in a new network namespace.
pub(crate) fn name_and_loopback(spec: &LaunchSpec) -> Result<(), RunError> {
    if let Some(name) = &spec.hostname {
        sethostname(name).step(|| format!("set the host name to {}", name.display()))?;
    }
    if spec.unshare.net {
        loopback_up().step(|| "bring up the loopback interface")?;
    }
    Ok(())
}

/// `libc` has it as a `c_ulong`, which musl's ioctl does not take.
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;

/// A new network namespace has one interface, `lo`, and it is down; the kernel gives it its addresses when it comes up.
fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid: a name of length 0 and no flags.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq; `request` is initialised and outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
