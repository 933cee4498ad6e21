//! OCI image layouts, as a directory or in a tar: `index.json`, and blobs by digest.

use coracle_format::{Defaults, Provenance};
use oci_spec::image::{Descriptor, ImageIndex};

use super::{
    Content, Image, SourceError,
    files::Files,
    load::{self, Loaded},
    manifest::{self, Document},
    platform::{self, Platform},
};
use crate::store::digest::{self, Digest};

/// Annotations that may hold an entry's name, the specification's first.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// The image that a layout holds under a tag (or `@sha256:…`), for a platform.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn image(
    files: &Files,
    tag: Option<&str>,
    wanted: Option<&Platform>,
    source: String,
) -> Result<Image, SourceError> {
    let what = format!("index.json in {}", files.name());
    let bytes = files
        .read("index.json", manifest::MANIFEST_LIMIT)?
        .ok_or_else(|| SourceError::malformed(files.name(), "it has no index.json, so it is no OCI image layout"))?;
    let Document::Index(index) = manifest::parse(&bytes, &what)? else {
        return Err(SourceError::malformed(what, "it is no index"));
    };
    let start =
        match tag {
            Some(tag) if tag.starts_with('@') => Start::Blob(digest::parse(&tag[1..]).ok_or_else(|| {
                SourceError::Name { given: source.clone(), why: format!("{} is no digest", &tag[1..]) }
            })?),
            tag => choose(files, &index, tag)?,
        };
    let default = Platform::host();
    let (manifest, manifest_digest) = descend(files, start, wanted.unwrap_or(&default), &source)?;
    let config_name = blob_name(manifest.config().digest());
    let config_bytes = read(files, manifest.config().digest(), manifest::CONFIG_LIMIT)?;
    let config = manifest::parse_config(&config_bytes, &format!("the config {config_name} in {}", files.name()))?;
    manifest::check_config(&config, manifest.layers().len(), wanted, &source)?;
    let layers = manifest
        .layers()
        .iter()
        .zip(&config.diff_ids)
        .map(|(layer, diff_id)| files.layer(&blob_name(layer.digest()), Some(layer.digest()), Some(diff_id)))
        .collect::<Result<_, _>>()?;
    let provenance = Provenance {
        changed: None,
        source,
        manifest: Some(manifest_digest),
        config: Some(manifest.config().digest().to_string()),
        layers: manifest::layer_digests(manifest.layers()),
        ..Provenance::default()
    };
    Ok(Image {
        config: config.config,
        content: Content::Layers(layers),
        provenance,
        defaults: Defaults::default(),
        spools: files.spools(),
    })
}

