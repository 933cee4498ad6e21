//! `coracle build`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::image::{self, Ready};
use crate::{
    cli::{args::ChangeArgs, plan::BuildPlan, report},
    pack::{self, Contents, Output},
    patch,
};

/// Turns an image into one executable file.
pub(super) fn run(plan: BuildPlan, quiet: bool) -> anyhow::Result<()> {
    // First, so that an output that cannot be fails before anything is fetched.
    let output = Output::create(&plan.output)?;
    let Ready { tree, config, defaults, mut provenance } = image::load(&plan, quiet)?;
    provenance.options.extend(as_given(&plan.changes));
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

/// The options that changed the image, for the manifest.
fn as_given(changes: &ChangeArgs) -> Vec<String> {
    let copy = changes.copy.iter().map(|value| ("copy", value.to_string_lossy().into_owned()));
    let exclude = changes.exclude.iter().map(|value| ("exclude", value.to_string_lossy().into_owned()));
    let single = [
        ("entrypoint", &changes.entrypoint),
        ("cmd", &changes.cmd),
        ("workdir", &changes.workdir),
        ("user", &changes.user),
        ("engine", &changes.engine),
    ];
    let single = single.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let env = changes.env.iter().map(|value| ("env", value.clone()));
    let volume = changes.volume.iter().map(|value| ("volume", value.clone()));
    let all = copy.chain(exclude).chain(single).chain(env).chain(volume);
    all.map(|(name, value)| format!("--{name}={value}"))
        .chain(changes.isolated.then(|| "--isolated".to_owned()))
        .collect()
}
