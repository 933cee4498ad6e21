//! `coracle build`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use coracle_api::ImageFacts;
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
    let of_programs = [of_static(&facts.static_programs), of_preload(&facts, &edits_of)];
    let contents = Contents { tree: &tree, config, defaults, provenance, facts, edits };
    let bar = bar(quiet);
    let summary = pack::write_bundle(output.file(), contents, plan.pack, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary?;
    output.finish()?;
    for text in notes.into_iter().chain(of_programs.into_iter().flatten()) {
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
    let those =
        if programs.len() == 1 { "1 static program".to_owned() } else { format!("{} static programs", programs.len()) };
    (!programs.is_empty()).then(|| format!("{those}, which the preload engine cannot run by itself: {shown}{more}"))
}

/// How the preload engine is going to start programs: edited (F3), or by their loader (F1).
fn of_preload(facts: &ImageFacts, report: &patch::Report) -> Option<String> {
    if facts.interpreters.is_empty() {
        return None;
    }
    let (edited, left) = (report.edited.len(), report.left.len());
    Some(if facts.loaders.is_empty() {
        "preload: F1 (programs are started by their loader): the image has no loader that edits can be made for"
            .to_owned()
    } else {
        format!(
            "preload: F3 (programs are edited): {edited} files edited, {left} left as they are; --report lists them"
        )
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
