//! What the builder carries for others to run, as opaque bytes: `build.rs` builds it, nothing here looks inside.

/// The stub with a bare slot.
pub static STUB: &[u8] = include_bytes!(env!("CORACLE_STUB_FILE"));

/// The target triple that the stub was built for.
pub const STUB_TARGET: &str = env!("CORACLE_STUB_TARGET");
