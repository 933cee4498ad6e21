//! This process.

use crate::{
    kernel::{__NR_exit_group, __NR_getpid, __NR_gettid},
    syscall0, syscall1,
};

/// getpid(2): the thread group.
#[must_use]
pub fn getpid() -> u32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    u32::try_from(unsafe { syscall0(__NR_getpid) }).unwrap_or(0)
}

/// gettid(2): this thread.
#[must_use]
pub fn gettid() -> u32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    u32::try_from(unsafe { syscall0(__NR_gettid) }).unwrap_or(0)
}

/// exit_group(2): every thread of this process ends, now, with no clean-up.
pub fn exit_group(status: u8) -> ! {
    loop {
        // SAFETY: no code of this process runs after it.
        unsafe { syscall1(__NR_exit_group, usize::from(status)) };
    }
}
