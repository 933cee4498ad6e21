//! Trees on disk: an image's tree written as a container's, and a container's read back with the owners it should have.
//!
//! A container's tree belongs to its user, who can always change and remove it: directories are `u+rwx`, files `u+rw`, no
//! file is set-id, no device is made. What the image says otherwise is in [`Owners`], by path; root emulation starts from
//! there, keeps its own ledger from then on, and an export reads that. When root makes a container, the tree has its
//! true owners and modes at once.

pub mod image;
mod merge;
mod owners;
mod read;
mod told;
mod unpack;

#[cfg(test)]
mod tests;

pub use image::{ImageRecord, ImageTree, TreeDraft, TreeError};
pub use owners::{Owner, Owners};
pub use read::{CopyError, ReadError, copy_out, read, read_container};
pub use unpack::{UnpackError, Unpacked, Whose, unpack, unpack_as};
