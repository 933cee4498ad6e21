//! Manifests, indexes and configs as documents: what they are, what they must not be, and the config as bundles keep it.
//!
//! Types are `oci-spec`'s; Docker's v2.2 documents have the same members. What images in the wild do beyond the
//! specification (`null` for an absent member, a config without `architecture`) is mended before they are parsed.

use coracle_format::{Health, ImageConfig};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

use super::{SourceError, platform::Platform};

/// Largest manifest or index that is read: what the distribution specification asks registries to take.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest config that is read.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// How deep indexes may nest, and how many documents a search through them may read.
pub const SEARCH_LIMIT: usize = 16;

/// Media types to accept from a registry, in order of liking.
pub const ACCEPT: [&str; 5] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    // Asked for last, so that an old registry's answer can be refused in words and not by 406.
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What a digest or a tag may lead to.
#[derive(Debug, Clone)]
pub enum Document {
    /// An image manifest.
    Manifest(Box<ImageManifest>),
    /// An index of manifests or indexes.
    Index(Box<ImageIndex>),
}

/// Parses a manifest or an index.
///
/// # Errors
/// [`SourceError::Malformed`]; [`SourceError::Unsupported`] for schema 1 and for artifacts that are no images.
pub fn parse(bytes: &[u8], what: &str) -> Result<Document, SourceError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| SourceError::malformed(what, error))?;
    let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
    if value.get("schemaVersion").and_then(Value::as_u64) == Some(1)
        || media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
    {
        return Err(SourceError::Unsupported {
            what: what.to_owned(),
            why: "it is a schema 1 manifest, the form of before 2016: push the image again with a current Docker, Podman or skopeo".to_owned(),
        });
    }
    let (is_index, is_manifest) = (value.get("manifests").is_some(), value.get("layers").is_some());
    // One document must not be both, or its digest would mean two things (image-spec, GHSA-77vh-xpmg-72qh).
    if is_index && is_manifest {
        return Err(SourceError::malformed(what, "it is both a manifest and an index"));
    }
    without_nulls(&mut value, 3);
    if is_index {
        let index = serde_json::from_value(value).map_err(|error| SourceError::malformed(what, error))?;
        return Ok(Document::Index(Box::new(index)));
    }
    if !is_manifest {
        return Err(SourceError::Unsupported {
            what: what.to_owned(),
            why: match media_type.as_str() {
                "" => "it is neither an image manifest nor an index".to_owned(),
                other => format!("it is of type {other}, not an image"),
            },
        });
    }
    let manifest: ImageManifest = serde_json::from_value(value).map_err(|error| SourceError::malformed(what, error))?;
    check(&manifest, what)?;
    Ok(Document::Manifest(Box::new(manifest)))
}

/// Refuses what is a manifest but no image that we could take.
fn check(manifest: &ImageManifest, what: &str) -> Result<(), SourceError> {
    let unsupported = |why: String| Err(SourceError::Unsupported { what: what.to_owned(), why });
    let config = manifest.config().media_type().to_string();
    if !matches!(
        config.as_str(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    ) {
        let kind = manifest.artifact_type().as_ref().map_or(config, ToString::to_string);
        return unsupported(format!("it is an artifact of type {kind}, not an image: nothing in it can be run"));
    }
    if crate::store::digest::Hasher::like(manifest.config().digest()).is_none() {
        return unsupported(format!(
            "its config is named by {}, an unknown kind of digest",
            manifest.config().digest()
        ));
    }
    if manifest.layers().len() > 10_000 {
        return unsupported(format!("it has {} layers", manifest.layers().len()));
    }
    for layer in manifest.layers() {
        let kind = layer.media_type().to_string();
        if layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
            return unsupported(format!(
                "its layer {} is to be fetched from another place (\"foreign\" layers are for Windows): push the image with its layers",
                layer.digest()
            ));
        }
        if kind.ends_with("+encrypted") {
            return unsupported(format!(
                "its layer {} is encrypted: decrypt the image with skopeo first",
                layer.digest()
            ));
        }
        if !is_layer(layer.media_type(), &kind) {
            return unsupported(format!("its layer {} is of type {kind}, not a file system", layer.digest()));
        }
        if crate::store::digest::Hasher::like(layer.digest()).is_none() {
            return unsupported(format!("a layer is named by {}, an unknown kind of digest", layer.digest()));
        }
    }
    Ok(())
}

