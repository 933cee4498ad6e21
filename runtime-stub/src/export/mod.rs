//! `export`: the image as one file that others take, with or without what a run has changed.
//!
//! [`tree`] says what is exported: the bundle's own files, or with the [`changes`] of a run laid on them. [`archive`]
//! makes of it what Docker's kin load, [`bundle`] another bundle. [`stream`] writes files as the one tar that all of
//! them hold.
//!
//! Rules: the same bundle and changes give the same bytes; what a run has not changed is taken from the payload as it is.

mod archive;
mod bundle;
mod changes;

mod found;
mod frames;
mod stream;
mod tree;

use std::path::Path;

use coracle_api::Identity;

use crate::{
    actions::ActionError,
    cache::Settings,
    open::Bundle,
    report::{Voice, say},
    start::FAILED,
};

pub use changes::Layer;
pub use tree::Tree;

/// The kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// What `docker save` writes and `docker load` reads.
    Docker,
    /// An OCI image layout in a tar.
    Oci,
    /// A bundle.
    Bundle,
}

impl Form {
    /// By the name that a user types.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "docker" | "docker-archive" => Some(Self::Docker),
            "oci" | "oci-archive" => Some(Self::Oci),
            "bundle" => Some(Self::Bundle),
            _ => None,
        }
    }
}

/// Does something with the bundle's tree, with the changes that lie in `changes` if that is given. Returns an exit
/// status. Files that a guest's root gave away belong to ids that only a namespace like the guest's shows as what they
/// were: that of `root`.
///
/// # Errors
/// [`ActionError`].
pub fn with_tree(
    bundle: &Bundle,
    changes: Option<&Path>,
    root: &Identity,
    voice: Voice,
    work: impl Fn(&Tree) -> Result<(), ActionError>,
) -> Result<u8, ActionError> {
    let Some(layer) = changes.map(Layer::find).transpose()?.flatten() else {
        return work(&Tree::of(bundle)?).map(|()| 0);
    };
    let all = || {
        let tree = Tree::with_changes(bundle, &layer)?;
        for note in &tree.notes {
            voice.warn(note);
        }
        work(&tree)
    };
    if !layer.has_other_owners() {
        return all().map(|()| 0);
    }
    let code = coracle_namespaces::as_root_of(root, || match all() {
        Ok(()) => 0,
        Err(error) => {
            say(&error.to_string());
            FAILED
        }
    });
    code.map_err(|error| ActionError::Changes {
        path: changes.unwrap_or(Path::new(".")).to_owned(),
        why: format!("has files of subordinate ids, and {error}"),
    })
}

/// Writes the tree to standard output. What has no place in memory lies in the scratch directory meanwhile.
///
/// # Errors
/// [`ActionError`]. Standard output may have got a part of it by then.
pub fn export(bundle: &Bundle, tree: &Tree, form: Form, settings: &Settings) -> Result<(), ActionError> {
    match form {
        Form::Docker | Form::Oci => archive::write(bundle, tree, form),
        Form::Bundle => bundle::write(bundle, tree, settings),
    }
}

/// Writes the tree as a plain tar.
///
/// # Errors
/// [`ActionError`]. The output may have got a part of it by then.
pub fn tar(bundle: &Bundle, tree: &Tree, out: &mut dyn std::io::Write, path: &Path) -> Result<(), ActionError> {
    let write = |source| ActionError::Write { path: path.to_owned(), source };
    stream::each(bundle, tree, |bytes| out.write_all(bytes).map_err(write))?;
    out.flush().map_err(write)
}
