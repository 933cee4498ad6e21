//! Bundles as sources: the tree and the config that they carry.

use std::{fs::File, path::Path};

use coracle_format::Provenance;
use coracle_open::{Bundle, OpenError};

use super::{Content, Image, Options, SourceError, UnbundleError, unbundle};

/// A bundle's tree and config as an image; `name` is what messages call it.
///
/// # Errors
/// [`SourceError::Unbundle`], [`SourceError::NoPlatform`].
pub(super) fn open(path: &Path, name: &Path, source: String, options: &Options) -> Result<Image, SourceError> {
    let unreadable = |source| OpenError::Read { path: name.to_owned(), source };
    let opened = File::open(path).map_err(unreadable).and_then(|file| Bundle::of_file(file, name));
    let bundle = opened.map_err(UnbundleError::from)?;
    let config = bundle.manifest().config.clone();
    if let Some(wanted) = options.platform.as_ref().filter(|wanted| !wanted.accepts(&config.os, &config.architecture)) {
        return Err(SourceError::NoPlatform { image: source, wanted: wanted.clone(), has: Vec::new() });
    }
    let tree = unbundle(&bundle, &options.scratch, options.limit, options.threads)?;
    // What it was made of once, and that it came by way of a bundle.
    let provenance = Provenance { source, ..bundle.manifest().provenance.clone() };
    let defaults = bundle.manifest().defaults.clone();
    Ok(Image { config, content: Content::Tree(tree), provenance, defaults, spools: Vec::new() })
}