fn is_layer(media_type: &MediaType, text: &str) -> bool {
    matches!(
        media_type,
        MediaType::ImageLayer
            | MediaType::ImageLayerGzip
            | MediaType::ImageLayerZstd
            | MediaType::ImageLayerNonDistributable
            | MediaType::ImageLayerNonDistributableGzip
            | MediaType::ImageLayerNonDistributableZstd
    ) || text.starts_with("application/vnd.docker.image.rootfs.diff.tar")
        || text.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
        || text == "application/x-tar"
}

/// An image's config, and the digests of its uncompressed layers.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to run it.
    pub config: ImageConfig,
    /// `rootfs.diff_ids`.
    pub diff_ids: Vec<String>,
}

/// Parses a config.
///
/// # Errors
/// [`SourceError::Malformed`].
pub fn parse_config(bytes: &[u8], what: &str) -> Result<Config, SourceError> {
    let malformed = |why: String| SourceError::malformed(what, why);
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    without_nulls(&mut value, 1);
    if let Some(members) = value.as_object_mut() {
        for member in ["architecture", "os"] {
            members.entry(member).or_insert_with(|| Value::from(""));
        }
        // Only told, never used, and often odd.
        members.remove("history");
        members.remove("created");
    }
    let health = health_of(&value);
    let parsed: ImageConfiguration = serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
    let mut config = ImageConfig {
        architecture: parsed.architecture().to_string(),
        os: parsed.os().to_string(),
        variant: parsed.variant().clone().filter(|variant| !variant.is_empty()),
        ..ImageConfig::default()
    };
    if let Some(run) = parsed.config() {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        config.user = text(run.user());
        config.env = run.env().clone().unwrap_or_default();
        config.entrypoint = run.entrypoint().clone();
        config.cmd = run.cmd().clone();
        config.working_dir = text(run.working_dir());
        config.volumes = sorted(run.volumes());
        config.exposed_ports = sorted(run.exposed_ports());
        config.labels = run.labels().clone().unwrap_or_default().into_iter().collect();
        config.stop_signal = text(run.stop_signal());
        config.health = health;
    }
    let words =
        [config.env.as_slice(), config.entrypoint.as_deref().unwrap_or(&[]), config.cmd.as_deref().unwrap_or(&[])];
    if words.concat().iter().any(|word| word.contains('\0')) {
        return Err(malformed("an argument or variable holds a NUL byte".to_owned()));
    }
    let diff_ids = parsed.rootfs().diff_ids().clone();
    if let Some(bad) = diff_ids.iter().find(|id| crate::store::digest::parse(id).is_none()) {
        return Err(malformed(format!("{bad:?} is no digest of a layer")));
    }
    Ok(Config { config, diff_ids })
}

/// `Healthcheck`, which Docker has and OCI does not know. One that is not understood is none.
fn health_of(config: &Value) -> Option<Health> {
    let check = config.get("config")?.get("Healthcheck")?;
    let test: Vec<String> = serde_json::from_value(check.get("Test")?.clone()).ok()?;
    let number = |name: &str| check.get(name).and_then(Value::as_u64).unwrap_or(0);
    (!test.is_empty() && test[0] != "NONE").then(|| Health {
        interval: number("Interval"),
        timeout: number("Timeout"),
        start_period: number("StartPeriod"),
        start_interval: number("StartInterval"),
        retries: number("Retries"),
        test,
    })
}

/// Checks that a config belongs to the layers, and to a platform that was asked for and can be run.
///
/// # Errors
/// [`SourceError::Malformed`], [`SourceError::NotRunnable`], [`SourceError::NoPlatform`].
pub fn check_config(config: &Config, layers: usize, asked: Option<&Platform>, image: &str) -> Result<(), SourceError> {
    let of = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let host = Platform::host();
    let own = Platform {
        os: of(&config.config.os, &host.os),
        architecture: of(&config.config.architecture, &host.architecture),
        variant: config.config.variant.clone(),
    };
    if let Some(asked) = asked
        && !asked.accepts(&config.config.os, &config.config.architecture)
    {
        return Err(SourceError::NoPlatform { image: image.to_owned(), wanted: asked.clone(), has: vec![own] });
    }
    if !own.runnable() {
        return Err(SourceError::NotRunnable { wanted: own, has: Vec::new() });
    }
    if config.diff_ids.len() != layers {
        return Err(SourceError::malformed(
            format!("the config of {image}"),
            format!("it names {} layers, the manifest {layers}", config.diff_ids.len()),
        ));
    }
    Ok(())
}

/// Digests of layers, for provenance.
#[must_use]
pub fn layer_digests(layers: &[Descriptor]) -> Vec<String> {
    layers.iter().map(|layer| layer.digest().to_string()).collect()
}

