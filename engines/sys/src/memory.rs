//! Mappings, and the memory of other processes.

use crate::{
    Errno, check, check_unit,
    file::Fd,
    kernel::{__NR_mmap, __NR_mprotect, __NR_munmap, __NR_process_vm_readv, __NR_process_vm_writev},
    syscall2, syscall3, syscall6,
};

/// mmap(2): where the mapping is. `protection` and `flags` as the kernel's `PROT_*` and `MAP_*`.
///
/// # Safety
/// With `MAP_FIXED` nothing may live in the range any more.
///
/// # Errors
/// The kernel's.
pub unsafe fn map(
    at: usize,
    len: usize,
    protection: u32,
    flags: u32,
    fd: Option<Fd>,
    offset: u64,
) -> Result<usize, Errno> {
    let fd = fd.unwrap_or(Fd(-1));
    let offset = usize::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the caller answers for a fixed range; any other is new.
    check(unsafe { syscall6(__NR_mmap, at, len, protection as usize, flags as usize, fd.arg(), offset) })
}

/// munmap(2).
///
/// # Safety
/// Nothing may refer to the range any more.
///
/// # Errors
/// The kernel's.
pub unsafe fn unmap(at: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    check_unit(unsafe { syscall2(__NR_munmap, at, len) })
}

/// mprotect(2).
///
/// # Safety
/// Nothing that lives in the range may be used in a way that the new protection forbids.
///
/// # Errors
/// The kernel's.
pub unsafe fn protect(at: usize, len: usize, protection: u32) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    check_unit(unsafe { syscall3(__NR_mprotect, at, len, protection as usize) })
}

/// One range, as process_vm_readv(2) takes it.
#[repr(C)]
struct Range {
    start: usize,
    len: usize,
}

/// process_vm_readv(2) of one range: how many bytes were read, fewer at the end of mapped memory.
///
/// # Errors
/// The kernel's; [`Errno::EFAULT`] if the first byte is not mapped.
pub fn read_process(pid: u32, from: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let local = Range { start: buffer.as_mut_ptr().expose_provenance(), len: buffer.len() };
    let remote = Range { start: usize::try_from(from).map_err(|_| Errno::EFAULT)?, len: buffer.len() };
    let (local, remote) = (core::ptr::from_ref(&local), core::ptr::from_ref(&remote));
    // SAFETY: `local` names `buffer`, ours alone meanwhile; the kernel checks what `remote` names.
    check(unsafe {
        syscall6(__NR_process_vm_readv, pid as usize, local.expose_provenance(), 1, remote.expose_provenance(), 1, 0)
    })
}

/// process_vm_writev(2) of one range: how many bytes were written.
///
/// # Safety
/// If `pid` is this process, writing there must be sound as any store.
///
/// # Errors
/// The kernel's; [`Errno::EFAULT`] if the first byte is not mapped writable.
pub unsafe fn write_process(pid: u32, to: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let local = Range { start: bytes.as_ptr().expose_provenance(), len: bytes.len() };
    let remote = Range { start: usize::try_from(to).map_err(|_| Errno::EFAULT)?, len: bytes.len() };
    let (local, remote) = (core::ptr::from_ref(&local), core::ptr::from_ref(&remote));
    // SAFETY: `local` names `bytes`, only read; the caller answers for writes into this process.
    check(unsafe {
        syscall6(__NR_process_vm_writev, pid as usize, local.expose_provenance(), 1, remote.expose_provenance(), 1, 0)
    })
}
