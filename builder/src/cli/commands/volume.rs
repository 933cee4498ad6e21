//! `coracle volume`: named volumes, which outlive containers.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{each::each, launching};
use crate::{
    cli::{args::VolumeCommand, print, source, table, table::Listing},
    launch::{Source, volumes},
    source::open_store,
    store::{Store, containers::remove_tree},
};

const FIELDS: [(&str, &str); 4] =
    [("Name", "VOLUME NAME"), ("Driver", "DRIVER"), ("Mountpoint", "MOUNTPOINT"), ("Links", "CONTAINERS")];

/// Lists, makes, shows or removes volumes.
pub(super) fn run(command: &VolumeCommand, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    match command {
        VolumeCommand::Ls(list) => {
            let users = users(&store)?;
            let mut listing = Listing::new(&FIELDS, &["Driver", "Name", "Links"]);
            for name in names(&store)? {
                let links = users.get(&name).map_or(0, Vec::len);
                let place = path(&store, &name).display().to_string();
                listing.row(vec![name, "local".to_owned(), place, links.to_string()]);
            }
            listing.print(list, quiet)?;
        }
        VolumeCommand::Create { name } => {
            if !volumes::is_name(name) {
                bail!("{name:?} is no name for a volume: use letters, digits, _ . and -, at least two");
            }
            let path = path(&store, name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            print::line(name)?;
        }
        VolumeCommand::Inspect { names, format } => {
            return each(names, |name| {
                let path = existing(&store, name)?;
                let made = fs::metadata(&path).and_then(|meta| meta.created()).ok();
                let made = made.and_then(|time| Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()));
                let value = json!({
                    "Name": name, "Driver": "local", "Mountpoint": path, "Scope": "local",
                    "CreatedAt": made.map(table::rfc3339), "Labels": {}, "Options": {},
                });
                match format {
                    Some(format) => print::line(&table::from_json(format, &value)?),
                    None => print::json(&json!([value])),
                }
            });
        }
        VolumeCommand::Rm { names, force } => {
            let users = users(&store)?;
            return each(names, |name| {
                if *force && !path(&store, name).is_dir() {
                    return Ok(());
                }
                let path = existing(&store, name)?;
                if let Some(users) = users.get(name) {
                    bail!("volume {name} is in use by {}: remove them first", users.join(", "));
                }
                remove(&store, &path)
            });
        }
        VolumeCommand::Prune { force } => {
            if !force {
                bail!("this removes every volume that no container has: say so with --force");
            }
            let users = users(&store)?;
            for name in names(&store)?.into_iter().filter(|name| !users.contains_key(name)) {
                remove(&store, &path(&store, &name))?;
                print::line(&name)?;
            }
        }
    }
    Ok(0)
}

fn path(store: &Store, name: &str) -> PathBuf {
    store.root().join("volumes").join(name)
}

fn existing(store: &Store, name: &str) -> anyhow::Result<PathBuf> {
    Some(path(store, name))
        .filter(|path| volumes::is_name(name) && path.is_dir())
        .with_context(|| format!("no such volume: {name}: see `coracle volume ls`"))
}

fn names(store: &Store) -> anyhow::Result<Vec<String>> {
    let directory = store.root().join("volumes");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| volumes::is_name(name)).collect();
    names.sort();
    Ok(names)
}

/// Containers by the volumes that they have.
fn users(store: &Store) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in store.containers().list()? {
        // One that is damaged says nothing, and is told of by `ps` and `verify`.
        let Some(options) = container.settings().ok().and_then(|settings| launching::kept(&settings).ok()) else {
            continue;
        };
        for volume in options.volumes {
            if let Source::Named(name) = volume.source {
                users.entry(name).or_default().push(container.short_id().to_owned());
            }
        }
    }
    Ok(users)
}

/// Out of the way by a rename first, so that nobody sees half of it.
fn remove(store: &Store, path: &std::path::Path) -> anyhow::Result<()> {
    let failed = || format!("cannot remove {}", path.display());
    let aside =
        tempfile::Builder::new().prefix(".old-").tempdir_in(store.root().join("volumes")).with_context(failed)?;
    fs::rename(path, aside.path().join("data")).with_context(failed)?;
    remove_tree(aside.path()).with_context(failed)
}
