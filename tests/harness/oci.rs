//! OCI image layouts (image-spec, image-layout.md) made by hand, layer by layer: the demo's image and the cases' odd ones.

use std::{fs, io, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An image under construction.
#[derive(Debug, Default)]
pub struct OciImage {
    layers: Vec<Vec<u8>>,
    config: Value,
}

/// A layer under construction: a plain tar.
pub struct Layer(tar::Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, b"", None)
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, content, None)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, b"", Some(target))
    }

    /// Adds a hard link to an earlier path.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, 0o644, b"", Some(target))
    }

    /// Adds a whiteout: `path` of the layers below is gone (image-spec, layer.md).
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.file(format!("{dir}/.wh.{name}").trim_start_matches('/'), 0o644, b"")
    }

    /// Adds an entry as it is.
    ///
    /// # Panics
    /// If the name does not fit.
    #[must_use]
    pub fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: Option<&str>) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        match link {
            Some(target) => self.0.append_link(&mut header, path, target).unwrap(),
            None => self.0.append_data(&mut header, path, content).unwrap(),
        }
        self
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

impl OciImage {
    /// An image with this `config` object (`Cmd`, `Env`…, as the image-spec's config.md names them).
    #[must_use]
    pub fn new(config: Value) -> Self {
        Self { layers: Vec::new(), config }
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Adds a layer that is a tar already.
    #[must_use]
    pub fn raw_layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// Writes the layout to a directory, under the tag `latest`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        let blob = |bytes: &[u8]| -> io::Result<String> {
            let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(dir.join("blobs/sha256").join(&hex), bytes)?;
            Ok(format!("sha256:{hex}"))
        };
        let mut layers = Vec::new();
        for layer in &self.layers {
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": blob(layer)?,
                "size": layer.len(),
            }));
        }
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": blob(config.as_bytes())?,
                "size": config.len(),
            },
            "layers": layers,
        })
        .to_string();
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": blob(manifest.as_bytes())?,
                "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }],
        });
        fs::write(dir.join("index.json"), index.to_string())?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}
