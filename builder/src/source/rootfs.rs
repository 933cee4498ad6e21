//! Root file systems as directories: a tree as it lies there, and no config but the platform.

use std::path::Path;

use coracle_format::{Defaults, Provenance};

use super::{Content, Image, Options, SourceError, open, walk};

/// A directory as an image.
///
/// # Errors
/// [`SourceError::Walk`], [`SourceError::NotRunnable`].
pub(super) fn directory(path: &Path, source: String, options: &Options) -> Result<Image, SourceError> {
    let config = open::bare_config(options)?;
    let tree = walk(path, options.walk)?;
    let provenance = Provenance { source, ..Provenance::default() };
    Ok(Image { config, content: Content::Tree(tree), provenance, defaults: Defaults::default(), spools: Vec::new() })
}
