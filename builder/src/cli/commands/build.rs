//! `coracle build`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

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
    let bar = bar(quiet);
    let summary = pack::write_bundle(output.file(), contents, plan.pack, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary?;
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

fn bar(quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("packing      {bar:30} {bytes:>11} of {total_bytes:<11} {eta:>4}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
