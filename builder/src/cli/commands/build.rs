//! `coracle build`.

use std::path::Path;

use indicatif::HumanBytes;

use super::image::{self, Ready};
use crate::{
    cli::{plan::BuildPlan, report},
    pack::{self, Contents, Output},
    patch,
};

/// Turns an image into one executable file.
pub(super) fn run(plan: BuildPlan, quiet: bool) -> anyhow::Result<()> {
    // First, so that an output that cannot be fails before anything is fetched.
    let output = Output::create(&plan.output)?;
    let Ready { tree, config, defaults, provenance } = image::load(&plan, quiet)?;
    let facts = patch::facts(&tree, &config)?;
    let notes = tree.notes.clone();
    let contents = Contents { tree: &tree, config, defaults, provenance, facts };
    let summary = pack::write_bundle(output.file(), contents, plan.pack, &|_, _| ())?;
    output.finish()?;
    for text in notes {
        report::note(quiet, &text);
    }
    let name = if plan.output == Path::new("-") { "standard output".into() } else { plan.output.display().to_string() };
    report::note(
        quiet,
        &format!(
            "{name}: {} ({} of files, {} inodes)",
            HumanBytes(summary.total),
            HumanBytes(summary.unpacked),
            summary.inodes
        ),
    );
    Ok(())
}
