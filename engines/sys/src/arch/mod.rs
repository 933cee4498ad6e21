//! How a system call is made. Each file has the same seven functions.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
pub mod script;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::{syscall0, syscall1, syscall2, syscall3, syscall4, syscall5, syscall6};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{syscall0, syscall1, syscall2, syscall3, syscall4, syscall5, syscall6};