/// Takes `null` members for absent ones, down to a depth: Docker writes them, `oci-spec` does not read them. Deeper down a
/// key may be what counts (`"Volumes": {"/data": null}`).
fn without_nulls(value: &mut Value, depth: u32) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            if depth > 0 {
                members.values_mut().for_each(|member| without_nulls(member, depth - 1));
            }
        }
        Value::Array(elements) if depth > 0 => {
            elements.iter_mut().for_each(|element| without_nulls(element, depth - 1))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(config: &str, layer: &Value) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "annotations": null, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": config, "digest": DIGEST, "size": 2, "urls": null},
            "layers": [layer],
        }))
        .expect("JSON")
    }

    fn layer(kind: &str) -> Value {
        serde_json::json!({"mediaType": kind, "digest": DIGEST, "size": 0, "annotations": null})
    }

    const OCI: &str = "application/vnd.oci.image.config.v1+json";

    fn refusal(bytes: &[u8]) -> String {
        parse(bytes, "x").expect_err("refused").to_string()
    }

    #[test]
    fn images_of_both_families_parse() {
        for (config, kind) in [
            (OCI, "application/vnd.oci.image.layer.v1.tar"),
            (OCI, "application/vnd.oci.image.layer.v1.tar+gzip"),
            (OCI, "application/vnd.oci.image.layer.v1.tar+zstd"),
            ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
            ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar"),
        ] {
            let parsed = parse(&manifest(config, &layer(kind)), "x").expect("an image");
            assert!(matches!(parsed, Document::Manifest(_)), "{kind}");
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert!(refusal(br#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
        assert!(refusal(&manifest("application/vnd.cncf.helm.config.v1+json", &layer("x/y"))).contains("helm"));
        assert!(refusal(&manifest(OCI, &layer("application/vnd.in-toto+json"))).contains("in-toto"));
        assert!(
            refusal(&manifest(OCI, &layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")))
                .contains("encrypted")
        );
        let mut foreign = layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        foreign["urls"] = serde_json::json!(["https://example.com/x"]);
        assert!(refusal(&manifest(OCI, &foreign)).contains("foreign"));
        assert!(refusal(br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#).contains("both"));
        assert!(refusal(br#"{"schemaVersion":2}"#).contains("neither"));
        assert!(refusal(b"<html>").contains("cannot read x"));
        assert!(refusal(br#"{"schemaVersion":2,"layers":7}"#).contains("cannot read x"));
        let mut odd = layer("application/vnd.oci.image.layer.v1.tar");
        odd["digest"] = serde_json::json!("md5:d41d8cd98f00b204e9800998ecf8427e");
        assert!(refusal(&manifest(OCI, &odd)).contains("unknown kind of digest"));
    }

    #[test]
    fn a_config_with_dockers_oddities() {
        let bytes = serde_json::to_vec(&serde_json::json!({
            "created": "yesterday", "history": [{"created": null}],
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
            "config": {
                "User": "", "Env": null, "Entrypoint": null, "Cmd": ["/bin/sh"], "ExposedPorts": {"80/tcp": {}, "22/tcp": {}},
                "Volumes": {"/data": {}}, "WorkingDir": "", "Labels": null, "OnBuild": null, "StopSignal": "SIGINT",
            },
        }))
        .expect("JSON");
        let config = parse_config(&bytes, "x").expect("a config");
        assert_eq!(config.config.cmd.as_deref(), Some(&["/bin/sh".to_owned()][..]));
        assert_eq!(config.config.exposed_ports, ["22/tcp", "80/tcp"]);
        assert_eq!(config.config.volumes, ["/data"]);
        assert_eq!((config.config.user, config.config.working_dir), (None, None));
        assert_eq!(config.diff_ids, [DIGEST]);
    }

    #[test]
    fn a_config_for_another_machine_is_refused() {
        let config = |arch: &str| {
            let json =
                serde_json::json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
            parse_config(json.to_string().as_bytes(), "x").expect("a config")
        };
        assert!(check_config(&config("amd64"), 0, None, "x").is_ok());
        assert!(check_config(&config("386"), 0, None, "x").is_ok());
        assert!(check_config(&config(""), 0, Some(&Platform::host()), "x").is_ok());
        assert!(matches!(check_config(&config("arm64"), 0, None, "x"), Err(SourceError::NotRunnable { .. })));
        let asked = "linux/amd64".parse().expect("a platform");
        assert!(matches!(check_config(&config("386"), 0, Some(&asked), "x"), Err(SourceError::NoPlatform { .. })));
        assert!(matches!(check_config(&config("amd64"), 1, None, "x"), Err(SourceError::Malformed { .. })));
    }
}
