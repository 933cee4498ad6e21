//! The shim: a library that a guest's own loader injects into each of its programs, and whose functions stand before the C
//! library's.
//!
//! A libc name is turned into the system call that it stands for; that goes through the table of meanings
//! (`coracle-intercept`), as it does in every engine that intercepts, and is then made by a raw system call. So this is a
//! transport of that table, inside the guest's own process ([`call`]); what is told to programs otherwise is in `names`.
//!
//! Rules, since it is loaded by every C library there is (glibc 2.17 and newer, musl 1.1.16 and newer):
//! - no library is needed, no symbol has a version, nothing is thread-local; what only some C libraries have is a weak
//!   reference (`arch`);
//! - no standard library and no allocator: calls work in blocks of a pool ([`pool`]), and what the caller is to free comes
//!   from the guest's `malloc`;
//! - nothing waits for a lock that a signal handler, or a child of vfork(2), may have been stopped with;
//! - whatever needs rules asks [`state`], since constructors of other libraries come before ours.
//!
//! A process without a run ends at once, with one line and status 125: it would work on the host's files.

#![no_std]
#![cfg(target_arch = "x86_64")]

mod arch;
mod arguments;
mod call;
mod constructor;
mod cow;
mod deep;
mod environment;
mod exec;
mod fast;
#[cfg(feature = "injected")]
mod fault;
mod files;
mod guarded;
mod guest;
mod instructions;
mod known;
mod libc;
mod memory;
mod mounts;
mod names;
mod opened;
mod person;
mod pool;
mod program;
mod shown;
mod signals;
mod sites;
mod sockets;
mod start;
mod state;
