//! `coracle inspect`: what a bundle or an image is, for people and as JSON.

use std::{ffi::OsStr, fs::File, io::Read as _, path::Path};

use coracle_format::{Capture, ImageConfig, Index, Kind, Manifest, Provenance};
use coracle_open::{Bundle, split_signatures};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use serde_json::json;

use super::container;
use crate::{
    cli::{
        args::{InspectArgs, InspectKind},
        print, report, source, stored, table,
    },
    source::{Content, Image, Layer, Reference, SourceSpec, open_store, resolve},
    store::containers::ContainerError,
};

/// Shows what each of these is, and goes on after one that is none.
pub(super) fn run(args: &InspectArgs, quiet: bool) -> anyhow::Result<()> {
    let mut failed = Ok(());
    for what in &args.what {
        let done = one(what, args, quiet);
        if done.is_err()
            && let Err(before) = std::mem::replace(&mut failed, done)
        {
            eprintln!("{}", report::line(&before));
        }
    }
    failed
}

/// Shows what a bundle or an image is.
fn one(what: &OsStr, args: &InspectArgs, quiet: bool) -> anyhow::Result<()> {
    let text = what.to_string_lossy();
    let path = Path::new(text.strip_prefix("bundle:").unwrap_or(&text));
    let may_be = |kind| args.kind.is_none_or(|asked| asked == kind);
    if !args.path && (args.kind == Some(InspectKind::Bundle) || is_program(path) && may_be(InspectKind::Bundle)) {
        return bundle(path, args);
    }
    let found = if may_be(InspectKind::Container) { container::find(&text, quiet)? } else { None };
    match found {
        Some(found) => container::run(&found.0, &found.1, args, quiet),
        None if args.path || !may_be(InspectKind::Image) => {
            Err(ContainerError::NoSuch { given: text.into_owned() }.into())
        }
        None => image(what, args, quiet),
    }
}

/// Prints JSON, or what a template takes of it; false if neither is asked for.
fn as_json(args: &InspectArgs, value: impl FnOnce() -> serde_json::Value) -> anyhow::Result<bool> {
    match &args.format {
        Some(format) => print::line(&table::from_json(format, &value())?)?,
        None if args.json => print::json(&value())?,
        None => return Ok(false),
    }
    Ok(true)
}

/// Whether a bundle may be here; opening it says whether it is.
pub(super) fn is_program(path: &Path) -> bool {
    let mut head = [0; 4];
    // Opening a named pipe would wait for its writer.
    path.is_file() && File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *b"\x7fELF"
}

