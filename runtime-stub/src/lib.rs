//! The stub's logic, as a library that tests can link: open the bundle, unpack it to the cache, launch it by an engine.

pub mod actions;
pub mod cache;
pub mod config;
pub mod drivers;
pub mod export;
pub mod handover;
pub mod inside;
pub mod launch;
pub use coracle_open as open;
pub mod options;
pub mod order;
pub mod record;
pub mod report;
pub mod slot;
pub mod start;
pub mod supervise;
#[cfg(test)]
mod testing;
pub mod unpack;
