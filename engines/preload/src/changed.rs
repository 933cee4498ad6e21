//! The copy-on-write view of a run that may change its tree: made before the guest begins, kept by its own processes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use coracle_api::{Access, LaunchSpec, RunError};
use coracle_entry::Text;
use coracle_view::{Asked, View, ViewError};

/// A view, and where its parts are.
#[derive(Debug)]
pub(crate) struct Changed {
    view: View,
    texts: Vec<(Text, PathBuf)>,
}

impl Changed {
    /// Opens the run's view, and makes it if there is none; `None` for a run that changes nothing, or its own tree.
    pub(crate) fn open(spec: &LaunchSpec) -> Result<Option<Self>, RunError> {
        let Access::CopyOnWrite { changes } = &spec.access else { return Ok(None) };
        let failed = |error: &ViewError| {
            let source = match error {
                ViewError::Step { errno, .. } => io::Error::from(*errno),
                _ => io::ErrorKind::InvalidInput.into(),
            };
            RunError::Step { what: format!("make a copy-on-write view: {error}"), source, advice: None }
        };
        let asked = Asked { tree: &spec.root, truths: spec.truths.as_deref(), changes };
        let view = View::open(&asked).map_err(|error| failed(&error))?;
        let mut texts = vec![
            (Text::Marks, view.marks_file()),
            (Text::Lock, view.lock_file()),
            (Text::Copies, view.copies_file().map_err(|error| failed(&error))?),
            (Text::Temporary, view.copies_directory()),
        ];
        // Who takes a program over opens the same view.
        if let Some(truths) = spec.truths.as_ref().and_then(|path| fs::canonicalize(path).ok()) {
            texts.push((Text::Truths, truths));
        }
        Ok(Some(Self { view, texts }))
    }

    /// The guest's tree: a canonical path.
    pub(crate) fn root(&self) -> &Path {
        self.view.root()
    }

    /// Where records of owners are kept, unless the run has a better place.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.view.ledger()
    }

    /// What the run's processes must know of it.
    pub(crate) fn texts(&self) -> &[(Text, PathBuf)] {
        &self.texts
    }
}
