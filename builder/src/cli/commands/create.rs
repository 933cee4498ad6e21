//! `coracle create`: an image becomes a container.

use std::ffi::OsStr;

use anyhow::Context as _;

use crate::{
    cli::{args::CreateArgs, options, plan, print, report, source},
    flatten::{self, Limits},
    launch,
    source::{Options, SourceSpec, resolve},
    store::{
        Store,
        containers::{Container, Draft, Settings},
        trees,
    },
};

/// Makes a container and prints its id.
pub(super) fn run(args: CreateArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::container_options(&args.source_options, quiet)?;
    let store = crate::source::open_store(&options)?;
    let limits = plan::limits(args.limits);
    let mut name = args.name.as_deref();
    if args.force
        && let Some(given) = name
        && store.containers().resolve(given).is_ok()
    {
        report::note(quiet, &format!("the name {given} is taken: the container gets none"));
        name = None;
    }
    let mut given = options::resolve(&args.options, &store, quiet)?;
    let mut words = args.words.into_iter();
    let image = words.next().context("no image is named")?;
    given.command = words.collect();
    let labels = args.options.label;
    let container = make(&store, &image, options, limits, name, quiet, |settings| keep(settings, &given, &labels))?;
    print::line(container.id())
}

/// Has a container keep the options of its runs.
pub(super) fn keep(settings: &mut Settings, given: &launch::Options, labels: &[String]) {
    settings.config.labels.extend(options::labels(labels));
    settings.engine = given.engine.clone().or(settings.engine.take());
    settings.options = serde_json::to_value(given).unwrap_or_default();
}

/// Makes a container of an image: fetched if need be, flattened, written. `adjust` has the last word on its settings.
pub(super) fn make(
    store: &Store,
    image: &OsStr,
    options: Options,
    limits: Limits,
    name: Option<&str>,
    quiet: bool,
    adjust: impl FnOnce(&mut Settings),
) -> anyhow::Result<Container> {
    let spec = SourceSpec::parse_os(image)?;
    // First: a name that is taken is said before anything is fetched.
    let draft = store.containers().begin(name)?;
    let options = Options { limit: limits.size, ..options };
    let threads = options.threads;
    let image_name = match &spec {
        SourceSpec::Docker(reference) => reference.familiar(),
        other => other.to_string(),
    };
    let fetched = resolve(&spec, &options)?;
    // Files are written once, beside the tree, and renamed into it.
    let flatten = flatten::Options { limits, spool: draft.apart()?, threads, apart: true };
    let tree = flatten::flatten(fetched.content, &flatten)?;
    drop(fetched.spools);
    let notes = fill(&draft, &tree, threads)?;
    for text in notes {
        report::note(quiet, &text);
    }
    let mut settings = Settings {
        image: image_name,
        provenance: fetched.provenance,
        config: fetched.config,
        engine: fetched.defaults.engine.clone(),
        ..Settings::default()
    };
    adjust(&mut settings);
    Ok(draft.finish(settings, name)?)
}

/// Writes a tree into a container that is being made; gives notes for the user.
pub(super) fn fill(
    draft: &Draft<'_>,
    tree: &flatten::Tree,
    threads: std::num::NonZero<usize>,
) -> anyhow::Result<Vec<String>> {
    let unpacked = trees::unpack(tree, &draft.root(), threads)?;
    if !unpacked.owners.is_empty() {
        let path = draft.directory().join("owners");
        std::fs::write(&path, unpacked.owners.encode()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(tree.notes.clone())
}
