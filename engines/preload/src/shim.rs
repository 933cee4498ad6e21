//! The shim, as the bytes of a shared object.

/// What guests' loaders inject (`engines/preload/shim`, built by `build.rs`); empty where there is none for this processor.
pub const BYTES: &[u8] = include_bytes!(env!("CORACLE_SHIM_FILE"));