/// An image of any source; one in a registry is fetched, and stays in the store for the build that follows.
fn image(what: &OsStr, args: &InspectArgs, quiet: bool) -> anyhow::Result<()> {
    // What is here already is not fetched, and nothing need be said of that.
    let bare = source::bare(quiet)?;
    let has_store = bare.store.as_ref().is_some_and(|store| store.join("version").exists());
    let here = has_store && stored::find(&open_store(&bare)?, &what.to_string_lossy()).is_ok();
    let options = source::container_options(&args.source_options, quiet || here)?;
    let spec = SourceSpec::parse_os(what)?.at(options.registry.as_deref());
    let image = resolve(&spec, &options)?;
    let layers = match &image.content {
        Content::Layers(layers) => layers.as_slice(),
        Content::Tree(_) => &[],
    };
    let value = || {
        let layer = |layer: &Layer| json!({ "digest": layer.digest, "diff_id": layer.diff_id, "size": layer.blob.len });
        let mut value = json!({
            "kind": "image",
            "config": image.config,
            "provenance": image.provenance,
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let reference = match &spec {
            SourceSpec::Docker(reference) => Some(reference),
            _ => None,
        };
        add_dockers(&mut value, reference, &image, layers);
        value
    };
    if as_json(args, value)? {
        return Ok(());
    }
    let size: u64 = layers.iter().map(|layer| layer.blob.len).sum();
    let title = match layers.len() {
        0 => format!("{spec}: a tree"),
        count => format!("{spec}: an image of {count} layers, {}", HumanBytes(size)),
    };
    let mut table = Table::new(title);
    describe_source(&mut table, &image.provenance);
    describe_config(&mut table, &image.config);
    table.print()
}

/// The names under which Docker's users look for the same.
fn add_dockers(value: &mut serde_json::Value, reference: Option<&Reference>, image: &Image, layers: &[Layer]) {
    let tag = reference.filter(|reference| reference.digest.is_none()).map(Reference::familiar);
    let repository = reference.map(|reference| {
        let name = reference.familiar();
        let name = name.split('@').next().unwrap_or_default();
        name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name).to_owned()
    });
    let digest = repository.zip(image.provenance.manifest.as_ref()).map(|(name, digest)| format!("{name}@{digest}"));
    value["Id"] = json!(image.provenance.config);
    value["RepoTags"] = json!(tag.into_iter().collect::<Vec<_>>());
    value["RepoDigests"] = json!(digest.into_iter().collect::<Vec<_>>());
    value["Architecture"] = json!(image.config.architecture);
    value["Variant"] = json!(image.config.variant.as_deref().unwrap_or_default());
    value["Os"] = json!(image.config.os);
    value["Config"] = container::in_dockers_words(&image.config);
    value["Size"] = json!(layers.iter().map(|layer| layer.blob.len).sum::<u64>());
    let ids = layers.iter().filter_map(|layer| layer.diff_id.as_ref());
    value["RootFS"] = json!({ "Type": "layers", "Layers": ids.collect::<Vec<_>>() });
}

/// How many there are of each kind.
#[derive(Debug, Default, Serialize)]
struct Counts {
    files: u64,
    directories: u64,
    symlinks: u64,
    hard_links: u64,
    fifos: u64,
    devices: u64,
    frames: usize,
}

impl Counts {
    fn of(index: &Index) -> Self {
        let mut counts = Self { frames: index.frames.len(), ..Self::default() };
        for entry in &index.entries {
            *match entry.kind {
                Kind::File { .. } => &mut counts.files,
                Kind::Directory => &mut counts.directories,
                Kind::Symlink { .. } => &mut counts.symlinks,
                Kind::HardLink { .. } => &mut counts.hard_links,
                Kind::Fifo => &mut counts.fifos,
                Kind::CharDevice { .. } | Kind::BlockDevice { .. } => &mut counts.devices,
            } += 1;
        }
        counts
    }
}

fn bundle(path: &Path, args: &InspectArgs) -> anyhow::Result<()> {
    let bundle = Bundle::open(path)?;
    let counts = Counts::of(&bundle.index()?);
    let total = bundle.file().metadata()?.len();
    let signatures: Vec<String> = split_signatures(&bundle.signatures()?).collect();
    // What they sign, for other tools that know minisign's format.
    let statement = bundle.statement()?;
    let value = || {
        let trailer = bundle.trailer();
        let region = |offset: u64, len: u64| json!({ "offset": offset, "len": len });
        json!({
            "kind": "bundle",
            "file": path.display().to_string(),
            "size": total,
            "regions": {
                "stub": region(0, trailer.payload.offset),
                "payload": region(trailer.payload.offset, trailer.payload.len),
                "manifest": region(trailer.manifest.offset, trailer.manifest.len),
                "index": region(trailer.index.offset, trailer.index.len),
                "signatures": region(trailer.signatures().offset, trailer.signatures().len),
            },
            "statement": statement,
            "signatures": signatures,
            "counts": counts,
            "manifest": bundle.manifest(),
        })
    };
    if as_json(args, value)? {
        return Ok(());
    }
    let mut table = Table::new(format!("{}: a bundle of {}", path.display(), HumanBytes(total)));
    describe_bundle(&mut table, bundle.manifest(), &counts);
    let signed = format!("{} (see `coracle verify --key`)", signatures.len());
    table.row("signatures", (!signatures.is_empty()).then_some(&signed));
    table.print()
}

fn describe_bundle(table: &mut Table, manifest: &Manifest, counts: &Counts) {
    describe_source(table, &manifest.provenance);
    describe_config(table, &manifest.config);
    let defaults = &manifest.defaults;
    table.row("isolated", defaults.isolated.then_some("yes"));
    table.row("alone", defaults.alone.then_some("yes"));
    table.row("writable", defaults.writable.then_some("yes"));
    table.row("engine", defaults.engine.as_deref());
    table.rows("volume", &defaults.volumes);
    let (payload, stub) = (&manifest.payload, &manifest.stub);
    table.row(
        "tree",
        Some(&format!(
            "{} in {} files, {} directories, {} symbolic links, {} hard links, {} pipes, {} devices",
            HumanBytes(payload.unpacked),
            HumanCount(counts.files),
            HumanCount(counts.directories),
            HumanCount(counts.symlinks),
            HumanCount(counts.hard_links),
            counts.fifos,
            counts.devices
        )),
    );
    table.row(
        "payload",
        Some(&format!("{} from offset {} on, {} frames", HumanBytes(payload.stored), stub.len, counts.frames)),
    );
    table.row("stub", Some(&format!("{} for {}, by coracle {}", HumanBytes(stub.len), stub.target, manifest.coracle)));
    table.row("tree digest", Some(&format!("sha256:{}", manifest.index.sha256)));
    for (name, key) in [("interpreter", "interpreters"), ("static", "static_programs")] {
        let list = manifest.facts[key].as_array().into_iter().flatten();
        table.rows(name, &list.filter_map(|item| item.as_str()).map(str::to_owned).collect::<Vec<_>>());
    }
    table.rows("note", &manifest.notes);
}

fn describe_source(table: &mut Table, provenance: &Provenance) {
    table.row("source", Some(&provenance.source));
    table.row("manifest", provenance.manifest.as_deref());
    table.row("config", provenance.config.as_deref());
    table.rows("layer", &provenance.layers);
    table.rows("built with", &provenance.options);
    let mut lists: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, text) in provenance.capture.iter().flat_map(Capture::lines) {
        match lists.last_mut().filter(|(last, _)| *last == name) {
            Some((_, list)) => list.push(text),
            None => lists.push((name, vec![text])),
        }
    }
    for (name, list) in lists {
        table.rows(name, &list);
    }
}

