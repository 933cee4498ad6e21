//! Copy-on-write without the kernel's help: a *view* is a tree of hard links made from a shared one, and a link is broken
//! (replaced by a copy) before the first change to its file.
//!
//! ```text
//! CHANGES/view/              whole from the moment it has this name
//!     root/                  the tree that the guest sees: own directories, shared files
//!     marks                  which inodes are shared, and what the image says of them ([`Marks`])
//!     origin                 which image it was made from
//!     tmp/                   copies on their way
//!     copies                 which copy was made last of each shared file, where several processes break links
//!     ledger                 what an engine records of owners and modes
//! CHANGES/view.lock          flocked while the view is made, and while a link is broken
//! CHANGES/.view-…            being made, or left by a maker that was killed: removed by the next
//! TREE/../spare/             a view that nobody needs and nobody changed, for the next (`spare`)
//! ```
//!
//! Rules:
//! - The shared tree is read and linked to, never written: of its files only link count and change time change.
//! - Whoever makes a call that changes a file asks [`Marks`] first, by device, inode and time, and breaks the link with
//!   `View::unshare`. That replaces a name only if it still means the shared file, so of two who do it at once one wins
//!   and the other finds it done.
//! - A name is broken, not a file: other names of the file in the image keep the old content, as in overlayfs.
//! - The view needs the shared tree only while it is made: links keep the data.
//!
//! Without the `std` feature there are only [`Marks`] to read: no allocation, no system call.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
mod copy;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod make;
mod marks;
#[cfg(feature = "std")]
mod place;
#[cfg(feature = "std")]
mod spare;
#[cfg(feature = "std")]
pub mod truths;
#[cfg(feature = "std")]
mod unshare;
#[cfg(feature = "std")]
mod view;

pub use marks::{FileId, Mark, Marks, NotMarks};
#[cfg(feature = "std")]
pub use {
    copy::clone,
    error::ViewError,
    make::Made,
    spare::{SPARE, spare},
    unshare::{Aside, Turn, Unshared},
    view::{Asked, View},
};