/// Every image that `index.json` names, for a platform. One that is not for it is left out if others are.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn all(files: &Files, wanted: Option<&Platform>) -> Result<Vec<Loaded>, SourceError> {
    let what = format!("index.json in {}", files.name());
    let bytes = files.must_read("index.json", manifest::MANIFEST_LIMIT)?;
    let Document::Index(index) = manifest::parse(&bytes, &what)? else {
        return Err(SourceError::malformed(what, "it is no index"));
    };
    let default = Platform::host();
    let mut images: Vec<Loaded> = Vec::new();
    let mut refused = None;
    for entry in index.manifests() {
        let mut alone = index.as_ref().clone();
        alone.set_manifests(vec![entry.clone()]);
        let found = descend(files, Start::Index(Box::new(alone)), wanted.unwrap_or(&default), &files.name());
        let (manifest, digest) = match found {
            Ok(found) => found,
            Err(error @ SourceError::NoPlatform { .. }) => {
                refused.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(known) =
            images.iter_mut().find(|image| image.manifest.as_ref().is_some_and(|known| known.0 == digest))
        {
            known.names.extend(name(entry));
            continue;
        }
        let parsed = digest::parse(&digest).ok_or_else(|| SourceError::malformed(&what, "a digest that is none"))?;
        let config_bytes = read(files, manifest.config().digest(), manifest::CONFIG_LIMIT)?;
        let config = manifest::parse_config(&config_bytes, &format!("a config in {}", files.name()))?;
        manifest::check_config(&config, manifest.layers().len(), wanted, &files.name())?;
        let layers = manifest.layers().iter().zip(&config.diff_ids);
        let layers =
            layers.map(|(layer, diff_id)| files.layer(&blob_name(layer.digest()), Some(layer.digest()), Some(diff_id)));
        images.push(Loaded {
            names: name(entry).into_iter().collect(),
            manifest: Some((digest, read(files, &parsed, manifest::MANIFEST_LIMIT)?)),
            config: (manifest.config().digest().to_string(), config_bytes),
            layers: layers.collect::<Result<_, _>>()?,
            platform: load::platform_of(&config.config),
        });
    }
    match (images.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(SourceError::malformed(what, "it names no image")),
        (false, _) => Ok(images),
    }
}

/// Where the search for a manifest begins.
enum Start {
    Index(Box<ImageIndex>),
    Blob(Digest),
}

/// What a tag means in `index.json`; without one, the only image.
fn choose(files: &Files, index: &ImageIndex, tag: Option<&str>) -> Result<Start, SourceError> {
    let mut names: Vec<String> = index.manifests().iter().filter_map(name).collect();
    names.sort();
    names.dedup();
    let some = |entries: Vec<&Descriptor>| {
        let mut chosen = index.clone();
        chosen.set_manifests(entries.into_iter().cloned().collect());
        Start::Index(Box::new(chosen))
    };
    if let Some(tag) = tag {
        let fits = |entry: &&Descriptor| {
            let notes = entry.annotations().as_ref();
            NAMES.iter().filter_map(|key| notes?.get(*key)).any(|name| name == tag || ends_with_tag(name, tag))
        };
        let entries: Vec<_> = index.manifests().iter().filter(fits).collect();
        if entries.is_empty() {
            return Err(SourceError::NotThere { what: files.name(), wanted: tag.to_owned(), names });
        }
        return Ok(some(entries));
    }
    match index.manifests().len() {
        0 => Err(SourceError::malformed(files.name(), "its index.json names no image")),
        // Unnamed entries are one image's platforms.
        _ if names.len() <= 1 => Ok(some(index.manifests().iter().collect())),
        _ => Err(SourceError::Several { what: files.name(), names, hint: format!("oci:{}:NAME", files.name()) }),
    }
}

/// Whether a full name (`docker.io/library/alpine:3.20`) carries the tag (`3.20`).
fn ends_with_tag(name: &str, tag: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, last)| last == tag && !last.contains('/'))
}

fn name(entry: &Descriptor) -> Option<String> {
    let notes = entry.annotations().as_ref()?;
    NAMES.iter().find_map(|key| notes.get(*key)).cloned()
}

/// Goes down through indexes to the wanted platform's manifest.
fn descend(
    files: &Files,
    start: Start,
    wanted: &Platform,
    image: &str,
) -> Result<(oci_spec::image::ImageManifest, String), SourceError> {
    let mut has = Vec::new();
    let mut open: Vec<Digest> = Vec::new();
    let mut push = |index: &ImageIndex, open: &mut Vec<Digest>| {
        let (found, offers) = platform::candidates(index, wanted);
        has.extend(offers);
        open.extend(found.into_iter().rev().map(|entry| entry.digest().clone()));
    };
    match start {
        Start::Index(index) => push(&index, &mut open),
        Start::Blob(digest) => open.push(digest),
    }
    for _ in 0..manifest::SEARCH_LIMIT {
        let Some(digest) = open.pop() else { break };
        let bytes = read(files, &digest, manifest::MANIFEST_LIMIT)?;
        match manifest::parse(&bytes, &format!("{} in {}", blob_name(&digest), files.name()))? {
            Document::Manifest(manifest) => return Ok((*manifest, digest.to_string())),
            Document::Index(index) => push(&index, &mut open),
        }
    }
    has.sort();
    has.dedup();
    Err(SourceError::NoPlatform { image: image.to_owned(), wanted: wanted.clone(), has })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn read(files: &Files, digest: &Digest, limit: u64) -> Result<Vec<u8>, SourceError> {
    let name = blob_name(digest);
    let what = format!("{name} in {}", files.name());
    let Some(mut hasher) = digest::Hasher::like(digest) else {
        return Err(SourceError::Unsupported { what, why: "it is named by an unknown kind of digest".to_owned() });
    };
    let bytes = files.read(&name, limit)?.ok_or_else(|| {
        SourceError::malformed(files.name(), format!("it names {digest} and does not hold it: was it copied whole?"))
    })?;
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == digest.as_ref() {
        Ok(bytes)
    } else {
        Err(SourceError::Digest { what, expected: digest.to_string(), actual })
    }
}
