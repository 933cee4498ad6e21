//! `coracle import-udocker`: images and containers of a udocker repository, copied.
//!
//! udocker keeps `repos/[REGISTRY/]REPOSITORY/TAG/` with `TAG`, `manifest` and links to blobs by digest (or `ancestry`,
//! `container.json` and links to `ID.layer`, for what was loaded from archives; `ID.json` instead of `container.json`
//! for what was imported, with the digest of the compressed layer as its diff id); and `containers/ID/` with
//! `container.json`, `imagerepo.name`, `execmode`, `ROOT/`, and links `NAME -> ID` beside it. `PROTECT` in either
//! directory protects it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{create::fill, import::docker_config};
use crate::{
    cli::{args::ImportUdockerArgs, print, report, source},
    flatten::{InodeKind, Tree},
    source::{Blob, Compression, Options, Reference, SourceError, open_store, sniff},
    store::{
        Store,
        containers::{Settings, names},
        trees::{self, Owners},
    },
};

/// Directories in a repository's path; more is a loop of links.
const DEEPEST: usize = 12;

/// Names by id.
type Names = BTreeMap<String, Vec<String>>;

/// Copies what is there; what cannot be is told, and the rest is copied.
pub(super) fn run(args: &ImportUdockerArgs, quiet: bool) -> anyhow::Result<u8> {
    let options = source::bare(quiet)?;
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => default_directory()?,
    };
    ensure!(
        directory.join("repos").is_dir() || directory.join("containers").is_dir(),
        "{}: there is no udocker repository: name its directory",
        directory.display()
    );
    let store = open_store(&options)?;
    let mut status = 0;
    let mut tell = |done: anyhow::Result<String>| match done {
        Ok(done) => print::line(&done),
        Err(error) => {
            eprintln!("{}", report::line(&error));
            status = 1;
            Ok(())
        }
    };
    if !args.containers {
        let repos = directory.join("repos");
        for tag in tags(&repos) {
            tell(image(&store, &repos, &tag))?;
        }
    }
    if !args.images {
        let (containers, names) = containers(&directory.join("containers"))?;
        for path in containers {
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let own = names.get(&id).map_or(&[][..], Vec::as_slice);
            tell(container(&store, &path, own, &options, quiet).with_context(|| format!("container {id}")))?;
        }
    }
    Ok(status)
}

fn default_directory() -> anyhow::Result<PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".udocker"));
    variable("UDOCKER_DIR").or_else(home).context("HOME is not set: name udocker's directory")
}

/// Directories of tags.
fn tags(repos: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(repos.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        if directory.join("TAG").is_file() {
            found.push(directory);
            continue;
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < DEEPEST);
        open.extend(below.map(|entry| (entry.path(), depth + 1)));
    }
    found.sort();
    found
}

