//! Archives of whole images, for the store: every image in them, with documents as they are.

use std::{fs::File, path::Path, sync::Arc};

use super::{
    Blob, Content, Layer, Options, SourceError, docker_archive,
    files::{self, Files},
    layout, open,
    platform::Platform,
};
use crate::store::{Store, StoreError};

/// One image of an archive.
#[derive(Debug)]
pub struct Loaded {
    /// What the archive calls it: full references, or a mere tag.
    pub names: Vec<String>,
    /// Its manifest, if it has one: digest and bytes.
    pub manifest: Option<(String, Vec<u8>)>,
    /// Its config: digest and bytes.
    pub config: (String, Vec<u8>),
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it runs on.
    pub platform: Platform,
}

/// All images of an archive.
#[derive(Debug)]
pub struct Archive {
    /// In the archive's order.
    pub images: Vec<Loaded>,
    /// Files without a name that the layers point into.
    pub spools: Vec<Arc<File>>,
}

/// Reads an archive of either form, compressed or not, or a layout's directory; no path is standard input.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub fn archive(path: Option<&Path>, options: &Options) -> Result<Archive, SourceError> {
    let files = match path {
        Some(path) => open::tar(path, options)?,
        None => open::stdin_tar(options)?,
    };
    // New Dockers write both tables into one file; theirs has the full names.
    let images = if files.find("manifest.json")?.is_some() {
        docker_archive::all(&files, options.platform.as_ref())?
    } else if files.find("index.json")?.is_some() {
        layout::all(&files, options.platform.as_ref())?
    } else {
        return Err(SourceError::malformed(
            files.name(),
            "it has neither manifest.json nor index.json, so it is no archive of images: for a root file system use `coracle import`",
        ));
    };
    Ok(Archive { images, spools: files.spools() })
}

/// What a config says that it runs on.
pub(super) fn platform_of(config: &coracle_format::ImageConfig) -> Platform {
    let host = Platform::host();
    let or = |text: &str, otherwise: String| if text.is_empty() { otherwise } else { text.to_owned() };
    Platform {
        os: or(&config.os, host.os),
        architecture: or(&config.architecture, host.architecture),
        variant: config.variant.clone(),
    }
}

impl Files {
    /// A member's bytes, or the error that the archive lacks it.
    pub(super) fn must_read(&self, name: &str, limit: u64) -> Result<Vec<u8>, SourceError> {
        self.read(name, limit)?.ok_or_else(|| {
            SourceError::malformed(self.name(), format!("it names {name} and does not hold it: was it copied whole?"))
        })
    }
}

/// The layers of an image of the store, by its manifest.
///
/// # Errors
/// [`SourceError::Store`] if a part of it is gone.
pub fn stored(store: &Store, manifest: &str, name: &str) -> Result<Content, SourceError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |cause| SourceError::file("read", path, cause)
    };
    let blobs = store.blobs_of(manifest)?;
    let blobs = blobs.ok_or_else(|| StoreError::Missing { digest: manifest.to_owned(), of: name.to_owned() })?;
    let config_path = store.must_have(blobs.first().map_or("", String::as_str), name)?;
    let config = std::fs::read(&config_path).map_err(unreadable(&config_path))?;
    let diff_ids = super::manifest::parse_config(&config, &format!("the config of {name}"))?.diff_ids;
    let mut layers = Vec::new();
    for (layer, diff_id) in blobs.iter().skip(1).zip(&diff_ids) {
        let file = store.must_have(layer, name)?;
        let len = std::fs::metadata(&file).map_err(unreadable(&file))?.len();
        layers.push(files::layer(Blob { file, offset: 0, len }, Some(layer.clone()), Some(diff_id))?);
    }
    Ok(Content::Layers(layers))
}

/// The config of an image of the store, by its manifest.
///
/// # Errors
/// [`SourceError::Store`] if a part of it is gone.
pub fn stored_config(store: &Store, manifest: &str, name: &str) -> Result<coracle_format::ImageConfig, SourceError> {
    let blobs = store.blobs_of(manifest)?;
    let blobs = blobs.ok_or_else(|| StoreError::Missing { digest: manifest.to_owned(), of: name.to_owned() })?;
    let path = store.must_have(blobs.first().map_or("", String::as_str), name)?;
    let bytes = std::fs::read(&path).map_err(|cause| SourceError::file("read", &path, cause))?;
    Ok(super::manifest::parse_config(&bytes, &format!("the config of {name}"))?.config)
}
