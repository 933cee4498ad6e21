//! `coracle import`: a root file system becomes an image or a container, an exported clone a container.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use coracle_format::Health;
use serde_json::{Value, json};

use super::{container::in_dockers_words, create::fill, export::from_clone};
use crate::{
    cli::{args::ImportArgs, plan, print, report, source},
    flatten,
    launch::health::parse_time,
    source::{Content, Image, Options, Platform, Reference, SourceSpec, manifest, open_store, resolve, sniff},
    store::{
        Store,
        containers::{SETTINGS_VERSION, Settings, Sharing},
    },
};

/// Imports, and prints the new container's id or the image's digest.
pub(super) fn run(args: ImportArgs, quiet: bool) -> anyhow::Result<()> {
    let stdin = args.file == Path::new("-");
    ensure!(!(stdin && args.mv), "--mv: standard input cannot be removed");
    ensure!(!args.clone || args.image.is_none(), "--clone makes a container: its name is given by --name");
    let limits = plan::limits(args.limits);
    let mut options = Options { limit: limits.size, ..source::bare(quiet)? };
    options.platform =
        args.platform.as_deref().map(str::parse).transpose().map_err(|why: String| anyhow::anyhow!(why))?;
    let store = open_store(&options)?;
    let spec = match &args.file {
        _ if stdin => SourceSpec::Stdin,
        file if is_bundle(file) => SourceSpec::Bundle(file.clone()),
        file => SourceSpec::Rootfs(file.clone()),
    };
    if args.clone || args.tocontainer {
        let draft = store.containers().begin(args.name.as_deref())?;
        let image = resolve(&spec, &options)?;
        // A bundle is both: a container's files with their settings.
        let bundle = image.provenance.source.strip_prefix("bundle:").map(str::to_owned);
        let from = || bundle.clone().unwrap_or_else(|| args.file.display().to_string());
        let mut settings = Settings {
            image: args.image.clone().unwrap_or_else(from),
            engine: image.defaults.engine.clone(),
            provenance: image.provenance.clone(),
            config: image.config.clone(),
            ..Settings::default()
        };
        let threads = options.threads;
        let flatten = flatten::Options { limits, spool: draft.apart()?, threads, apart: true };
        let mut tree = flatten::flatten(image.content, &flatten)?;
        drop(image.spools);
        if args.clone && bundle.is_none() {
            let (json, root) = from_clone(tree, &args.file)?;
            settings = cloned(&json, settings)?;
            tree = root;
        }
        changed(&mut settings.config, &args.change)?;
        for text in fill(&draft, &tree, threads)? {
            report::note(quiet, &text);
        }
        let container = draft.finish(settings, args.name.as_deref())?;
        print::line(container.id())?;
    } else {
        let Some(name) = &args.image else {
            bail!("no name for the image: write `coracle import FILE NAME[:TAG]`, or --tocontainer for a container");
        };
        ensure!(args.name.is_none(), "--name is for containers: add --tocontainer, or leave it out");
        let reference: Reference = name.parse().map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        if store.image(&reference.to_string())?.is_some_and(|there| there.protected) {
            bail!("image {} is protected: lift that first with `coracle unprotect {0}`", reference.familiar());
        }
        let image = resolve(&spec, &options)?;
        print::line(&image_of(&store, image, &reference, &args.change, &options)?)?;
    }
    if args.mv {
        fs::remove_file(&args.file).with_context(|| format!("cannot remove {}", args.file.display()))?;
    }
    Ok(())
}

/// Whether a file begins as a bundle does, and no archive.
fn is_bundle(file: &Path) -> bool {
    let mut head = [0; 4];
    let opened = fs::metadata(file).ok().filter(fs::Metadata::is_file).and_then(|_| fs::File::open(file).ok());
    opened.is_some_and(|mut file| file.read_exact(&mut head).is_ok()) && sniff::is_elf(&head)
}

/// Settings as exported by us, or by udocker (an image's config in Docker's form).
fn cloned(json: &[u8], otherwise: Settings) -> anyhow::Result<Settings> {
    if let Ok(settings) = serde_json::from_slice::<Settings>(json)
        && settings.version > 0
    {
        ensure!(
            settings.version <= SETTINGS_VERSION,
            "the clone was exported by a newer Coracle (its settings have version {}): use that one",
            settings.version
        );
        let sharing = Sharing::Copy;
        return Ok(Settings { protected: false, created: 0, base: None, sharing, ..settings });
    }
    let config = docker_config(json).context("the clone's container.json cannot be understood")?;
    Ok(Settings { config, ..otherwise })
}

/// A config in any of Docker's forms: with or without layers, under `config` or `container_config`.
pub(super) fn docker_config(json: &[u8]) -> anyhow::Result<coracle_format::ImageConfig> {
    let mut value: Value = serde_json::from_slice(json)?;
    let members = value.as_object_mut().context("it is no object")?;
    if !members.contains_key("config")
        && let Some(config) = members.remove("container_config")
    {
        members.insert("config".to_owned(), config);
    }
    members.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": [] }));
    Ok(manifest::parse_config(value.to_string().as_bytes(), "container.json")?.config)
}

