//! Layers and whiteouts to one [`Tree`].

mod tree;

pub use tree::{Data, Inode, InodeId, InodeKind, Tree};
