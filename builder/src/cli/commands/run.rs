//! `coracle run`: an image becomes a container, or a container is taken, and a program runs in it.

use std::{ffi::OsString, fs, io::Write as _, path::Path};

use anyhow::{Context as _, bail};

use super::{
    create,
    launching::{self, Run},
    signed,
};
use crate::{
    cli::{args::RunArgs, options, print, source},
    flatten::Limits,
    launch::Options,
    source::{PullPolicy, open_store},
    store::{
        Store,
        containers::{Container, ContainerError},
    },
};

/// How much of an id has to be given where an image's name could stand as well.
const SHORT: usize = 12;

/// Runs it. Returns only for `-d`, and for errors.
pub(super) fn run(mut args: RunArgs, quiet: bool) -> anyhow::Result<u8> {
    if let Some(key) = &args.require_key {
        return signed::run(&args, key);
    }
    let fetch = source::container_options(&args.source_options, quiet)?;
    let store = open_store(&fetch)?;
    let mut given = options::resolve(&args.options, &store, quiet)?;
    given.remove = args.rm;
    if let Some(root) = args.location.take() {
        return in_directory(&args, &store, &root, given);
    }
    let mut words = std::mem::take(&mut args.words).into_iter();
    let what = words.next().context("nothing to run: name an image or a container")?;
    given.command = words.collect();
    if let Some(file) = &args.cidfile
        && fs::symlink_metadata(file).is_ok()
    {
        bail!("--cidfile {}: it is there already: remove it, or choose another", file.display());
    }
    let reused = args.name.as_deref().filter(|_| fetch.pull == PullPolicy::Reuse);
    let reused = reused.and_then(|name| store.containers().resolve(name).ok());
    let (container, options) = match reused.clone().map_or_else(|| existing(&store, &what), |it| Ok(Some(it)))? {
        Some(container) => {
            if args.name.is_some() && reused.is_none() {
                bail!("--name: {} is a container, which has its name: see `coracle name`", what.display());
            }
            let options = launching::kept(&container.settings()?)?.with(given);
            (container, options)
        }
        None => {
            let container =
                create::make(&store, &what, fetch, Limits::default(), args.name.as_deref(), quiet, |settings| {
                    create::keep(settings, &given, &args.options.label);
                })?;
            (container, given)
        }
    };
    if let Some(file) = &args.cidfile {
        let written = fs::File::create_new(file).and_then(|mut file| file.write_all(container.id().as_bytes()));
        written.with_context(|| format!("--cidfile {}", file.display()))?;
    }
    let settings = container.settings()?;
    options::note_unhonoured(quiet, &settings.config, &options, args.detach);
    let id = container.id().to_owned();
    let run =
        Run { store: &store, container: &container, settings: &settings, options, exec: false, verbose: args.verbose };
    if !args.detach {
        return run.in_foreground(&args.attach);
    }
    let status = run.in_background()?;
    if status == 0 {
        print::line(&id)?;
    }
    Ok(status)
}

/// The container that is meant, if one is: by its name, or by so much of its id that no image is meant.
fn existing(store: &Store, what: &OsString) -> anyhow::Result<Option<Container>> {
    let Some(name) = what.to_str() else { return Ok(None) };
    match store.containers().resolve(name) {
        Ok(container) if container.id().starts_with(name) && name.len() < SHORT => {
            let names = store.containers().names()?;
            let named = names.get(container.id()).is_some_and(|names| names.iter().any(|one| one == name));
            Ok(named.then_some(container))
        }
        Ok(container) => Ok(Some(container)),
        Err(ContainerError::NoSuch { .. } | ContainerError::Ambiguous { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn in_directory(args: &RunArgs, store: &Store, root: &Path, mut options: Options) -> anyhow::Result<u8> {
    if args.detach || args.rm || args.name.is_some() || args.cidfile.is_some() {
        bail!("--location: a directory is no container: leave -d, --rm, --name and --cidfile out");
    }
    let root = fs::canonicalize(root).with_context(|| format!("--location {}", root.display()))?;
    if !root.is_dir() || root == Path::new("/") {
        bail!("--location {}: it must be a directory that holds a tree", root.display());
    }
    options.command.clone_from(&args.words);
    launching::in_directory(store, root, &options, args.verbose)
}
