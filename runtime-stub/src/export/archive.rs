//! An archive that Docker, podman and skopeo load, with the image's config.
//!
//! The tree is one layer, as a plain tar: what every reader of such archives takes, whatever its age. Nothing is written
//! to disk, so the tree is read twice: a layer's digest and length come before its bytes.

use std::{
    io::{self, Write},
    path::Path,
};

use coracle_format::{Content, Entry, Kind, Manifest, Time, hex, sha256, tar};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Form, Tree, stream};
use crate::{actions::ActionError, open::Bundle};

/// Writes the archive to standard output.
///
/// # Errors
/// [`ActionError`]. Standard output may have got a part of it by then.
pub(super) fn write(bundle: &Bundle, tree: &Tree, form: Form) -> Result<(), ActionError> {
    let layer = measure(bundle, tree)?;
    let config = config(bundle.manifest(), &layer.digest).to_string().into_bytes();
    let config_digest = hex(&sha256(&config));
    let tag = tag(bundle.path());
    let mut stdout = io::stdout().lock();
    let mut archive = Archive { out: &mut stdout };
    let written = match form {
        Form::Docker => {
            let layer_name = format!("{}.tar", layer.digest);
            let config_name = format!("{config_digest}.json");
            let list = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": [layer_name] }]);
            archive
                .file(&config_name, &config)
                .and_then(|()| archive.head(&layer_name, layer.len))
                .map_err(unwritten)
                .and_then(|()| archive.layer(bundle, tree, &layer))
                .and_then(|()| archive.file("manifest.json", list.to_string().as_bytes()).map_err(unwritten))
        }
        Form::Oci | Form::Bundle => {
            let manifest = manifest(&config, &config_digest, &layer).to_string().into_bytes();
            let manifest_digest = hex(&sha256(&manifest));
            let list = list(&manifest, &manifest_digest, &tag);
            archive
                .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
                .and_then(|()| archive.directory("blobs"))
                .and_then(|()| archive.directory("blobs/sha256"))
                .and_then(|()| archive.file(&format!("blobs/sha256/{config_digest}"), &config))
                .and_then(|()| archive.file(&format!("blobs/sha256/{manifest_digest}"), &manifest))
                .and_then(|()| archive.head(&format!("blobs/sha256/{}", layer.digest), layer.len))
                .map_err(unwritten)
                .and_then(|()| archive.layer(bundle, tree, &layer))
                .and_then(|()| archive.file("index.json", list.to_string().as_bytes()).map_err(unwritten))
        }
    };
    written.and_then(|()| archive.end().map_err(unwritten))
}

fn unwritten(source: io::Error) -> ActionError {
    ActionError::Write { path: "standard output".into(), source }
}

/// The payload as a layer.
struct Layer {
    digest: String,
    len: u64,
}

fn measure(bundle: &Bundle, tree: &Tree) -> Result<Layer, ActionError> {
    let (mut hasher, mut len) = (Sha256::new(), 0);
    stream::each(bundle, tree, |plain| {
        hasher.update(plain);
        len += plain.len() as u64;
        Ok(())
    })?;
    Ok(Layer { digest: hex(&hasher.finalize().into()), len })
}

/// What the image is to be called: as the bundle's file, in the letters that a name may have.
fn tag(bundle: &Path) -> String {
    let stem = bundle.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = stem.strip_suffix(".run").unwrap_or(&stem);
    let mut name = String::new();
    for char in stem.chars() {
        let plain = char.is_ascii_lowercase() || char.is_ascii_digit();
        // Separators stand alone, and between letters.
        if plain || (!name.is_empty() && !name.ends_with(['.', '-', '_'])) {
            name.push(if plain || ".-_".contains(char) { char } else { '-' });
        }
    }
    let name = name.trim_end_matches(['.', '-', '_']);
    format!("{}:latest", if name.is_empty() { "image" } else { name })
}

/// The image's config (image-spec, config.md; `Healthcheck` is Docker's).
fn config(manifest: &Manifest, diff_id: &str) -> Value {
    let from = &manifest.config;
    let mut run = Map::new();
    let mut add = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        if !empty {
            run.insert(name.to_owned(), value);
        }
    };
    let set = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>();
    add("User", json!(from.user));
    add("Env", json!(from.env));
    add("Entrypoint", json!(from.entrypoint));
    add("Cmd", json!(from.cmd));
    add("WorkingDir", json!(from.working_dir));
    add("Volumes", set(&from.volumes).into());
    add("ExposedPorts", set(&from.exposed_ports).into());
    add("Labels", json!(from.labels));
    add("StopSignal", json!(from.stop_signal));
    if let Some(health) = &from.health {
        let mut check = Map::new();
        check.insert("Test".to_owned(), json!(health.test));
        let times = [
            ("Interval", health.interval),
            ("Timeout", health.timeout),
            ("StartPeriod", health.start_period),
            ("StartInterval", health.start_interval),
            ("Retries", health.retries),
        ];
        check.extend(times.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), json!(n))));
        add("Healthcheck", check.into());
    }
    let created_by = format!("coracle {} of {}", manifest.coracle, manifest.provenance.source);
    let mut config = json!({
        "architecture": from.architecture,
        "os": from.os,
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created_by": created_by }],
    });
    if let Some(variant) = &from.variant {
        config["variant"] = json!(variant);
    }
    config
}

fn manifest(config: &[u8], config_digest: &str, layer: &Layer) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{config_digest}"),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{}", layer.digest),
            "size": layer.len,
        }],
    })
}

fn list(manifest: &[u8], digest: &str, tag: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{digest}"),
            "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag },
        }],
    })
}

/// A tar without dates and owners, so that the same bundle gives the same bytes.
struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl Archive<'_> {
    fn entry(&mut self, name: &str, mode: u16, kind: Kind) -> io::Result<()> {
        let (path, mtime) = (name.as_bytes().to_vec(), Time::default());
        let entry = Entry { path, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind };
        self.out.write_all(&tar::header(&entry, |_| None))
    }

    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o755, Kind::Directory)
    }

    /// The header of a file whose bytes follow.
    fn head(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.entry(name, 0o644, Kind::File { size, content: Content { frame: 0, offset: 0 } })
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.head(name, bytes.len() as u64)?;
        self.out.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(512) - bytes.len();
        self.out.write_all(&[0; 512][..rest])
    }

    /// The tree's bytes: a tar, so it ends with a whole block. They must be those that were measured.
    fn layer(&mut self, bundle: &Bundle, tree: &Tree, layer: &Layer) -> Result<(), ActionError> {
        let mut hasher = Sha256::new();
        stream::each(bundle, tree, |plain| {
            hasher.update(plain);
            self.out.write_all(plain).map_err(unwritten)
        })?;
        if hex(&hasher.finalize().into()) == layer.digest { Ok(()) } else { Err(ActionError::Moving) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_its_file() {
        let is = |file: &str, name: &str| assert_eq!(tag(Path::new(file)), format!("{name}:latest"), "{file}");
        is("/x/python.run", "python");
        is("My App (2).run", "my-app-2");
        is("a__b..c-.run", "a_b.c");
        is("été.run", "t");
        is("...", "image");
    }
}
