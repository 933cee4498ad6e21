//! `coracle search` and `manifest inspect`: what registries have.

use super::login;
use crate::{
    cli::{
        args::{ManifestArgs, SearchArgs},
        print, source,
        table::Listing,
    },
    source::{Reference, SourceSpec, open_store, registry::search},
};

const FIELDS: [(&str, &str); 4] =
    [("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];

/// Lists repositories that fit a word, or a repository's tags.
pub(super) fn run(args: &SearchArgs, quiet: bool) -> anyhow::Result<()> {
    let mut options = source::bare(quiet)?;
    options.insecure = args.insecure;
    let registry = args.registry.as_deref().or(args.index.as_deref());
    source::reach(&mut options, registry, args.httpproxy.as_deref())?;
    if args.list_tags {
        let SourceSpec::Docker(reference) = SourceSpec::parse(&args.term)?.at(options.registry.as_deref()) else {
            anyhow::bail!("{}: only registries have tags to list: name a repository", args.term);
        };
        let mut listing = Listing::new(&[("Name", "NAME"), ("Tag", "TAG")], &["Tag"]);
        let name = Reference { tag: None, digest: None, ..reference.clone() };
        for tag in search::tags(&reference, &options)? {
            listing.row(vec![format!("{}:{tag}", name.name()), tag]);
        }
        return listing.print(&args.list, quiet);
    }
    let named = options.registry.clone();
    let registry = login::name(named.as_deref())?;
    let mut listing = Listing::new(&FIELDS, &["Name", "Description", "StarCount", "IsOfficial"]);
    for hit in search::search(&registry, &args.term, args.limit, &options)? {
        let name = match named {
            Some(_) => format!("{registry}/{}", hit.name),
            None => hit.name,
        };
        let mut description = hit.description;
        if !args.list.no_trunc && description.chars().count() > 50 {
            description = description.chars().take(49).chain(['…']).collect();
        }
        let official = if hit.official { "[OK]" } else { "" };
        listing.row(vec![name, description, hit.stars.to_string(), official.to_owned()]);
    }
    listing.print(&args.list, quiet)
}

/// Prints an index or a manifest, as the registry has it.
pub(super) fn manifest(args: &ManifestArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::options(&args.source_options, quiet)?;
    let SourceSpec::Docker(reference) = SourceSpec::parse_os(&args.image)?.at(options.registry.as_deref()) else {
        anyhow::bail!(
            "{}: only images of registries have manifests to show: see `coracle inspect`",
            args.image.display()
        );
    };
    let bytes = search::document(&reference, options.platform.as_ref(), &open_store(&options)?, &options)?;
    print::json(&serde_json::from_slice(&bytes)?)
}
