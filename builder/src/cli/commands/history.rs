//! `coracle history` and `coracle port`: what an image's layers were made by, and where a container's ports are.

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::launching;
use crate::{
    cli::{
        args::{HistoryArgs, PortArgs},
        moment, print, source, stored,
        table::{Listing, ago, date, size},
    },
    source::open_store,
    store::{Store, digest},
};

const FIELDS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// Lists an image's layers, the uppermost first.
pub(super) fn history(args: &HistoryArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let record = stored::find(&store, &args.image)?;
    let (_, pulled) = stored::platform(&record, args.platform.as_deref())?;
    let gone = || format!("{}: its manifest is gone: pull or load the image again", args.image);
    let blobs = store.blobs_of(&pulled.manifest)?.with_context(gone)?;
    let (config, layers) = blobs.split_first().with_context(gone)?;
    let path = digest::parse(config).map(|parsed| store.blob_path(&parsed)).with_context(gone)?;
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: Value = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let mut sizes = layers.iter().map(|layer| stored_size(&store, layer));
    let mut steps: Vec<Step> = json["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| Step {
            created: step["created"]
                .as_str()
                .and_then(|text| moment::parse(text, (0, 0)).ok())
                .map(|(seconds, _)| seconds),
            by: step["created_by"].as_str().unwrap_or_default().to_owned(),
            comment: step["comment"].as_str().unwrap_or_default().to_owned(),
            size: if step["empty_layer"] == true { 0 } else { sizes.next().unwrap_or(0) },
        })
        .collect();
    // What nobody wrote a history of.
    steps.extend(sizes.map(|size| Step { size, ..Step::default() }));
    let mut listing = Listing::new(&FIELDS, &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]);
    let whole = args.list.no_trunc;
    let id =
        if whole { config.clone() } else { config.split_once(':').map_or("", |it| it.1).chars().take(12).collect() };
    let now = crate::store::now();
    for (at, step) in steps.iter().rev().enumerate() {
        let by = step.by.replace(['\t', '\n'], " ");
        listing.row(vec![
            if at == 0 { id.clone() } else { "<missing>".to_owned() },
            step.created.map_or_else(|| "N/A".to_owned(), |created| ago(created, now)),
            step.created.map_or_else(String::new, date),
            if whole || by.chars().count() <= 45 { by } else { by.chars().take(44).chain(['…']).collect() },
            size(step.size),
            step.comment.clone(),
        ]);
    }
    listing.print(&args.list, quiet)
}

#[derive(Default)]
struct Step {
    created: Option<u64>,
    by: String,
    comment: String,
    /// As stored, compressed or not; `images` counts the same.
    size: u64,
}

fn stored_size(store: &Store, layer: &str) -> u64 {
    let path = digest::parse(layer).map(|parsed| store.blob_path(&parsed));
    path.and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len())
}

/// Prints where a container's ports are on the host: all, or one.
pub(super) fn port(args: &PortArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    let maps = launching::kept(&container.settings()?)?.ports;
    let shown = maps.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pairs = shown.iter().filter_map(|text| text.split_once("->"));
    let wanted = args.port.as_ref().map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    let Some(wanted) = wanted else {
        return pairs.into_iter().try_for_each(|(host, guest)| print::line(&format!("{guest} -> {host}")));
    };
    let found: Vec<&str> = pairs.filter(|(_, guest)| *guest == wanted).map(|(host, _)| host).collect();
    if found.is_empty() {
        bail!("{}: port {wanted} is not published: see `coracle port {0}`", args.container);
    }
    found.into_iter().try_for_each(print::line)
}
