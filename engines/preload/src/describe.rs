//! The run's description: from the launch specification to the file that all its processes map.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use coracle_api::{Access, LaunchSpec, PortMap, Protocol, RunError};
use coracle_entry::{Facts, Port, Text};
use coracle_layout::{Layout, Mapped, Names};

use crate::{
    changed::Changed,
    loaders::{self, Owned, Search},
    place::{self, Safe, kept},
    program::Program,
    shim, texts,
};

/// A description, written.
pub(crate) struct Described {
    pub(crate) bytes: Vec<u8>,
    /// Where it is.
    pub(crate) path: CString,
}

/// Writes the run's description and the shim.
pub(crate) fn describe(
    spec: &LaunchSpec,
    changed: Option<&Changed>,
    layout: &Layout,
    program: &Program,
) -> Result<Described, RunError> {
    let uid = spec.identity.host_uid;
    let scratch = fs::canonicalize(&spec.scratch)
        .map_err(|error| RunError::step(format!("use the scratch directory {}", spec.scratch.display()), error))?;
    let shared = fs::canonicalize(&spec.root)
        .map_err(|error| RunError::step(format!("open the tree {}", spec.root.display()), error))?;
    let root = changed.map_or(shared.clone(), |changed| changed.root().to_owned());
    let safe = |dir: &Path| {
        Safe::of(dir, uid).map_err(|source| RunError::Step {
            what: format!(
                "find a name for {} without the characters at which lists of libraries are split",
                dir.display()
            ),
            source,
            advice: Some("choose another cache directory, whose path has no blank, colon or semicolon".to_owned()),
        })
    };
    let (tree, place) = (safe(&root)?, safe(&scratch)?);
    let edited = spec.pristine.is_some() || spec.originals.is_some();
    let changes = spec.access != Access::ReadOnly;
    let search = Search { layout, known: &spec.loaders, edited, changes, root: &root, tree: &tree, place: &place };
    let loaders = loaders::find(&search, program.interpreter.as_deref())
        .map_err(|error| RunError::step(format!("make links to libraries in {}", scratch.display()), error))?;
    let unwritten = |what: &str, error| RunError::step(format!("write {what} to {}", scratch.display()), error);
    let shim = shim::kept(place.dir()).map_err(|error| unwritten("the shim", error))?;
    let ledger = ledger(spec, changed, &root, &scratch)?;
    let binds = layout.binds();
    let mut facts = Facts {
        root_read_only: spec.access == Access::ReadOnly,
        unlisted: layout.is_unlisted(),
        edited,
        hostname: spec.hostname.as_deref().map(OsStrExt::as_bytes),
        ids: (spec.identity.uid, spec.identity.gid),
        host_ids: (spec.identity.host_uid, spec.identity.host_gid),
        groups: spec.identity.groups.clone(),
        ports: spec.ports.iter().filter(|map| map.differs()).map(port).collect(),
        sites: loaders
            .iter()
            .map(Owned::borrow)
            .flat_map(|loader| {
                texts::of(Path::new(OsStr::from_bytes(loader.host.to_bytes())), loader.libraries.to_bytes())
            })
            .collect(),
        loaders: loaders.iter().map(Owned::borrow).collect(),
        binds,
        ..Facts::default()
    };
    facts.set(Text::Root, root.as_os_str().as_bytes());
    facts.set(Text::Alias, tree.dir().as_os_str().as_bytes());
    facts.set(Text::Shim, shim.as_os_str().as_bytes());
    facts.set(Text::Scratch, scratch.as_os_str().as_bytes());
    let pristine = spec.pristine.as_ref().map(fs::canonicalize).transpose();
    let pristine = pristine.map_err(|error| RunError::step("find the tree that the view is of", error))?;
    facts.set(Text::Pristine, pristine.as_ref().unwrap_or(&shared).as_os_str().as_bytes());
    let originals = spec.originals.as_ref().map(fs::canonicalize).transpose();
    let originals = originals.map_err(|error| RunError::step("find the files as they were before edits", error))?;
    if let Some(originals) = &originals {
        facts.set(Text::Originals, originals.as_os_str().as_bytes());
    }
    let handover: Vec<&[u8]> = spec.handover.iter().map(|argument| argument.as_bytes()).collect();
    let handover = handover.join(&0);
    facts.set(Text::Handover, &handover);
    let names = names(spec);
    if let Some(names) = &names {
        facts.set(Text::Names, names.as_os_str().as_bytes());
    }
    if let Some(ledger) = &ledger {
        facts.set(Text::Ledger, ledger.as_os_str().as_bytes());
    }
    if let Some(changed) = changed {
        for (text, path) in changed.texts() {
            facts.set(*text, path.as_os_str().as_bytes());
        }
    }
    let invalid = || RunError::step("describe the run", io::ErrorKind::InvalidInput.into());
    let bytes = facts.write().ok_or_else(invalid)?;
    let path = kept(place.dir(), "run", &bytes).map_err(|error| unwritten("the run's description", error))?;
    let path = CString::new(path.into_os_string().into_encoded_bytes()).map_err(|_| invalid())?;
    Ok(Described { bytes, path })
}

/// The table of the tree's names, if it is whole: it is summed here, once, and not by every process.
fn names(spec: &LaunchSpec) -> Option<PathBuf> {
    // Only a tree that nobody changes is as its table says.
    let path = spec.names.as_ref().filter(|_| spec.access == Access::ReadOnly)?;
    Names::map(path, &spec.root)?;
    fs::canonicalize(path).ok()
}

/// The record of owners of a run that needs one: a file in any case, since every process must find it.
fn ledger(
    spec: &LaunchSpec,
    changed: Option<&Changed>,
    root: &Path,
    scratch: &Path,
) -> Result<Option<PathBuf>, RunError> {
    let identity = &spec.identity;
    if (identity.uid, identity.gid) == (identity.host_uid, identity.host_gid) {
        return Ok(None);
    }
    // A view keeps its own.
    let kept = spec.ledger.clone().or_else(|| changed.map(Changed::ledger));
    let path = kept.unwrap_or_else(|| place::of_run(scratch, "ledger"));
    let made = fs::metadata(root).and_then(|tree| Mapped::of_file(&path, root, tree.dev()));
    made.map_err(|error| RunError::step(format!("use the record of owners {}", path.display()), error))?;
    fs::canonicalize(&path).map(Some).map_err(|error| RunError::step("find the record of owners", error))
}

fn port(map: &PortMap) -> Port {
    Port { address: map.address, host: map.host, guest: map.guest, datagram: map.protocol == Protocol::Udp }
}