fn image_of(
    store: &Store,
    image: Image,
    reference: &Reference,
    changes: &[String],
    options: &Options,
) -> anyhow::Result<String> {
    let _using = store.use_blobs()?;
    let Content::Layers(layers) = &image.content else {
        bail!("a directory or a bundle cannot be imported as an image: use --tocontainer");
    };
    let mut stored = Vec::new();
    for layer in layers {
        stored.push(store.add_layer(&layer.blob, layer.compression, None, layer.diff_id.as_deref(), "the tar")?);
    }
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let mut config = image.config.clone();
    changed(&mut config, changes)?;
    let diff_ids: Vec<&String> = stored.iter().map(|layer| &layer.diff_id).collect();
    let json = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "config": in_dockers_words(&config),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let json = without_empty(json).to_string();
    let name = reference.to_string();
    Ok(store.add_image(&[name], &platform.to_string(), &stored, json.as_bytes(), None)?)
}

/// Without members that say nothing, which not every reader takes for absent.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, without_empty(value)));
            Value::Object(
                members.filter(|(_, value)| !value.is_null() && *value != json!("") && *value != json!([])).collect(),
            )
        }
        other => other,
    }
}

/// Applies instructions of a Dockerfile.
fn changed(config: &mut coracle_format::ImageConfig, changes: &[String]) -> anyhow::Result<()> {
    for change in changes {
        let (word, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
        let rest = rest.trim();
        ensure!(!rest.is_empty(), "--change {change:?}: it has nothing behind its first word");
        let words = || -> anyhow::Result<Vec<String>> {
            if rest.starts_with('[') {
                return serde_json::from_str(rest).with_context(|| format!("--change {change:?}: it is no JSON list"));
            }
            Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()])
        };
        let pair = || {
            let pair = rest.split_once('=').or_else(|| rest.split_once(' '));
            pair.with_context(|| format!("--change {change:?}: write KEY=VALUE"))
        };
        match word.to_ascii_uppercase().as_str() {
            "CMD" => config.cmd = Some(words()?),
            "ENTRYPOINT" => config.entrypoint = Some(words()?),
            "USER" => config.user = Some(rest.to_owned()),
            "WORKDIR" => config.working_dir = Some(rest.to_owned()),
            "HEALTHCHECK" => config.health = health_of(rest, change)?,
            "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
            "VOLUME" => config.volumes.push(rest.to_owned()),
            "EXPOSE" => {
                config.exposed_ports.push(if rest.contains('/') { rest.to_owned() } else { format!("{rest}/tcp") })
            }
            "LABEL" => {
                let (key, value) = pair()?;
                config.labels.insert(key.to_owned(), value.trim_matches('"').to_owned());
            }
            "ENV" => {
                let (key, value) = pair()?;
                config.env.retain(|there| there.split('=').next() != Some(key));
                config.env.push(format!("{key}={}", value.trim_matches('"')));
            }
            _ => bail!(
                "--change {change:?}: {word} is not one of CMD ENTRYPOINT ENV USER WORKDIR VOLUME EXPOSE LABEL STOPSIGNAL HEALTHCHECK"
            ),
        }
    }
    config.volumes.sort();
    config.exposed_ports.sort();
    Ok(())
}

/// `NONE`, or `[--interval=TIME…] CMD …`, as a Dockerfile has it.
fn health_of(text: &str, change: &str) -> anyhow::Result<Option<Health>> {
    let mut health = Health::default();
    let mut rest = text.trim();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let time = || parse_time(value).with_context(|| format!("--change {change:?}: {value:?} is no time"));
        match name {
            "interval" => health.interval = time()?,
            "timeout" => health.timeout = time()?,
            "start-period" => health.start_period = time()?,
            "start-interval" => health.start_interval = time()?,
            "retries" => {
                health.retries =
                    value.parse().with_context(|| format!("--change {change:?}: {value:?} is no number"))?;
            }
            _ => bail!("--change {change:?}: --{name} is no option of HEALTHCHECK"),
        }
        rest = after.trim_start();
    }
    if rest == "NONE" {
        return Ok(None);
    }
    let command = rest.strip_prefix("CMD").map(str::trim).filter(|command| !command.is_empty());
    let command = command.with_context(|| format!("--change {change:?}: write HEALTHCHECK CMD command, or NONE"))?;
    health.test = if command.starts_with('[') {
        let words: Vec<String> =
            serde_json::from_str(command).with_context(|| format!("--change {change:?}: it is no JSON list"))?;
        ["CMD".to_owned()].into_iter().chain(words).collect()
    } else {
        vec!["CMD-SHELL".to_owned(), command.to_owned()]
    };
    Ok(Some(health))
}
