//! Files without a name.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// A file that has no name and lives in memory.
///
/// # Errors
/// What memfd_create(2) says.
pub fn memory_file(name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    /// Refused otherwise where `vm.memfd_noexec` is 1; unknown before Linux 6.3.
    const MFD_EXEC: libc::c_uint = 0x10;
    for flags in [libc::MFD_CLOEXEC | MFD_EXEC, libc::MFD_CLOEXEC] {
        // SAFETY: memfd_create reads a NUL-terminated string.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) };
        if let Ok(fd) = i32::try_from(fd)
            && fd >= 0
        {
            // SAFETY: the kernel just made this descriptor, and nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(io::Error::last_os_error())
}
