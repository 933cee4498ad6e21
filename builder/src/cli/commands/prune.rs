//! `coracle prune`: what nothing needs is freed.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::Duration,
};

use anyhow::bail;

use super::{foreign, images::IDLE, rm};
use crate::{
    cli::{args::PruneArgs, print, report, source, stored, table},
    source::{Reference, open_store},
    store::{Store, containers::ContainerError},
};

/// Frees what is asked for, and says how much it was.
pub(super) fn run(args: &PruneArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    if (args.containers || args.images) && !args.force {
        ask(args)?;
    }
    if args.containers {
        for container in store.containers().list()? {
            match rm::remove(&store, &container, false) {
                Ok(()) => print::line(&format!("removed container {}", container.short_id()))?,
                Err(
                    ContainerError::Running { .. } | ContainerError::Protected { .. } | ContainerError::NoSuch { .. },
                ) => {}
                Err(error) => report::note(false, &error.to_string()),
            }
        }
    }
    if args.images {
        images(&store)?;
    }
    for path in store.image_records()?.1 {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                report::note(false, &format!("cannot remove {}: {error}", path.display()));
            }
            _ => print::line(&format!("removed the damaged record {}", path.display()))?,
        }
    }
    let trees = store.collect_trees()?;
    if trees > 0 {
        print::line(&format!("removed {trees} trees of images that are gone"))?;
    }
    store.containers().drop_spare_views()?;
    let swept = store.containers().sweep().or_else(|error| foreign::sweep(error).map(|()| 1))?;
    let collected = store.collect(if args.partial { Duration::ZERO } else { IDLE })?;
    if collected.busy {
        report::note(quiet, "another command uses images just now, so no layers were freed: try again later");
    } else if collected.lockless {
        report::note(
            quiet,
            "this file system has no locks, so nobody knows whether layers are in use and none were freed: move the store to one that has",
        );
    } else if collected.damaged {
        report::note(
            quiet,
            "an image is damaged, so nobody knows which layers it needs and none were freed: see `coracle verify`",
        );
    }
    print::line(&format!(
        "freed {} in {} blobs; {swept} leftovers of commands that were killed",
        table::size(collected.bytes),
        collected.files
    ))
}

fn images(store: &Store) -> anyhow::Result<()> {
    let mut used = Vec::new();
    for container in store.containers().list()? {
        // A damaged container needs no image any more than it says.
        if let Ok(settings) = container.settings() {
            used.push(settings.provenance);
        }
    }
    for record in store.images()? {
        let mut needed = record.protected;
        for pulled in record.platforms.values() {
            let id = stored::id(store, pulled)?.map(|id| format!("sha256:{id}"));
            needed |= used.iter().any(|used| {
                used.manifest.as_deref() == Some(pulled.manifest.as_str()) || (id.is_some() && used.config == id)
            });
        }
        if !needed && store.forget_image(&record.reference, None)? {
            let name = record.reference.parse::<Reference>().map_or(record.reference, |name| name.familiar());
            print::line(&format!("removed image {name}"))?;
        }
    }
    Ok(())
}

fn ask(args: &PruneArgs) -> anyhow::Result<()> {
    let what = match (args.containers, args.images) {
        (true, true) => "all containers in which nothing runs, and all images without containers",
        (true, false) => "all containers in which nothing runs",
        _ => "all images without containers",
    };
    if !io::stdin().is_terminal() {
        bail!("this removes {what}, and there is no terminal to ask at: give -f");
    }
    eprint!("This removes {what}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was removed"),
    }
}
