//! `coracle name`, `rename`, `rmname`: what containers are called.

use crate::{
    cli::{
        args::{NameArgs, RenameArgs, RmnameArgs},
        source,
    },
    source::open_store,
    store::containers::Container,
};

/// Gives a container one more name.
pub(super) fn add(args: &NameArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let containers = store.containers();
    Ok(containers.add_name(&containers.resolve(&args.container)?, &args.name)?)
}

/// Changes a container's name.
pub(super) fn rename(args: &RenameArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let containers = store.containers();
    let container: Container = containers.resolve(&args.container)?;
    let names = containers.names()?.remove(container.id()).unwrap_or_default();
    let old = names.iter().find(|name| **name == args.container).or(names.first());
    Ok(containers.rename(&container, old.map(String::as_str), &args.name)?)
}

/// Takes a name from its container.
pub(super) fn remove(args: &RmnameArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    Ok(store.containers().remove_name(&args.name)?)
}
