//! Where images come from: registries, archives, layouts, daemons, directories, bundles. All give one [`Image`].

mod image;

pub use image::{Blob, Compression, Content, Image, Layer};
