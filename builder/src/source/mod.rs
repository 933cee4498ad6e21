//! Where images come from: registries, archives, layouts, daemons, directories, bundles. All give one [`Image`].
//!
//! [`SourceSpec`] says where, [`Options`] how, [`resolve`] goes and gets it. What comes back is verified: every digest that
//! names a manifest, a config or a blob has been compared with the bytes, and what is on disk may be read where it lies.
//! Asynchronous code stays inside [`registry`] and `daemon`; [`resolve`] blocks.

mod bundle;
mod daemon;
mod docker_archive;
mod error;
mod files;
mod image;
mod layout;
pub mod load;
pub mod manifest;
mod open;
mod options;
pub mod platform;
pub mod reference;
pub mod registry;
mod rootfs;
pub mod sniff;
mod spec;
mod unbundle;
mod walk;

pub use error::SourceError;
pub(crate) use error::reason;
pub use image::{Blob, Compression, Content, Image, Layer};
pub use options::{Options, Progress, Proxies, PullPolicy, Retry, Silent};
pub use platform::Platform;
pub use reference::Reference;
pub use spec::SourceSpec;
pub use unbundle::{UnbundleError, unbundle};
pub use walk::{Owners, WalkError, WalkOptions, walk};

use crate::store::{Store, StoreError};

/// Fetches an image, whole and verified, not yet flattened.
///
/// # Errors
/// Every [`SourceError`]: each is one line for the user.
pub fn resolve(spec: &SourceSpec, options: &Options) -> Result<Image, SourceError> {
    let platform = options.platform.as_ref();
    if let Some(platform) = platform.filter(|platform| !platform.runnable()) {
        return Err(SourceError::NotRunnable { wanted: platform.clone(), has: registry::offers(spec, options) });
    }
    let source = spec.to_string();
    match spec {
        SourceSpec::Docker(reference) => registry::image(reference, &open_store(options)?, options),
        SourceSpec::DockerArchive(path, name) => {
            docker_archive::image(&open::tar(path, options)?, name.as_deref(), platform, source)
        }
        SourceSpec::Oci(path, tag) | SourceSpec::OciArchive(path, tag) => {
            layout::image(&open::tar(path, options)?, tag.as_deref(), platform, source)
        }
        SourceSpec::DockerDaemon(name) => daemon::image(name, source, options),
        SourceSpec::Rootfs(path) if path.is_dir() => rootfs::directory(path, source, options),
        SourceSpec::Rootfs(path) => {
            let meta = std::fs::metadata(path).map_err(|cause| SourceError::file("read", path, cause))?;
            let blob = Blob { file: path.clone(), offset: 0, len: meta.len() };
            open::rootfs_tar(blob, Vec::new(), &path.display().to_string(), options)
        }
        SourceSpec::Bundle(path) => bundle::open(path, path, source, options),
        SourceSpec::Path(path) => open::path(path, options),
        SourceSpec::Stdin => open::stdin(options),
    }
}

/// Opens the store of these options.
///
/// # Errors
/// [`SourceError::Store`].
pub fn open_store(options: &Options) -> Result<Store, SourceError> {
    let root = options.store.as_ref().ok_or_else(|| StoreError::Unusable {
        path: "~/.coracle".into(),
        cause: std::io::Error::new(std::io::ErrorKind::NotFound, "HOME is not set"),
    })?;
    Ok(Store::open(root)?)
}
