//! `coracle create`: an image becomes a container.

use std::{ffi::OsStr, num::NonZero};

use anyhow::Context as _;
use coracle_format::Provenance;

use crate::{
    cli::{args::CreateArgs, options, plan, print, report, source},
    flatten::{self, Limits},
    launch,
    source::{Content, Options, Platform, PullPolicy, SourceSpec, load, resolve},
    store::{
        Store,
        containers::{Container, Draft, Settings, base},
        trees::{self, ImageRecord, ImageTree},
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
///
/// Where engines can keep changes apart, an image is written once, and its containers stand on that tree.
pub(super) fn make(
    store: &Store,
    image: &OsStr,
    options: Options,
    limits: Limits,
    name: Option<&str>,
    quiet: bool,
    adjust: impl FnOnce(&mut Settings),
) -> anyhow::Result<Container> {
    let spec = SourceSpec::parse_os(image)?.at(options.registry.as_deref());
    // First: a name that is taken is said before anything is fetched.
    let draft = store.containers().begin(name)?;
    let options = Options { limit: limits.size, ..options };
    let threads = options.threads;
    let image_name = match &spec {
        SourceSpec::Docker(reference) => reference.familiar(),
        other => other.to_string(),
    };
    let shares = base::may_overlay(draft.directory());
    let mut settings = Settings { image: image_name, ..Settings::default() };
    if shares && let Some(tree) = unpacked(store, &spec, &options)? {
        return stand(draft, &tree, &spec, settings, name, adjust);
    }
    let fetched = resolve(&spec, &options)?;
    // A bundle's tree may have been changed since its manifest was made.
    if shares
        && matches!(fetched.content, Content::Layers(_))
        && fetched.provenance.options.is_empty()
        && let Some(manifest) = &fetched.provenance.manifest
    {
        let tree = match store.image_tree(manifest)? {
            Some(tree) => tree,
            None => {
                let made = store.begin_image_tree()?;
                let flatten = flatten::Options { limits, spool: made.apart()?, threads, apart: true };
                let tree = flatten::flatten(fetched.content, &flatten)?;
                drop(fetched.spools);
                for text in &tree.notes {
                    report::note(quiet, text);
                }
                let engine = fetched.defaults.engine;
                let record = ImageRecord::new(fetched.config, fetched.provenance, engine);
                made.finish(&tree, record, threads)?
            }
        };
        return stand(draft, &tree, &spec, settings, name, adjust);
    }
    // Files are written once, beside the tree, and renamed into it.
    let flatten = flatten::Options { limits, spool: draft.apart()?, threads, apart: true };
    let tree = flatten::flatten(fetched.content, &flatten)?;
    drop(fetched.spools);
    for text in fill(&draft, &tree, threads)? {
        report::note(quiet, &text);
    }
    settings.provenance = fetched.provenance;
    settings.config = fetched.config;
    settings.engine = fetched.defaults.engine;
    adjust(&mut settings);
    Ok(draft.finish(settings, name)?)
}

/// The tree of an image that need not be fetched, nor looked at, any more.
fn unpacked(store: &Store, spec: &SourceSpec, options: &Options) -> anyhow::Result<Option<ImageTree>> {
    let SourceSpec::Docker(reference) = spec else { return Ok(None) };
    // A digest means one image for ever.
    let taken = matches!(options.pull, PullPolicy::Missing | PullPolicy::Never) || reference.digest.is_some();
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    if !taken || !platform.runnable() {
        return Ok(None);
    }
    let Some(record) = store.image(&reference.to_string())? else { return Ok(None) };
    let Some(pulled) = record.platforms.get(&platform.to_string()) else { return Ok(None) };
    Ok(store.image_tree(&pulled.manifest)?)
}

/// Sees to it that the tree is there that a container stands on, as long as this is held; it is made of the image's
/// layers again if it has gone.
pub(super) fn tree_of(store: &Store, settings: &Settings) -> anyhow::Result<Option<ImageTree>> {
    let Some(base) = &settings.base else { return Ok(None) };
    if let Some(tree) = store.image_tree_named(base)? {
        return Ok(Some(tree));
    }
    let gone = || format!("the tree of {}, which this container stands on, is gone", settings.image);
    let manifest = settings.provenance.manifest.as_deref().with_context(gone)?;
    let _using = store.use_blobs()?;
    let content = load::stored(store, manifest, &settings.image).with_context(gone)?;
    let made = store.begin_image_tree()?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let flatten = flatten::Options { limits: Limits::default(), spool: made.apart()?, threads, apart: true };
    let tree = flatten::flatten(content, &flatten).with_context(gone)?;
    // What a container was created with is not the image's.
    let config = load::stored_config(store, manifest, &settings.image).with_context(gone)?;
    let record = ImageRecord::new(config, settings.provenance.clone(), None);
    Ok(Some(made.finish(&tree, record, threads)?))
}

/// Makes a container that stands on an image's tree.
fn stand(
    draft: Draft<'_>,
    tree: &ImageTree,
    spec: &SourceSpec,
    mut settings: Settings,
    name: Option<&str>,
    adjust: impl FnOnce(&mut Settings),
) -> anyhow::Result<Container> {
    let record = &tree.record;
    settings.provenance = Provenance { source: spec.to_string(), ..record.provenance.clone() };
    settings.config = record.config.clone();
    settings.engine.clone_from(&record.engine);
    adjust(&mut settings);
    draft.stand_on(tree, &mut settings)?;
    Ok(draft.finish(settings, name)?)
}

/// Writes a tree into a container that is being made; gives notes for the user.
pub(super) fn fill(draft: &Draft<'_>, tree: &flatten::Tree, threads: NonZero<usize>) -> anyhow::Result<Vec<String>> {
    fill_with(draft, tree, threads)?;
    Ok(tree.notes.clone())
}

/// Writes a tree into a container that is being made; true if files share blocks with those that they are copies of.
pub(super) fn fill_with(draft: &Draft<'_>, tree: &flatten::Tree, threads: NonZero<usize>) -> anyhow::Result<bool> {
    let unpacked = trees::unpack(tree, &draft.root(), threads)?;
    if !unpacked.owners.is_empty() {
        let path = draft.directory().join("owners");
        std::fs::write(&path, unpacked.owners.encode()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(unpacked.cloned)
}