fn describe_config(table: &mut Table, config: &ImageConfig) {
    let platform = [Some(&config.os), Some(&config.architecture), config.variant.as_ref()];
    let platform: Vec<&str> =
        platform.into_iter().flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
    table.row("platform", Some(platform.join("/").as_str()).filter(|text| !text.is_empty()));
    for (name, words) in [("entrypoint", &config.entrypoint), ("command", &config.cmd)] {
        table.row(name, words.as_ref().and_then(|words| serde_json::to_string(words).ok()).as_deref());
    }
    table.row("directory", config.working_dir.as_deref());
    table.row("user", config.user.as_deref());
    table.rows("variable", &config.env);
    table.rows("image volume", &config.volumes);
    table.rows("port", &config.exposed_ports);
    table.row("stop signal", config.stop_signal.as_deref());
    let labels: Vec<String> = config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    table.rows("label", &labels);
}

/// Names on the left, values on the right.
struct Table(String);

impl Table {
    /// Longer lists are cut in the table; JSON has them whole.
    const MOST: usize = 12;

    fn new(title: String) -> Self {
        Self(print::visible(&title) + "\n")
    }

    fn row(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push_str(&format!("  {name:<13} {}\n", print::visible(value)));
        }
    }

    fn rows(&mut self, name: &str, values: &[String]) {
        for (number, value) in values.iter().take(Self::MOST).enumerate() {
            self.row(if number == 0 { name } else { "" }, Some(value));
        }
        if values.len() > Self::MOST {
            self.row("", Some(&format!("and {} more (all with --json)", values.len() - Self::MOST)));
        }
    }

    fn print(self) -> anyhow::Result<()> {
        print::bytes(self.0.as_bytes())
    }
}
