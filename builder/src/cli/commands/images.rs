//! `coracle images`, `rmi` and `tag`: images of the store by name.

use std::time::Duration;

use anyhow::{Context as _, bail};
use globset::{GlobBuilder, GlobMatcher};

use super::each::each;
use crate::{
    cli::{
        args::{ImagesArgs, RmiArgs, TagArgs},
        print, report, source, stored,
        table::{Listing, ago, date, size},
    },
    source::{Platform, Reference, open_store},
    store::{ImageRecord, Pulled, Store, digest},
};

const FIELDS: [(&str, &str); 10] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("Platform", "PLATFORM"),
    ("CreatedSince", "PULLED"),
    ("CreatedAt", "PULLED AT"),
    ("Size", "SIZE"),
    ("Protected", "P"),
    ("Name", "NAME"),
];

/// Downloads that nobody has gone on with for so long are removed together with images.
pub(super) const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Lists images.
pub(super) fn list(args: &ImagesArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let (records, damaged) = store.image_records()?;
    for path in damaged {
        report::note(
            false,
            &format!("{} is damaged: pull the image again; `coracle prune` removes it", path.display()),
        );
    }
    let filters = args.filter.iter().map(|given| Filter::parse(given)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut shown = vec!["Repository", "Tag"];
    shown.extend(args.digests.then_some("Digest"));
    shown.extend(["ID", "CreatedSince", "Size", "Protected"]);
    shown.extend(args.platform.then_some("Platform"));
    let mut listing = Listing::new(&FIELDS, &shown);
    let now = crate::store::now();
    for record in &records {
        let name = match record.reference.parse::<Reference>() {
            Ok(reference) => reference.familiar(),
            Err(_) => record.reference.clone(),
        };
        // A digest's colon is no tag's.
        let (repository, tag) = match name.split_once('@') {
            Some((name, _)) => (name, "<none>"),
            None => name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((&name, "<none>")),
        };
        if args.name.as_ref().is_some_and(|asked| asked != repository && !is_named(&record.reference, asked)) {
            continue;
        }
        for (platform, pulled) in &record.platforms {
            if !filters.iter().all(|filter| filter.takes(&store, &name, pulled)) {
                continue;
            }
            let id = stored::id(&store, pulled)?;
            if args.layers {
                print::line(&format!("{name} ({platform})"))?;
                for line in layers(&store, pulled)? {
                    print::line(&format!("  {line}"))?;
                }
                continue;
            }
            let id = match id.as_deref() {
                None => "<damaged>".to_owned(),
                Some(id) if args.list.no_trunc => format!("sha256:{id}"),
                Some(id) => id.get(..12).unwrap_or(id).to_owned(),
            };
            listing.row(vec![
                id,
                repository.to_owned(),
                tag.to_owned(),
                pulled.manifest.clone(),
                platform.clone(),
                ago(pulled.pulled, now),
                date(pulled.pulled),
                size(pulled.size),
                if record.protected { "P" } else { "" }.to_owned(),
                name.clone(),
            ]);
        }
    }
    if args.layers { Ok(()) } else { listing.print(&args.list, quiet) }
}

/// `--filter KEY=VALUE`.
enum Filter {
    /// Of the whole name, of the name without its tag, or of its last part.
    Reference(GlobMatcher),
    Label(String, Option<String>),
    /// Every image has a name here.
    Dangling(bool),
}

impl Filter {
    fn parse(given: &str) -> anyhow::Result<Self> {
        let Some((key, value)) = given.split_once('=') else { bail!("--filter {given}: write KEY=VALUE") };
        Ok(match key {
            "reference" => {
                let glob = GlobBuilder::new(value).literal_separator(true).build();
                Self::Reference(glob.with_context(|| format!("--filter {given}"))?.compile_matcher())
            }
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "dangling" if ["true", "false", "1", "0"].contains(&value) => {
                Self::Dangling(value == "true" || value == "1")
            }
            _ => bail!("--filter {given}: there are reference=GLOB, label=KEY[=VALUE] and dangling=true|false"),
        })
    }

    fn takes(&self, store: &Store, name: &str, pulled: &Pulled) -> bool {
        match self {
            Self::Reference(glob) => {
                let bare = name.split('@').next().unwrap_or(name);
                let bare = bare.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(bare, |(bare, _)| bare);
                glob.is_match(name) || glob.is_match(bare)
            }
            Self::Label(key, value) => {
                let labels = labels(store, pulled).unwrap_or_default();
                let is = labels.get(key).and_then(serde_json::Value::as_str);
                is.is_some() && value.as_deref().is_none_or(|value| is == Some(value))
            }
            Self::Dangling(wanted) => !wanted,
        }
    }
}

/// The labels in an image's config.
fn labels(store: &Store, pulled: &Pulled) -> Option<serde_json::Map<String, serde_json::Value>> {
    let blobs = store.blobs_of(&pulled.manifest).ok()??;
    let path = store.blob_path(&digest::parse(blobs.first()?)?);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    config["config"]["Labels"].as_object().cloned()
}

/// Whether a reference is what was asked for: one image, or any tag of a repository.
fn is_named(reference: &str, asked: &str) -> bool {
    let (Ok(reference), Ok(wanted)) = (reference.parse::<Reference>(), asked.parse::<Reference>()) else {
        return false;
    };
    let any_tag = wanted.tag.as_deref() == Some("latest") && !asked.ends_with(":latest");
    let same_repository = reference.registry == wanted.registry && reference.repository == wanted.repository;
    reference == wanted || (any_tag && same_repository)
}

fn layers(store: &Store, pulled: &Pulled) -> anyhow::Result<Vec<String>> {
    let Some(blobs) = store.blobs_of(&pulled.manifest)? else { return Ok(vec!["its manifest is gone".to_owned()]) };
    let mut lines = Vec::new();
    for blob in blobs.iter().skip(1) {
        let path = digest::parse(blob).map(|parsed| store.blob_path(&parsed));
        let shown = match path.and_then(|path| path.metadata().ok()) {
            Some(meta) => size(meta.len()),
            None => "missing".to_owned(),
        };
        lines.push(format!("{blob} {shown}"));
    }
    Ok(lines)
}

/// Gives an image one more name.
pub(super) fn tag(args: &TagArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let record = stored::find(&store, &args.source)?;
    let target: Reference = args.target.parse().map_err(|why| anyhow::anyhow!("{}: {why}", args.target))?;
    if target.digest.is_some() {
        bail!("{}: a digest is no name to give: write NAME:TAG", args.target);
    }
    let name = target.to_string();
    if store.image(&name)?.is_some_and(|there| there.protected) {
        bail!("image {} is protected: lift that first with `coracle unprotect {0}`", target.familiar());
    }
    if !store.tag(&record.reference, &name)? {
        bail!("no such image: {}: it was removed just now", args.source);
    }
    Ok(())
}

/// Removes images, and frees what no other needs.
pub(super) fn remove(args: &RmiArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    let platform = match &args.platform {
        Some(text) => Some(text.parse::<Platform>().map_err(|why| anyhow::anyhow!(why))?.to_string()),
        None => None,
    };
    let status = each(&args.images, |given| {
        let records = match named(&store, given, args.force) {
            Err(_) if args.force => return Ok(()),
            records => records?,
        };
        for record in records {
            if record.protected {
                bail!("image {} is protected: lift that first with `coracle unprotect {0}`", record.reference);
            }
            if !store.forget_image(&record.reference, platform.as_deref())? && !args.force {
                bail!("no such image: {given}: see `coracle images -p`");
            }
        }
        Ok(())
    })?;
    store.collect_trees()?;
    let collected = store.collect(IDLE)?;
    if collected.busy {
        report::note(quiet, "another command uses images just now: `coracle prune` frees the layers later");
    } else if collected.damaged {
        report::note(quiet, "another image is damaged, so no layers were freed: see `coracle verify`");
    }
    Ok(status)
}

fn named(store: &Store, given: &str, force: bool) -> anyhow::Result<Vec<ImageRecord>> {
    if let Ok(reference) = given.parse::<Reference>()
        && let Some(record) = store.image(&reference.to_string())?
    {
        return Ok(vec![record]);
    }
    let records = stored::by_id(store, given)?;
    match records.len() {
        0 => bail!("no such image: {given}: see `coracle images`"),
        1 => Ok(records),
        _ if force => Ok(records),
        many => bail!("image {given} has {many} names: name the one to remove, or remove all with -f"),
    }
}
