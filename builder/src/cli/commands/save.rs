//! `coracle save`: images of the store as an archive that Docker, Podman and skopeo load.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    cli::{
        args::{ArchiveForm, SaveArgs},
        source, stored,
    },
    source::{Compression, Reference, manifest, open_store, sniff},
    store::{Store, digest},
};

/// One image to be saved.
struct Image {
    /// The reference in full, if it has a tag.
    name: Option<String>,
    /// Digest of its manifest.
    manifest: String,
    /// Digests of config and layers.
    blobs: Vec<String>,
}

/// Writes the archive.
pub(super) fn run(args: &SaveArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::bare(quiet)?;
    let store = open_store(&options)?;
    // Nothing is collected while it is read.
    let _using = store.use_blobs()?;
    let mut images: Vec<Image> = Vec::new();
    for given in &args.images {
        let record = stored::find(&store, given)?;
        let (_, pulled) = stored::platform(&record, args.platform.as_deref())?;
        let blobs = store.blobs_of(&pulled.manifest)?;
        let blobs = blobs.with_context(|| format!("{given}: its manifest is gone: pull or load it again"))?;
        for blob in &blobs {
            store.must_have(blob, given)?;
        }
        let tagged = record.reference.parse::<Reference>().is_ok_and(|reference| reference.digest.is_none());
        let name = tagged.then(|| record.reference.clone());
        images.push(Image { name, manifest: pulled.manifest.clone(), blobs });
    }
    stored::write_out(args.output.as_deref(), |out| {
        let mut tar = tar::Builder::new(out);
        match args.format {
            ArchiveForm::DockerArchive => docker(&store, &images, &options.scratch, &mut tar)?,
            ArchiveForm::OciArchive => oci(&store, &images, &mut tar)?,
        }
        tar.finish().context("cannot write the archive")
    })
}

/// A member of the archive: no date, no owner, so that the same images give the same bytes.
fn add(tar: &mut tar::Builder<&mut dyn Write>, name: &str, size: u64, from: impl io::Read) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    tar.append_data(&mut header, name, from).with_context(|| format!("cannot write {name} to the archive"))
}

/// Directories on the way: skopeo, as an ordinary user, cannot make them by itself.
fn add_directory(tar: &mut tar::Builder<&mut dyn Write>, name: &str) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, name, io::empty()).with_context(|| format!("cannot write {name} to the archive"))
}

fn add_json(tar: &mut tar::Builder<&mut dyn Write>, name: &str, value: &Value) -> anyhow::Result<()> {
    let bytes = value.to_string();
    add(tar, name, bytes.len() as u64, bytes.as_bytes())
}

/// The digits of a digest.
fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// What `docker save` wrote for ten years, which everybody reads: `manifest.json`, configs, and layers as plain tars.
fn docker(
    store: &Store,
    images: &[Image],
    scratch: &std::path::Path,
    tar: &mut tar::Builder<&mut dyn Write>,
) -> anyhow::Result<()> {
    let mut written: BTreeSet<String> = BTreeSet::new();
    let mut entries: Vec<Value> = Vec::new();
    for image in images {
        let (config, layers) = image.blobs.split_first().context("an image without a config")?;
        let what = image.name.as_deref().unwrap_or(config);
        let bytes = fs::read(store.must_have(config, what)?)?;
        ensure!(digest::sha256(&bytes) == *config, "the config {config} of {what} is damaged: pull or load it again");
        let diff_ids = manifest::parse_config(&bytes, what)?.diff_ids;
        ensure!(diff_ids.len() == layers.len(), "{what}: its config does not fit its layers: pull or load it again");
        let config_name = format!("{}.json", hex(config));
        if written.insert(config_name.clone()) {
            add(tar, &config_name, bytes.len() as u64, bytes.as_slice())?;
        }
        let mut names = Vec::new();
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            let name = format!("{}.tar", hex(diff_id));
            if written.insert(name.clone()) {
                let (mut plain, size) = plain(store, layer, diff_id, what, scratch)?;
                plain.rewind()?;
                add(tar, &name, size, plain.take(size))?;
            }
            names.push(name);
        }
        let tag = image.name.as_ref();
        match entries.iter_mut().find(|entry| entry["Config"] == config_name) {
            Some(entry) => {
                if let (Some(tags), Some(tag)) = (entry["RepoTags"].as_array_mut(), tag)
                    && !tags.iter().any(|there| there == tag)
                {
                    tags.push(tag.clone().into());
                }
            }
            None => {
                let tags: Vec<&String> = tag.into_iter().collect();
                entries.push(json!({ "Config": config_name, "RepoTags": tags, "Layers": names }));
            }
        }
    }
    add_json(tar, "manifest.json", &entries.into())
}

