//! Guest path to host path and back: root, binds, symbolic links, `..`, `/proc` links, without allocation.
//!
//! A leaf and `no_std`: tracer, agent and shim use the same walk. One call is the heart: [`resolve`] takes a [`View`] (the
//! tree and what is bound into it), a [`Host`] (readlink, and who is who in `/proc`), a [`Request`] and the caller's
//! [`Buffers`], and answers with the host path to put into the system call, or the error the kernel would give.
//! [`View::to_guest`] goes the other way.
//!
//! The `alloc` feature adds [`table::build`], which makes the table that a read-only tree's names are answered from.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod buffers;
mod errno;
mod host;
mod magic;
mod request;
pub mod table;
mod view;
mod walk;

pub use buffers::{Buffers, NAME_MAX, PATH_MAX};
pub use errno::Errno;
pub use host::{Ancestor, CLIMB, Caller, Host, nearest_named};
pub use magic::{Link, Magic};
pub use request::{Anchor, Base, Bounds, Ending, Found, Last, Manner, Request, Resolved};
pub use table::Table;
pub use view::{Bind, DELETED, GuestPath, View, ViewError, arrange};
pub use walk::{resolve, resolve_with};
