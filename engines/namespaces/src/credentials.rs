//! What the program may do once it runs: capabilities, no_new_privs, and the answers that emulate root.
//!
//! - As root: every capability, within the user namespace only.
//! - As anyone else: none; execve(2) drops them. A copy-on-write run keeps one, `CAP_DAC_OVERRIDE`: the shared tree's files
//!   have no write bits on disk, and the guest may write to its own copy of them nevertheless. It reaches files of the
//!   user's own ids only.
//! - no_new_privs where one id is mapped and it is not root: set-user-id programs could gain nothing there, and with it they
//!   do not try. With ranges, or as root, `su` and its like work among the guest's users.

use std::io;

use coracle_api::{Access, LaunchSpec, RunError};

use crate::{ids::Ids, seccomp, sys::Step};

/// Version 3 of the capability calls, in two 32-bit halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// capabilities(7).
const CAP_DAC_OVERRIDE: u32 = 1;

/// The last step before execve(2).
pub(crate) fn settle(spec: &LaunchSpec, ids: Ids<'_>) -> Result<(), RunError> {
    let one = ids == Ids::One;
    let root = spec.identity.uid == 0;
    if !root && matches!(spec.access, Access::CopyOnWrite { .. }) {
        keep(CAP_DAC_OVERRIDE).step(|| "let the program write to its own copy of read-only files")?;
    }
    if !root && one {
        // SAFETY: this option takes plain integers; it cannot fail on Linux 3.5 and newer.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    }
    if root && one {
        seccomp::pretend_ownership().step(|| "install the filter that emulates root")?;
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// This process's capabilities: the lower and the upper half of each set.
fn capabilities() -> io::Result<[Data; 2]> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: both pointers are to initialised structures of the layout that capget(2) gives for this version, which
    // outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if done == 0 { Ok(data) } else { Err(io::Error::last_os_error()) }
}

/// The first 32 capabilities in effect.
pub(crate) fn effective_capabilities() -> io::Result<u32> {
    Ok(capabilities()?[0].effective)
}

/// Lets one capability pass through execve(2): made inheritable, then ambient (Linux 4.3).
fn keep(capability: u32) -> io::Result<()> {
    let mut data = capabilities()?;
    data[0].inheritable |= 1 << capability;
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: as in `capabilities`; the second structure is only read.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this option takes plain integers.
    let done =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(capability), 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
