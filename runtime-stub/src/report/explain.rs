//! What `explain` prints: every decision that a run here would take, with its reason.

use std::fmt::Write as _;

use coracle_api::{Access, BindOrigin, Devices, Engine, ImageFacts};

use crate::{
    launch::{Plan, engines::Candidate},
    options::{Options, table::Kind},
};

/// The decisions. `chosen` is the engine that would run, `cache` says in lines where the tree is and which places were
/// considered.
#[must_use]
pub fn explain(
    options: &Options,
    plan: &Plan,
    facts: &ImageFacts,
    engines: &[Candidate],
    chosen: Option<&str>,
    cache: &[String],
) -> String {
    let mut out = String::new();
    let mut section = |title: &str, lines: &[String]| {
        let _ = writeln!(out, "{title}:");
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
    };
    let given: Vec<String> = options
        .given
        .iter()
        .filter(|given| given.row.kind != Kind::Action)
        .map(|given| {
            let value =
                given.value.as_deref().map_or_else(String::new, |value| format!("={}", value.to_string_lossy()));
            format!("{}{value} ({})", given.row.name, given.origin)
        })
        .collect();
    section("options", if given.is_empty() { &[] } else { &given });
    let spec = &plan.spec;
    let mut run: Vec<String> = plan.notes.iter().map(|(topic, text)| format!("{topic}: {text}")).collect();
    run.push(format!(
        "files: {}",
        match &spec.access {
            Access::ReadOnly => "read-only, shared with other runs".to_owned(),
            Access::CopyOnWrite { changes } => format!("writable, changes go to {}", changes.display()),
            Access::Direct => "writable in place".to_owned(),
        }
    ));
    run.push(format!(
        "/dev: {}",
        match spec.devices {
            Devices::Host => "the host's",
            Devices::Minimal { .. } => "a minimal one",
        }
    ));
    section("run", &run);
    let binds: Vec<String> = spec
        .binds
        .iter()
        .map(|bind| {
            let mode = if bind.read_only { "ro" } else { "rw" };
            let origin = match &bind.origin {
                BindOrigin::Volume => "volume".to_owned(),
                BindOrigin::Config(path) => path.display().to_string(),
                BindOrigin::Default(purpose) => format!("default: {purpose}"),
                BindOrigin::Generated => "generated for this run".to_owned(),
            };
            format!("{} <- {} ({mode}, {origin})", bind.guest.display(), bind.host.display())
        })
        .collect();
    section("binds", &binds);
    section("cache", cache);
    section("image", &image(facts));
    let engines: Vec<String> = engines
        .iter()
        .map(|one| {
            let name = one.engine.name();
            let answer = match &one.answer {
                Ok(()) if chosen == Some(name) => "accepted, would run".to_owned(),
                Ok(()) => "accepted".to_owned(),
                Err(refusal) => format!("refused: {refusal}"),
            };
            let notes: String = one.notes.iter().map(|note| format!("; {note}")).collect();
            format!("{name}: {answer}{notes}")
        })
        .collect();
    section("engines", &engines);
    out
}

/// How an engine would start programs that are loaded, if it can do so in two ways: edited (udocker's F3), or not (F1).
/// `asked` is the name by which it was asked for.
#[must_use]
pub fn entering(engine: &dyn Engine, asked: Option<&str>, plan: &Plan, facts: &ImageFacts) -> Option<String> {
    if !engine.wants_edits(None) {
        return None;
    }
    let why = if !engine.wants_edits(asked) {
        "as asked"
    } else if plan.spec.access != Access::ReadOnly {
        "for its files can change"
    } else if facts.loaders.is_empty() {
        "for the bundle has no edits"
    } else {
        return Some("F3: programs are edited to name their own loader, in a view of the tree".to_owned());
    };
    Some(format!("F1: programs are started by their loader, {why}"))
}

/// What engines ask of the image: which loaders bring its programs to run, and which programs ask none.
fn image(facts: &ImageFacts) -> Vec<String> {
    let mut lines = Vec::new();
    if !facts.architecture.is_empty() {
        lines.push(format!("architecture: {}", facts.architecture));
    }
    lines.extend(facts.interpreters.iter().map(|path| format!("loader: {path}")));
    lines.extend(facts.static_programs.iter().map(|path| format!("static program: {path}")));
    lines
}