/// A layer as a plain tar, checked: the blob itself, or a temporary file without a name.
fn plain(
    store: &Store,
    layer: &str,
    diff_id: &str,
    what: &str,
    scratch: &std::path::Path,
) -> anyhow::Result<(File, u64)> {
    let path = store.must_have(layer, what)?;
    let file = File::open(&path)?;
    let size = file.metadata()?.len();
    let head = sniff::head_at(&file, 0, size)?;
    let damaged =
        || format!("the layer {layer} of {what} is damaged: remove it with `coracle rmi`, and pull or load it again");
    let like = digest::parse(diff_id).with_context(damaged)?;
    match sniff::compression(&head) {
        Compression::None => {
            ensure!(digest::of_file(&path, 0, size, &like)?.as_deref() == Some(diff_id), "{}", damaged());
            Ok((file, size))
        }
        compression => {
            let mut from = sniff::decoder(io::BufReader::new(file), compression).with_context(damaged)?;
            let mut to = tempfile::tempfile_in(scratch)
                .with_context(|| format!("cannot write a temporary file in {}", scratch.display()))?;
            let mut hasher = digest::Hasher::like(&like).with_context(damaged)?;
            let (mut buffer, mut size) = (vec![0; 1 << 18], 0);
            loop {
                let read = from.read(&mut buffer).with_context(damaged)?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                to.write_all(&buffer[..read])
                    .with_context(|| format!("cannot write a temporary file in {}", scratch.display()))?;
                size += read as u64;
            }
            ensure!(hasher.finish() == diff_id, "{}", damaged());
            Ok((to, size))
        }
    }
}

/// An image layout: blobs as they are, so manifests keep their digests.
fn oci(store: &Store, images: &[Image], tar: &mut tar::Builder<&mut dyn Write>) -> anyhow::Result<()> {
    add_json(tar, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    add_directory(tar, "blobs/")?;
    let blobs = images.iter().flat_map(|image| image.blobs.iter().chain([&image.manifest]));
    let algorithms: BTreeSet<&str> = blobs.filter_map(|blob| Some(blob.split_once(':')?.0)).collect();
    for algorithm in algorithms {
        add_directory(tar, &format!("blobs/{algorithm}/"))?;
    }
    let mut written: BTreeSet<&str> = BTreeSet::new();
    let mut entries = Vec::new();
    for image in images {
        let what = image.name.as_deref().unwrap_or(&image.manifest);
        for blob in image.blobs.iter().chain([&image.manifest]) {
            if written.insert(blob) {
                let path = store.must_have(blob, what)?;
                let size = fs::metadata(&path)?.len();
                let like = digest::parse(blob).context("a digest that is none")?;
                ensure!(
                    digest::of_file(&path, 0, size, &like)?.as_deref() == Some(blob),
                    "{blob} of {what} is damaged: pull or load it again"
                );
                add(tar, &format!("blobs/{}/{}", like.algorithm(), like.digest()), size, File::open(&path)?)?;
            }
        }
        let bytes = fs::read(store.must_have(&image.manifest, what)?)?;
        let stated: Value = serde_json::from_slice(&bytes).context("a manifest that is none")?;
        let media_type = stated["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let mut entry = json!({ "mediaType": media_type, "digest": image.manifest, "size": bytes.len() });
        if let Some(name) = &image.name {
            entry["annotations"] =
                json!({ "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name });
        }
        entries.push(entry);
    }
    add_json(
        tar,
        "index.json",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }),
    )
}
