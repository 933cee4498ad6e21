//! `coracle clone`: a container of its own with the same tree and settings.

use anyhow::Context as _;
use coracle_api::SUBORDINATE;

use crate::{
    cli::{args::CloneArgs, print, source},
    source::open_store,
    store::{
        Store,
        containers::{Container, Sharing},
        trees,
    },
};

use super::create::fill_with;

/// Copies a container and prints the copy's id.
pub(super) fn run(args: &CloneArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::bare(quiet)?;
    let store = open_store(&options)?;
    let container = store.containers().resolve(&args.container)?;
    let copy = copy(&store, &container, args.name.as_deref(), options.threads)?;
    print::line(copy.id())
}

/// Copies a container. One that runs is copied as it is found.
pub(super) fn copy(
    store: &Store,
    container: &Container,
    name: Option<&str>,
    threads: std::num::NonZero<usize>,
) -> anyhow::Result<Container> {
    let draft = store.containers().begin(name)?;
    // It stays while it is read.
    let _lease = container.lease()?;
    let mut settings = container.settings()?;
    let mark = container.directory().join(SUBORDINATE);
    if mark.exists() {
        std::fs::copy(&mark, draft.directory().join(SUBORDINATE)).context("cannot mark the copy")?;
    }
    settings.created = 0;
    settings.protected = false;
    // What has changed nothing yet shares the image's tree as this one does.
    let unchanged = container.sharing(&settings) == Sharing::Image;
    match settings.base.clone().filter(|_| unchanged) {
        Some(base) if let Some(tree) = store.image_tree_named(&base)? => draft.stand_on(&tree, &mut settings)?,
        _ => {
            let tree = trees::read_container(container)?;
            let unpacked = fill_with(&draft, &tree, threads)?;
            settings.base = None;
            settings.sharing = if unpacked { Sharing::Reflink } else { Sharing::Copy };
        }
    }
    Ok(draft.finish(settings, name)?)
}
