//! Bounds on what an image may ask of the builder, and the meters that hold all layers together against them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::LayerError;

/// Output that a layer may reach before its compression ratio counts: a short run of zeros is no bomb.
const RATIO_FLOOR: u64 = 1 << 30;

/// How much an image may hold. Layers are hostile input; every bound can be raised by the flag of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together (`--limit-entries`).
    pub entries: u64,
    /// Bytes of all layers once decompressed, and of all files with their holes (`--limit-size`).
    pub size: u64,
    /// Bytes of one path of the tree (`--limit-path`).
    pub path: u64,
    /// Directories one inside the other (`--limit-depth`).
    pub depth: u64,
    /// Decompressed bytes per stored byte of a layer, beyond its first GiB (`--limit-ratio`).
    pub ratio: u64,
    /// Bytes of names, link targets and attributes of all layers together (`--limit-metadata`).
    pub metadata: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4_000_000, size: 256 << 30, path: 4095, depth: 1024, ratio: 200, metadata: 1 << 30 }
    }
}

/// What the layers have asked for so far.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    entries: AtomicU64,
    streamed: AtomicU64,
    files: AtomicU64,
    metadata: AtomicU64,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Self {
        let zero = || AtomicU64::new(0);
        Self { limits, entries: zero(), streamed: zero(), files: zero(), metadata: zero() }
    }

    /// One more entry with `size` bytes of file and `metadata` bytes of names and attributes.
    pub(crate) fn entry(&self, size: u64, metadata: u64) -> Result<(), LayerError> {
        add(&self.entries, 1, self.limits.entries, "entries", "--limit-entries")?;
        add(&self.files, size, self.limits.size, "bytes of files", "--limit-size")?;
        add(&self.metadata, metadata, self.limits.metadata, "bytes of names and attributes", "--limit-metadata")
    }

    /// `bytes` more of a layer that has now given `produced` bytes out of `consumed` stored ones.
    pub(crate) fn stream(&self, bytes: u64, produced: u64, consumed: u64) -> Result<(), LayerError> {
        if produced > RATIO_FLOOR && produced / consumed.max(1) >= self.limits.ratio {
            return Err(LayerError::Limit {
                limit: self.limits.ratio,
                what: "decompressed bytes per stored byte",
                flag: "--limit-ratio",
            });
        }
        add(&self.streamed, bytes, self.limits.size, "decompressed bytes", "--limit-size")
    }

    /// A path of the tree.
    pub(crate) fn path(&self, bytes: usize, depth: usize) -> Result<(), LayerError> {
        check(bytes as u64, self.limits.path, "bytes of path", "--limit-path")?;
        check(depth as u64, self.limits.depth, "nested directories", "--limit-depth")
    }
}

fn add(counter: &AtomicU64, more: u64, limit: u64, what: &'static str, flag: &'static str) -> Result<(), LayerError> {
    let before = counter.fetch_add(more, Ordering::Relaxed);
    // A sum that wraps was past any limit that a previous call could accept.
    check(before.saturating_add(more), limit, what, flag)
}

fn check(found: u64, limit: u64, what: &'static str, flag: &'static str) -> Result<(), LayerError> {
    if found > limit { Err(LayerError::Limit { limit, what, flag }) } else { Ok(()) }
}
