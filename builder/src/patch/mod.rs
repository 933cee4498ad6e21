//! ELF analysis: image facts, and (not in this version) fix-ups per engine.

mod facts;

pub use facts::{FactsError, facts};
