//! Raw system calls, and all the assembly of the project, one file per architecture under `arch/`.
//!
//! For code that runs inside guests (agent, shim) and therefore has no libc; a tracer may use it too. `no_std`, no
//! allocation, no thread-local `errno`: an error is a value.

#![no_std]

mod arch;
mod call;
mod errno;
mod file;
mod memory;
mod process;

/// System call numbers (`__NR_*`) and the kernel's structures and constants for the target's architecture.
pub use linux_raw_sys::general as kernel;

#[cfg(target_arch = "x86_64")]
pub use arch::script;
pub use arch::{syscall0, syscall1, syscall2, syscall3, syscall4, syscall5, syscall6};
pub use call::{check, check_unit};
pub use errno::Errno;
pub use file::{Fd, close, open, open_in_root, read, readlink, readlinkat, write};
pub use memory::{map, protect, read_process, unmap, write_process};
pub use process::{exit_group, getpid, gettid};
