//! `coracle edits`: files of a container's tree are edited for an engine, or made as they were. The launcher calls it.

use std::{
    collections::HashMap,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::bail;
use coracle_api::{LAY, Laid, TAKE_OUT};
use coracle_format::ImageConfig;
use coracle_view::{Asked, View};

use crate::{
    cli::{args::EditsArgs, print, source},
    flatten::{InodeId, Tree},
    patch::{self, PRELOAD},
    source::open_store,
    store::{
        containers::{
            Container,
            edits::{Plan, ToEdit},
        },
        trees::{self, Owners},
    },
};

/// Does what it is told.
pub(super) fn run(args: &EditsArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    // SAFETY: fcntl with these arguments touches no memory; a number that is no open descriptor is answered with -1.
    let lease = args.lease.filter(|fd| *fd > 2 && unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
    // SAFETY: it is open, and whoever named it on the command line gave it to this process for good.
    let lease = lease.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let lease = lease.as_ref().map(std::os::fd::AsFd::as_fd);
    match args.what.as_str() {
        LAY => print::line(&serde_json::to_string(&lay(&container, lease)?)?),
        TAKE_OUT => Ok(container.take_out_edits(lease).map(|_| ())?),
        other => bail!("{other}: write {LAY} or {TAKE_OUT}"),
    }
}

/// Edits the programs and libraries of a container for the `preload` engine, as a build does it for bundles: in its own
/// tree, or in its view of the image's, which is made for it.
pub(super) fn lay(container: &Container, lease: Option<BorrowedFd<'_>>) -> anyhow::Result<Laid> {
    container.lay_edits(lease, |container| {
        let settings = container.settings()?;
        let Some(layers) = container.stands_on(&settings) else { return plan(container, &settings.config) };
        let truths = layers.lower.with_file_name("truths");
        let asked = Asked { tree: &layers.lower, truths: Some(&truths), changes: &layers.changes };
        if View::open(&asked)?.made().is_none() {
            // Its guests may have changed it since.
            return plan(container, &settings.config);
        }
        if let Some(plan) = Plan::read(&layers.lower, &settings.config) {
            return Ok(plan);
        }
        let plan = plan(container, &settings.config)?;
        plan.keep(&layers.lower, &settings.config);
        Ok(plan)
    })
}

/// What is to be edited in a container's tree as it is.
fn plan(container: &Container, config: &ImageConfig) -> anyhow::Result<Plan> {
    let tree = trees::read(&container.root(), &Owners::default())?;
    let analysis = patch::analyse(&tree, config)?;
    // A tree without a loader has no programs to edit; that the engine cannot run the others is for it to say.
    let edits = analysis.edits.into_iter().find(|edits| edits.engine == PRELOAD);
    let names = names_of(&tree);
    let files = edits.map(|edits| edits.files).unwrap_or_default().into_iter().map(|file| {
        let id = tree.paths.get(&file.path);
        let names = id
            .and_then(|id| names.get(id))
            .map_or_else(|| vec![file.path.clone()], |all| all.iter().map(|name| name.to_vec()).collect());
        ToEdit { names, edits: file.edits }
    });
    Ok(Plan { loaders: analysis.facts.loaders, files: files.collect() })
}

/// All names of every inode.
fn names_of(tree: &Tree) -> HashMap<InodeId, Vec<&[u8]>> {
    let mut names = HashMap::<InodeId, Vec<&[u8]>>::new();
    for (path, id) in &tree.paths {
        names.entry(*id).or_default().push(path);
    }
    names
}
