//! A guest's file system, from the launch specification, for engines that resolve paths themselves: which host places it
//! sees where ([`Layout`]), the tree's names ([`Names`]), and what files on disk cannot say ([`Mapped`]).
//!
//! Host side only: it uses the standard library and runs in the launcher, before the first guest process.

mod layout;
mod ledger;
mod memory;
mod names;

pub use layout::Layout;
pub use ledger::Mapped;
pub use memory::memory_file;
pub use names::Names;