fn image(store: &Store, repos: &Path, tag: &Path) -> anyhow::Result<String> {
    // `TAG` holds the name too, but as a path where the image was loaded from an archive.
    let place = tag.strip_prefix(repos).unwrap_or(tag);
    let repository = place.parent().unwrap_or(place).to_string_lossy();
    let name = format!("{repository}:{}", place.file_name().unwrap_or_default().to_string_lossy());
    let reference: Reference = name.parse().map_err(|why| anyhow::anyhow!("image {name}: {why}"))?;
    let Parts { config, layers, manifest, imported } =
        parts(tag).with_context(|| format!("image {name} cannot be copied: pull or load it again"))?;
    let bytes = fs::read(&config).with_context(|| format!("image {name}: cannot read {}", config.display()))?;
    // A manifest names its config by digest, and udocker the file by that.
    let whole = manifest.is_none() || config.ends_with(crate::store::digest::sha256(&bytes));
    ensure!(whole, "image {name}: its config is damaged: pull it again");
    let mut bytes = bytes;
    let parsed = crate::source::manifest::parse_config(&bytes, &format!("the config of {name}"))?;
    ensure!(parsed.diff_ids.len() == layers.len(), "image {name}: its config does not fit its layers: pull it again");
    let _using = store.use_blobs()?;
    let mut stored = Vec::new();
    for ((digest, file), diff_id) in layers.into_iter().zip(&parsed.diff_ids) {
        let len = fs::metadata(&file).with_context(|| format!("image {name}: cannot read {}", file.display()))?.len();
        let head = sniff::head_at(&fs::File::open(&file)?, 0, len)?;
        let compression: Compression = sniff::compression(&head);
        let blob = Blob { file, offset: 0, len };
        let diff_id = (!imported).then_some(diff_id.as_str());
        let taken = store.add_layer(&blob, compression, digest.as_deref(), diff_id, &format!("a layer of {name}"));
        stored.push(taken.map_err(|error: SourceError| anyhow::Error::new(error).context("pull or load it again"))?);
    }
    if imported {
        let mut value: Value = serde_json::from_slice(&bytes)?;
        let diff_ids: Vec<&String> = stored.iter().map(|layer| &layer.diff_id).collect();
        value["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        bytes = value.to_string().into_bytes();
    }
    let host = crate::source::Platform::host();
    let or = |text: String, otherwise: String| if text.is_empty() { otherwise } else { text };
    let platform = crate::source::Platform {
        os: or(parsed.config.os, host.os),
        architecture: or(parsed.config.architecture, host.architecture),
        variant: parsed.config.variant,
    };
    store.add_image(&[reference.to_string()], &platform.to_string(), &stored, &bytes, manifest.as_deref())?;
    if tag.join("PROTECT").exists() {
        store.protect_image(&reference.to_string(), true)?;
    }
    Ok(format!("image {}", reference.familiar()))
}

/// What an image of udocker's is made of.
struct Parts {
    config: PathBuf,
    /// Lowest first; with the blob's digest where it is known.
    layers: Vec<(Option<String>, PathBuf)>,
    manifest: Option<Vec<u8>>,
    /// By `udocker import`: the config's diff ids are wrong.
    imported: bool,
}

fn parts(tag: &Path) -> anyhow::Result<Parts> {
    let manifest = match fs::read(tag.join("manifest")) {
        Ok(bytes) => bytes,
        // Loaded from an archive: the layers' names, the topmost first.
        Err(_) => {
            let ancestry = fs::read(tag.join("ancestry")).context("it has neither manifest nor ancestry")?;
            let ids: Vec<String> = serde_json::from_slice(&ancestry).context("its ancestry is damaged")?;
            let layers = ids.iter().rev().map(|id| (None, tag.join(format!("{id}.layer")))).collect();
            let config = tag.join("container.json");
            let imported = ids.len() == 1 && !config.exists();
            let config = if imported { tag.join(format!("{}.json", ids[0])) } else { config };
            return Ok(Parts { config, layers, manifest: None, imported });
        }
    };
    let value: Value = serde_json::from_slice(&manifest).context("its manifest is damaged")?;
    let digest = |descriptor: &Value| descriptor["digest"].as_str().map(str::to_owned).context("a part has no digest");
    let layers = value["layers"].as_array().context("it is of a form that is older than 2016")?;
    let layers: Vec<_> =
        layers.iter().map(|layer| digest(layer).map(|digest| (tag.join(&digest), digest))).collect::<Result<_, _>>()?;
    Ok(Parts {
        config: tag.join(digest(&value["config"])?),
        layers: layers.into_iter().map(|(path, digest)| (Some(digest), path)).collect(),
        manifest: Some(manifest),
        imported: false,
    })
}

/// Containers, and the names that they have.
fn containers(directory: &Path) -> anyhow::Result<(Vec<PathBuf>, Names)> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Names::new())),
        Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot read {}", directory.display()))),
    };
    let (mut found, mut names) = (Vec::new(), Names::new());
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if let Ok(target) = fs::read_link(&path) {
            let id = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
            names.entry(id).or_default().push(entry.file_name().to_string_lossy().into_owned());
        } else if path.join("ROOT").is_dir() {
            found.push(path);
        }
    }
    found.sort();
    names.values_mut().for_each(|names| names.sort());
    Ok((found, names))
}

fn container(store: &Store, path: &Path, given: &[String], options: &Options, quiet: bool) -> anyhow::Result<String> {
    let text = |name: &str| fs::read_to_string(path.join(name)).ok().map(|text| text.trim().to_owned());
    let engine = text("execmode").filter(|mode| !mode.is_empty());
    if let Some(mode) = engine.as_deref().filter(|mode| matches!(*mode, "F3" | "F4")) {
        let id = path.file_name().unwrap_or_default().to_string_lossy();
        bail!(
            "in mode {mode} udocker has edited its programs: undo that first with `udocker setup --execmode=P1 {id}`"
        );
    }
    let root = path.join("ROOT");
    let mut tree = trees::read(&root, &Owners::default())?;
    relink(&mut tree, &root, text("root.path").as_deref());
    let json = fs::read(path.join("container.json")).context("cannot read its container.json")?;
    let config = docker_config(&json).context("its container.json cannot be understood")?;
    let image = text("imagerepo.name").unwrap_or_default();
    let draft = store.containers().begin(None)?;
    for note in fill(&draft, &tree, options.threads)? {
        report::note(quiet, &note);
    }
    let protected = path.join("PROTECT").exists();
    let settings = Settings { image, config, engine, protected, ..Settings::default() };
    let made = draft.finish(settings, None)?;
    let mut kept = Vec::new();
    for name in given {
        match names::check(name).and_then(|()| store.containers().add_name(&made, name)) {
            Ok(()) => kept.push(name.clone()),
            Err(error) => {
                report::note(quiet, &format!("container {}: without the name {name}: {error}", made.short_id()))
            }
        }
    }
    Ok(format!("container {} {}", made.short_id(), kept.join(",")).trim_end().to_owned())
}

/// Absolute links that udocker's F modes have led into the tree's directory lead where the image had them lead.
fn relink(tree: &mut Tree, root: &Path, recorded: Option<&str>) {
    let mut roots = vec![root.as_os_str().as_bytes().to_vec()];
    roots.extend(fs::canonicalize(root).map(|root| root.as_os_str().as_bytes().to_vec()));
    roots.extend(
        recorded.filter(|path| path.starts_with('/')).map(|path| path.trim_end_matches('/').as_bytes().to_vec()),
    );
    for inode in &mut tree.inodes {
        if let InodeKind::Symlink(target) = &mut inode.kind
            && let Some(rest) = roots.iter().find_map(|root| target.strip_prefix(root.as_slice()))
            && (rest.is_empty() || rest.starts_with(b"/"))
        {
            let rest = if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() };
            *target = rest;
        }
    }
}
