//! An OCI layout on disk, for both.

use std::{
    cell::RefCell,
    fs, io,
    num::NonZero,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use coracle::{
    flatten::{FlattenError, Limits, Options, Tree, flatten},
    source::{Blob, Compression, Content, Layer},
};
use coracle_format::{hex, sha256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::compare::Facts;

/// The user that umoci runs as where the test is root.
const USER: u32 = 12345;

/// A layout with one image, in a directory of the unprivileged user.
pub(crate) struct Layout {
    directory: TempDir,
    layers: RefCell<Vec<(Value, String)>>,
    started: SystemTime,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("oci/blobs/sha256")).expect("made");
        fs::write(directory.path().join("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        Self { directory, layers: RefCell::default(), started: SystemTime::now() }
    }

    /// Times from here on are the unpacker's own.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a plain tar.
    pub(crate) fn add_layer(&self, tar: &[u8]) {
        let descriptor = self.blob(tar, "application/vnd.oci.image.layer.v1.tar");
        let diff_id = descriptor["digest"].as_str().expect("made so").to_owned();
        self.layers.borrow_mut().push((descriptor, diff_id));
    }

    /// Adds a tar.gz.
    pub(crate) fn add_layer_file(&self, path: &Path) {
        let stored = fs::read(path).expect("the image is there");
        let descriptor = self.blob(&stored, "application/vnd.oci.image.layer.v1.tar+gzip");
        let mut plain = Vec::new();
        io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&stored[..]), &mut plain).expect("a gzip file");
        self.layers.borrow_mut().push((descriptor, format!("sha256:{}", hex(&sha256(&plain)))));
    }

    pub(crate) fn pop_layer(&self) {
        self.layers.borrow_mut().pop();
    }

    /// Writes config, manifest and index, and hands all to the user.
    pub(crate) fn commit(&self) {
        let (layers, diff_ids): (Vec<_>, Vec<_>) = self.layers.borrow().iter().cloned().unzip();
        let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "a test"})).collect::<Vec<_>>()});
        let config = self.blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
        let mut manifest = self.blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "tag"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(self.path("oci/index.json"), index.to_string()).expect("written");
        if is_root() {
            give(self.directory.path());
        }
    }

    fn blob(&self, bytes: &[u8], media: &str) -> Value {
        let digest = hex(&sha256(bytes));
        fs::write(self.path("oci/blobs/sha256").join(&digest), bytes).expect("written");
        json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    /// What umoci makes of it.
    pub(crate) fn unpack(&self, name: &str) -> Result<Facts, String> {
        let output = self.run(&format!("umoci unpack --rootless --image oci:tag {name}"));
        if output.status.success() {
            Ok(crate::facts_of_directory(&self.path(name).join("rootfs")))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) fn repack(&self, name: &str) {
        self.as_user(&format!("umoci repack --image oci:tag {name}"));
    }

    /// Runs a shell script in the layout's directory, as the unprivileged user.
    pub(crate) fn as_user(&self, script: &str) {
        let output = self.run(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, script: &str) -> Output {
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
            command.args(ids).args(["--clear-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let script = format!("umask 022\n{script}");
        command.current_dir(self.directory.path()).env("HOME", self.directory.path());
        command.arg("-c").arg(script).output().expect("a shell runs")
    }

    /// What Coracle makes of it.
    pub(crate) fn flatten(&self) -> Result<Facts, FlattenError> {
        let read = |digest: &Value| -> Value {
            let name = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
            let bytes = fs::read(self.path("oci/blobs/sha256").join(name)).expect("the blob is there");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        let index: Value =
            serde_json::from_slice(&fs::read(self.path("oci/index.json")).expect("there")).expect("JSON");
        let tagged = |manifest: &&Value| manifest["annotations"]["org.opencontainers.image.ref.name"] == "tag";
        let manifest = index["manifests"].as_array().expect("a list").iter().find(tagged).expect("our tag");
        let manifest = read(&manifest["digest"]);
        let config = read(&manifest["config"]["digest"]);
        let layers = manifest["layers"].as_array().expect("a list").iter().enumerate().map(|(number, layer)| {
            let digest = layer["digest"].as_str().expect("a digest").to_owned();
            let file = self.path("oci/blobs/sha256").join(digest.strip_prefix("sha256:").expect("sha256"));
            let len = fs::metadata(&file).expect("there").len();
            let compression = match layer["mediaType"].as_str().and_then(|media| media.rsplit_once('+')) {
                Some((_, "gzip")) => Compression::Gzip,
                Some((_, "zstd")) => Compression::Zstd,
                _ => Compression::None,
            };
            let diff_id = config["rootfs"]["diff_ids"][number].as_str().map(str::to_owned);
            Layer { digest, diff_id, compression, blob: Blob { file, offset: 0, len } }
        });
        let options = Options {
            limits: Limits::default(),
            spool: self.directory.path().into(),
            threads: NonZero::new(2).expect("not zero"),
            apart: false,
        };
        let tree: Tree = flatten(Content::Layers(layers.collect()), &options)?;
        Ok(crate::facts_of_tree(&tree))
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("root may");
    if fs::symlink_metadata(path).expect("there").is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            give(&entry.expect("readable").path());
        }
    }
}
