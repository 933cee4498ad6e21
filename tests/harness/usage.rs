//! What a command costs in processor time, whoever else is busy on the machine.

use std::{io, mem::MaybeUninit, process::Command, time::Duration};

/// Runs a command to its end, and gives the processor time of it and of all descendants that were waited for.
///
/// # Errors
/// It cannot be started, or does not end with status 0.
pub fn processor_time(command: &mut Command) -> io::Result<Duration> {
    let child = command.spawn()?;
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are to live memory of the right type; the child is ours, and nobody else waits for it.
    let waited = unsafe { libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr()) };
    if waited != id {
        return Err(io::Error::last_os_error());
    }
    if status != 0 {
        return Err(io::Error::other(format!("{command:?} ended with status {status:#x}")));
    }
    // SAFETY: integers only, zeroed before, and filled in by the call.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}
