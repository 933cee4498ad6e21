//! `coracle build`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::image::{self, Ready};
use crate::{
    cli::{plan::BuildPlan, print, report},
    pack::{self, Contents, Output},
    patch::{self, Analysis},
};

/// Turns an image into one executable file.
pub(super) fn run(plan: BuildPlan, quiet: bool) -> anyhow::Result<()> {
    // First, so that an output that cannot be fails before anything is fetched.
    let output = Output::create(&plan.output)?;
    let Ready { tree, config, defaults, provenance } = image::load(&plan, quiet)?;
    let Analysis { facts, edits, report: edits_of } = patch::analyse(&tree, &config)?;
    let notes = tree.notes.clone();
    let static_programs = facts.static_programs.clone();
    let contents = Contents { tree: &tree, config, defaults, provenance, facts, edits };
    let bar = bar(quiet);
    let summary = pack::write_bundle(output.file(), contents, plan.pack, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary?;
    output.finish()?;
    for text in notes.into_iter().chain(of_static(&static_programs)) {
        report::note(quiet, &text);
    }
    if plan.report {
        let text = listing(&edits_of);
        if plan.output == Path::new("-") { eprint!("{text}") } else { print::bytes(text.as_bytes())? }
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

/// Programs that ask no loader: engines that rest on one cannot run them.
fn of_static(programs: &[String]) -> Option<String> {
    const SHOWN: usize = 5;
    let more = if programs.len() > SHOWN { ", …" } else { "" };
    let shown = programs.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    (!programs.is_empty()).then(|| {
        format!("{} static programs, which the preload engine cannot run by itself: {shown}{more}", programs.len())
    })
}

/// Every file that is edited, and every one that is left.
fn listing(report: &patch::Report) -> String {
    let lines = |word: &str, lines: &[patch::Line]| -> String {
        lines.iter().map(|line| print::visible(&format!("{word} {}: {}", line.path, line.text)) + "\n").collect()
    };
    lines("edited", &report.edited) + &lines("left", &report.left)
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
