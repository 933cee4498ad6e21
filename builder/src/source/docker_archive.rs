//! What `docker save` and `podman save` write: `manifest.json`, a config and layers for each image, under any names.

use coracle_format::{Defaults, ImageConfig, Provenance};
use serde::Deserialize;

use super::{
    Content, Image, Layer, SourceError,
    files::Files,
    load::{self, Loaded},
    manifest,
    platform::Platform,
    reference::Reference,
};
use crate::store::digest::{self, Digest};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Entry {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or(&[])
    }

    fn layers(&self) -> &[String] {
        self.layers.as_deref().unwrap_or(&[])
    }
}

/// The image of that name in the archive, or its only one.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn image(
    files: &Files,
    wanted: Option<&str>,
    platform: Option<&Platform>,
    source: String,
) -> Result<Image, SourceError> {
    let Some(bytes) = files.read("manifest.json", manifest::MANIFEST_LIMIT)? else {
        // A layout without Docker's own table, which new versions of Docker could come to write.
        if files.find("index.json")?.is_some() {
            return super::layout::image(files, wanted, platform, source);
        }
        return Err(SourceError::malformed(files.name(), no_manifest(files)?));
    };
    let what = format!("manifest.json in {}", files.name());
    let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|error| SourceError::malformed(&what, error))?;
    let entry = choose(files, &entries, wanted)?;
    let Parts { config, config_digest: actual, layers, .. } = parts(files, entry, platform, &source)?;
    let provenance = Provenance {
        changed: None,
        source,
        manifest: None,
        config: Some(actual),
        layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
        ..Provenance::default()
    };
    Ok(Image {
        config,
        content: Content::Layers(layers),
        provenance,
        defaults: Defaults::default(),
        spools: files.spools(),
    })
}

/// What an entry leads to.
struct Parts {
    config: ImageConfig,
    config_digest: String,
    config_bytes: Vec<u8>,
    layers: Vec<Layer>,
}

fn parts(files: &Files, entry: &Entry, platform: Option<&Platform>, source: &str) -> Result<Parts, SourceError> {
    let config_bytes = files.read(&entry.config, manifest::CONFIG_LIMIT)?.ok_or_else(|| {
        SourceError::malformed(files.name(), format!("its config {} is missing: it was cut short", entry.config))
    })?;
    let what = format!("the config {} in {}", entry.config, files.name());
    let config_digest = digest::sha256(&config_bytes);
    if let Some(expected) = named(&entry.config)
        && expected.as_ref() != config_digest
    {
        return Err(SourceError::Digest { what, expected: expected.to_string(), actual: config_digest });
    }
    let config = manifest::parse_config(&config_bytes, &what)?;
    manifest::check_config(&config, entry.layers().len(), platform, source)?;
    let layers = entry
        .layers()
        .iter()
        .zip(&config.diff_ids)
        .map(|(name, diff_id)| {
            // Newer Dockers name a layer by its digest; a legacy `ID/layer.tar` is checked by its diff_id alone.
            let blob_digest = name.starts_with("blobs/").then(|| named(name)).flatten();
            files.layer(name, blob_digest.as_ref(), Some(diff_id))
        })
        .collect::<Result<_, _>>()?;
    Ok(Parts { config: config.config, config_digest, config_bytes, layers })
}

/// Every image in the archive.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn all(files: &Files, platform: Option<&Platform>) -> Result<Vec<Loaded>, SourceError> {
    let bytes = files.must_read("manifest.json", manifest::MANIFEST_LIMIT)?;
    let what = format!("manifest.json in {}", files.name());
    let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|error| SourceError::malformed(&what, error))?;
    if entries.is_empty() {
        return Err(SourceError::malformed(what, "it names no image"));
    }
    let load = |entry: &Entry| {
        let parts = parts(files, entry, platform, &files.name())?;
        Ok(Loaded {
            names: entry.tags().to_vec(),
            manifest: None,
            platform: load::platform_of(&parts.config),
            config: (parts.config_digest, parts.config_bytes),
            layers: parts.layers,
        })
    };
    entries.iter().map(load).collect()
}

fn choose<'entries>(
    files: &Files,
    entries: &'entries [Entry],
    wanted: Option<&str>,
) -> Result<&'entries Entry, SourceError> {
    // An image without a tag is named by its config, as Docker does.
    let names = || -> Vec<String> {
        entries
            .iter()
            .flat_map(|entry| match entry.tags() {
                [] => {
                    vec![format!("@{}", entry.config.trim_end_matches(".json").rsplit('/').next().unwrap_or_default())]
                }
                tags => tags.to_vec(),
            })
            .collect()
    };
    match (wanted, entries) {
        (_, []) => Err(SourceError::malformed(files.name(), "its manifest.json names no image")),
        (None, [entry]) => Ok(entry),
        (None, _) => Err(SourceError::Several {
            what: files.name(),
            names: names(),
            hint: format!("docker-archive:{}:NAME", files.name()),
        }),
        (Some(wanted), _) => entries.iter().find(|entry| fits(entry, wanted)).ok_or_else(|| SourceError::NotThere {
            what: files.name(),
            wanted: wanted.to_owned(),
            names: names(),
        }),
    }
}

/// Whether an entry is meant by a name: as written, in full, or `@` and the beginning of its config's digest.
fn fits(entry: &Entry, wanted: &str) -> bool {
    if let Some(id) = wanted.strip_prefix('@') {
        let id = id.strip_prefix("sha256:").unwrap_or(id);
        let own = entry.config.rsplit('/').next().unwrap_or_default();
        return id.len() >= 6 && own.trim_start_matches("sha256:").starts_with(id);
    }
    let full = |name: &str| name.parse::<Reference>().ok();
    entry.tags().iter().any(|tag| tag == wanted || (full(tag).is_some() && full(tag) == full(wanted)))
}

/// The digest in a file's name: `HEX.json`, `sha256:HEX`, `blobs/sha256/HEX`.
fn named(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let hex = last.strip_prefix("sha256:").unwrap_or(last);
    let hex = hex.strip_suffix(".json").or_else(|| hex.strip_suffix(".tar")).unwrap_or(hex);
    digest::parse(&format!("sha256:{hex}"))
}

fn no_manifest(files: &Files) -> Result<String, SourceError> {
    Ok(if files.find("repositories")?.is_some() {
        "it was saved by a Docker of before 2016, without manifest.json: load it into a current Docker or Podman and save it again"
            .to_owned()
    } else {
        "it has no manifest.json: it is no image archive; a tar of a root file system is rootfs:FILE".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_full_and_in_short() {
        let entry = Entry {
            config: "0123456789abcdef.json".into(),
            repo_tags: Some(vec!["alpine:3.20".into(), "docker.io/library/b:latest".into()]),
            layers: None,
        };
        for name in ["alpine:3.20", "docker.io/library/alpine:3.20", "b", "b:latest", "@012345", "@sha256:0123456789"] {
            assert!(fits(&entry, name), "{name}");
        }
        for name in ["alpine", "c", "@0123", "@123456", "b:1"] {
            assert!(!fits(&entry, name), "{name}");
        }
    }

    #[test]
    fn digests_in_names() {
        let hex = "a".repeat(64);
        for name in
            [format!("{hex}.json"), format!("sha256:{hex}"), format!("blobs/sha256/{hex}"), format!("{hex}.tar")]
        {
            assert_eq!(named(&name).map(|digest| digest.digest().to_owned()), Some(hex.clone()), "{name}");
        }
        assert!(named("layer.tar").is_none() && named("config.json").is_none());
    }
}
