//! From what the user named to a tree and a config: source, then flatten, then the user's changes.

use anyhow::bail;
use coracle_format::{Defaults, ImageConfig, Provenance};

use crate::{cli::plan::BuildPlan, flatten::Tree};

/// An image ready to be packed.
pub(super) struct Ready {
    pub(super) tree: Tree,
    pub(super) config: ImageConfig,
    pub(super) defaults: Defaults,
    pub(super) provenance: Provenance,
}

/// Fetches, flattens and changes the image of a plan.
pub(super) fn load(plan: &BuildPlan, _quiet: bool) -> anyhow::Result<Ready> {
    bail!("{}: sources are not in this version", plan.source.display());
}
