//! The stub's logic, as a library that tests can link: open the bundle, unpack it to the cache, launch it by an engine.

pub mod cache;
pub use coracle_open as open;
pub mod slot;
pub mod unpack;
