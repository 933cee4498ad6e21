//! One preload run, as all its processes must know it, and how programs are entered in it.
//!
//! The host side writes a run's description into a file ([`Run`], [`Facts`]); the shim finds the file by an environment
//! variable ([`RUN`]), maps it in every process and builds its rules from it. Whoever executes a program of the guest's,
//! the host side the first and the shim all others, does so in the same way.
//!
//! Rules: no standard library and no allocation where a description is read, since that happens in constructors and
//! between vfork and execve; no system calls either: the caller makes them.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod carried;
mod elf;
mod enter;
mod run;
mod script;
mod sites;
mod space;
#[cfg(feature = "alloc")]
mod write;

pub use carried::{Carried, received};
pub use coracle_paths::Errno;
pub use elf::{Linkage, Source, linkage, needs_elsewhere};
pub use enter::{Command, EXTRA, Places, Start, WAY_OUT, Way, Why, command, way};
pub use run::{Bind, Family, Loader, NotARun, Port, Run, Text};
pub use script::Scripts;
pub use sites::{ROOM, Site, build_id, sites};
pub use space::Space;
#[cfg(feature = "alloc")]
pub use write::{Facts, Sites};

/// How directories outside the tree begin in the lists that loaders are told: the kernel takes it for `/`, and nobody writes
/// it. A loader that opens a library there later, in a guest that does not see the directory under that name, is known
/// by it.
pub const TOLD: &[u8] = b"/././/././";

/// The variable that holds the host path of the run's description.
pub const RUN: &str = "CORACLE_RUN";
