//! From what the user named to a tree and a config: source, then flatten, then the user's changes.

use anyhow::ensure;
use coracle_format::{Defaults, ImageConfig, Provenance};

use crate::{
    cli::{changes, plan::BuildPlan, source},
    flatten::{self, Tree},
    source::{Options, SourceSpec, resolve},
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
    ensure!(plan.changes.copy.is_empty() && plan.changes.exclude.is_empty(), "--copy, --exclude: not in this version");
    let limits = flatten::Limits::default();
    let options =
        Options { limit: limits.size, threads: plan.pack.jobs, ..source::options(&plan.source_options, quiet)? };
    let image = resolve(&SourceSpec::parse_os(&plan.source)?, &options)?;
    let mut config = image.config;
    let defaults = changes::apply(&plan.changes, &mut config, |name| std::env::var(name).ok())?;
    let flatten = flatten::Options { limits, spool: options.scratch, threads: plan.pack.jobs };
    let tree = flatten::flatten(image.content, &flatten)?;
    // The content may have pointed into these until now.
    drop(image.spools);
    Ok(Ready { tree, config, defaults, provenance: image.provenance })
}
