//! From what the user named to a tree and a config: source, then flatten, then the user's changes.

use std::ffi::OsStr;

use anyhow::Context as _;
use coracle_format::{Defaults, ImageConfig, Provenance, Time};

use crate::{
    cli::{changes, plan::BuildPlan, source},
    flatten::{
        self, Tree,
        changes::{Copy, exclude},
    },
    packages::Packages,
    source::{Content, Image, Options, SourceSpec, open_store, resolve},
    store::trees,
};

/// An image ready to be packed.
pub(super) struct Ready {
    pub(super) tree: Tree,
    pub(super) config: ImageConfig,
    pub(super) defaults: Defaults,
    pub(super) provenance: Provenance,
}

/// Fetches, flattens and changes the image of a plan.
pub(super) fn load(plan: &BuildPlan, quiet: bool) -> anyhow::Result<Ready> {
    let options =
        Options { limit: plan.limits.size, threads: plan.pack.jobs, ..source::options(&plan.source_options, quiet)? };
    // What is wrong with the changes is said before anything is fetched, as far as it can be known.
    let copies: Vec<Copy> = plan.changes.copy.iter().map(|given| Copy::parse(given)).collect::<Result<_, _>>()?;
    let newest = newest()?;
    let image = find(&plan.source, &options)?;
    let mut config = image.config;
    let defaults = changes::apply(&plan.changes, &mut config, image.defaults, |name| std::env::var(name).ok())?;
    let flatten =
        flatten::Options { limits: plan.limits, spool: options.scratch, threads: plan.pack.jobs, apart: false };
    let mut tree = flatten::flatten(image.content, &flatten)?;
    // The content may have pointed into these until now.
    drop(image.spools);
    for copy in &copies {
        copy.apply(&mut tree, config.working_dir.as_deref(), newest)?;
    }
    exclude(&mut tree, &plan.changes.exclude)?;
    let mut provenance = image.provenance;
    provenance.options.extend(changes::as_given(&plan.changes));
    provenance.licences = Packages::of(&tree).licences().into_iter().collect();
    Ok(Ready { tree, config, defaults, provenance })
}

/// The image of a source, which may be a container.
pub(super) fn find(source: &OsStr, options: &Options) -> anyhow::Result<Image> {
    match source.to_str().and_then(|source| source.strip_prefix("container:")) {
        Some(name) => of_container(name, options),
        None => Ok(resolve(&SourceSpec::parse_os(source)?.at(options.registry.as_deref()), options)?),
    }
}

/// A container's tree and settings, as an image.
fn of_container(name: &str, options: &Options) -> anyhow::Result<Image> {
    let container = open_store(options)?.containers().resolve(name)?;
    let settings = container.settings()?;
    let engine = settings.engine;
    Ok(Image {
        config: settings.config,
        content: Content::Tree(trees::read_container(&container)?),
        provenance: Provenance { options: Vec::new(), ..settings.provenance },
        defaults: Defaults { engine, ..Defaults::default() },
        spools: Vec::new(),
    })
}

/// The time that no copied file may be newer than, by the convention of reproducible builds.
pub(super) fn newest() -> anyhow::Result<Option<Time>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let seconds = seconds.with_context(|| {
        format!("SOURCE_DATE_EPOCH: {}: it is no number of seconds since 1970: correct or unset it", text.display())
    })?;
    Ok(Some(Time { seconds, nanoseconds: 0 }))
}
