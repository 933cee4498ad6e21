//! Commands on containers whose files belong to subordinate ids: carried out again as the root of those ids.

use std::{ffi::OsStr, path::Path};

use anyhow::Context as _;

use super::{cp, launching::coracle};
use crate::{
    cli::{args::Command, source},
    launch::ids::{Subordinate, marked},
    store::{
        Store,
        containers::{Container, ContainerError, Settings},
    },
};

/// The containers whose files a command reads or changes.
fn containers(command: &Command) -> Vec<String> {
    let before_colon = |given: &OsStr| given.to_str().and_then(|text| Some(text.split_once(':')?.0.to_owned()));
    match command {
        Command::Export(args) => args.words.clone(),
        Command::Clone(args) => vec![args.container.clone()],
        Command::Diff(args) => vec![args.container.clone()],
        Command::Setup(args) if args.fixperm => vec![args.container.clone()],
        Command::Cp(args) => [&args.from, &args.to].into_iter().filter_map(|side| before_colon(side)).collect(),
        Command::Build(args) => {
            let name = args.source.to_str().and_then(|source| source.strip_prefix("container:"));
            name.map(str::to_owned).into_iter().collect()
        }
        Command::Verify(args) => args
            .file
            .as_deref()
            .and_then(Path::to_str)
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

/// Carries the command out again where that is needed; the exit status then.
pub(super) fn again(command: &Command, quiet: bool) -> anyhow::Result<Option<u8>> {
    let names = containers(command);
    if names.is_empty() {
        return Ok(None);
    }
    let options = source::bare(quiet)?;
    let Some(root) = options.store.as_ref().filter(|root| root.join("version").exists()) else { return Ok(None) };
    let store = Store::open(root)?;
    let theirs = |name: &String| store.containers().resolve(name).is_ok_and(|container| marked(container.directory()));
    let Some(ids) = names.iter().any(theirs).then(Subordinate::of_caller).flatten() else { return Ok(None) };
    let mut held = Vec::new();
    let mut places = String::new();
    if let Command::Cp(_) = command {
        let known = names.iter().filter_map(|name| store.containers().resolve(name).ok());
        for container in known.filter(in_layers) {
            if let Some((tree, lease)) = cp::held(&store, &container, &container.settings()?, quiet)? {
                places.push_str(&format!("{} {}\n", container.id(), tree.root().display()));
                held.push((tree, lease));
            }
        }
    }
    let tree = (!held.is_empty()).then_some((OsStr::new(cp::HELD), OsStr::new(&places)));
    let status = ids.run(&coracle()?, std::env::args_os().skip(1), tree);
    let status = status.context("cannot become root of your subordinate ids, whose the container's files are")?;
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(137)))
}

fn in_layers(container: &Container) -> bool {
    let layered = |settings: &Settings| container.stands_on(settings).is_some() && !container.root().is_dir();
    container.settings().is_ok_and(|settings| layered(&settings))
}

/// What could not be removed, because subordinate ids own it, is removed by their root.
pub(super) fn sweep(error: ContainerError) -> Result<(), ContainerError> {
    let ContainerError::Remove { cause, .. } = &error else { return Err(error) };
    if !matches!(cause.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        return Err(error);
    }
    let (Some(ids), Ok(program)) = (Subordinate::of_caller(), coracle()) else { return Err(error) };
    match ids.run(&program, ["sweep".into()], None) {
        Ok(status) if status.success() => Ok(()),
        _ => Err(error),
    }
}

/// Removes what was thrown away. For the root of subordinate ids, not for people.
pub(super) fn swept(quiet: bool) -> anyhow::Result<()> {
    let store = crate::source::open_store(&source::bare(quiet)?)?;
    store.containers().sweep()?;
    Ok(())
}
