//! From what the user named to a tree and a config: source, then flatten, then the user's changes.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use coracle_format::{Defaults, ImageConfig, Provenance};

use crate::{
    cli::{changes, plan::BuildPlan},
    flatten::{self, Tree},
    source::{Blob, Compression, Content, Image, Layer, WalkOptions, walk},
};

/// An image ready to be packed.
pub(super) struct Ready {
    pub(super) tree: Tree,
    pub(super) config: ImageConfig,
    pub(super) defaults: Defaults,
    pub(super) provenance: Provenance,
}

/// Fetches, flattens and changes the image of a plan.
pub(super) fn load(plan: &BuildPlan, _quiet: bool) -> anyhow::Result<Ready> {
    let Image { mut config, content, provenance, .. } = rootfs(plan)?;
    let defaults = changes::apply(&plan.changes, &mut config, |name| std::env::var(name).ok())?;
    ensure!(plan.changes.copy.is_empty() && plan.changes.exclude.is_empty(), "--copy, --exclude: not in this version");
    let options =
        flatten::Options { limits: flatten::Limits::default(), spool: std::env::temp_dir(), threads: plan.pack.jobs };
    let tree = flatten::flatten(content, &options)?;
    Ok(Ready { tree, config, defaults, provenance })
}

fn rootfs(plan: &BuildPlan) -> anyhow::Result<Image> {
    let text = plan.source.to_string_lossy();
    let Some(path) = text.strip_prefix("rootfs:").map(Path::new) else {
        bail!("{text}: sources other than rootfs: are not in this version");
    };
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let content = if meta.is_dir() {
        Content::Tree(walk(path, WalkOptions::default())?)
    } else {
        let blob = Blob { file: path.to_owned(), offset: 0, len: meta.len() };
        let mut head = [0; 2];
        std::io::Read::read_exact(&mut std::fs::File::open(path)?, &mut head)?;
        let compression = if head == [0x1f, 0x8b] { Compression::Gzip } else { Compression::None };
        Content::Layers(vec![Layer { digest: text.to_string(), diff_id: None, compression, blob }])
    };
    let config = ImageConfig { os: "linux".into(), ..ImageConfig::default() };
    let provenance = Provenance { source: text.into_owned(), ..Provenance::default() };
    Ok(Image { config, content, provenance })
}
