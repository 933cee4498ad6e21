//! What the shim needs of assembly: memory functions of its own, weak references, entries that Rust cannot declare.

mod loading;
mod memory;
mod relocation;
pub(crate) mod sites;
mod stack;
mod variadic;
mod weak;

pub(crate) use relocation::relocate;
pub(crate) use stack::with_stack;
pub(crate) use weak::{Variable, can_look_up, gnu_get_libc_version, lookup, variable};
