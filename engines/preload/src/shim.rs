//! The shim, as the bytes of a shared object.

/// Empty where it was not built.
pub(crate) const BYTES: &[u8] = b"";
