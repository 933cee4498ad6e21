//! Where images come from: registries, archives, layouts, daemons, directories, bundles. All give one [`Image`].

mod image;
mod unbundle;
mod walk;

pub use image::{Blob, Compression, Content, Image, Layer};
pub use unbundle::{UnbundleError, unbundle};
pub use walk::{Owners, WalkError, WalkOptions, walk};
