//! A stopped tracee's memory.
//!
//! process_vm_readv(2) moves any number of bytes in one call. Where a sandbox forbids it, the words of ptrace(2) do, one
//! call each; which of the two it is, is learnt from the first refusal.

use std::sync::atomic::{AtomicBool, Ordering};

use coracle_intercept::{Errno, errno::EFAULT};

use crate::request;

const PAGE: u64 = 4096;
const WORD: u64 = 8;

/// Set once process_vm_readv(2) was refused as such.
static WORDWISE: AtomicBool = AtomicBool::new(false);

/// The memory of one stopped tracee.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) pid: i32,
}

impl Memory {
    /// Reads as many bytes as are mapped from `address` on, up to the length of `into`.
    ///
    /// # Errors
    /// `EFAULT` if not even the first is.
    pub(crate) fn read_some(self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < into.len() {
            let at = address.checked_add(done as u64).ok_or(EFAULT)?;
            // Up to the end of the page: one element must not straddle a hole.
            let part = usize::try_from(PAGE - at % PAGE).unwrap_or(usize::MAX).min(into.len() - done);
            match self.read_part(at, &mut into[done..done + part]) {
                Ok(()) => done += part,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Reads exactly as many bytes as `into` holds.
    pub(crate) fn read(self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if into.is_empty() {
            return Ok(());
        }
        let want = into.len();
        if let Ok(()) = self.read_part(address, into) {
            return Ok(());
        }
        if self.read_some(address, into)? == want { Ok(()) } else { Err(EFAULT) }
    }

    fn read_part(self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if !WORDWISE.load(Ordering::Relaxed) {
            let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
            let remote = remote_vector(address, into.len());
            // SAFETY: `local` describes `into`, which is writable for its length and lives through the call; the remote
            // vector is only read, and its addresses are another process's.
            let moved = unsafe { libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
            if usize::try_from(moved) == Ok(into.len()) {
                return Ok(());
            }
            if !refused(moved) {
                return Err(EFAULT);
            }
        }
        address.checked_add(into.len() as u64 + WORD).ok_or(EFAULT)?;
        for (at, byte_run) in into.chunks_mut(8).enumerate() {
            let from = address + at as u64 * WORD;
            // Whole words only, so that the word at a mapping's end is read from within it.
            let skip = from % WORD;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&request::peek(self.pid, from - skip).ok_or(EFAULT)?.to_ne_bytes());
            let skip = usize::try_from(skip).unwrap_or(0);
            if skip + byte_run.len() > 8 {
                let next = request::peek(self.pid, from - skip as u64 + WORD).ok_or(EFAULT)?;
                bytes[8..].copy_from_slice(&next.to_ne_bytes());
            }
            byte_run.copy_from_slice(&bytes[skip..skip + byte_run.len()]);
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !WORDWISE.load(Ordering::Relaxed) {
            let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let remote = remote_vector(address, bytes.len());
            // SAFETY: process_vm_writev only reads from `local`, which describes `bytes`; the remote addresses are another
            // process's.
            let moved = unsafe { libc::process_vm_writev(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
            if usize::try_from(moved) == Ok(bytes.len()) {
                return Ok(());
            }
            if !refused(moved) {
                return Err(EFAULT);
            }
        }
        address.checked_add(bytes.len() as u64).ok_or(EFAULT)?;
        let mut at = 0;
        while at < bytes.len() {
            let to = address + at as u64;
            let skip = usize::try_from(to % WORD).unwrap_or(0);
            let run = (8 - skip).min(bytes.len() - at);
            let aligned = to - skip as u64;
            let mut word = request::peek(self.pid, aligned).ok_or(EFAULT)?.to_ne_bytes();
            word[skip..skip + run].copy_from_slice(&bytes[at..at + run]);
            request::poke(self.pid, aligned, u64::from_ne_bytes(word)).map_err(|_| EFAULT)?;
            at += run;
        }
        Ok(())
    }

    /// Reads a string up to its NUL, which is not counted.
    ///
    /// # Errors
    /// `EFAULT` if it runs into a hole, `ENAMETOOLONG` if `into` holds no NUL after it is full.
    pub(crate) fn read_string(self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < into.len() {
            let at = address.checked_add(done as u64).ok_or(EFAULT)?;
            // Most paths are short: a small first bite.
            let bite = usize::try_from(PAGE - at % PAGE).unwrap_or(usize::MAX).min(into.len() - done);
            let bite = if done == 0 { bite.min(256) } else { bite };
            let part = &mut into[done..done + bite];
            self.read_part(at, part)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                return Ok(done + end);
            }
            done += bite;
        }
        Err(Errno::ENAMETOOLONG)
    }
}

/// A piece of the tracee's memory; an address that no pointer holds becomes one that is never mapped.
fn remote_vector(address: u64, len: usize) -> libc::iovec {
    let address = usize::try_from(address).unwrap_or(usize::MAX);
    libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: len }
}

/// Whether the call itself was refused, rather than an address; then never asked again.
fn refused(moved: isize) -> bool {
    let refused = moved == -1
        && matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EACCES));
    if refused {
        WORDWISE.store(true, Ordering::Relaxed);
    }
    refused
}
