//! What the shim needs of assembly: memory functions of its own, weak references, entries that Rust cannot declare.

mod memory;
mod weak;

mod variadic;
pub(crate) use weak::{environment, gnu_get_libc_version, lookup};
