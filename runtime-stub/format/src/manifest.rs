//! The manifest: small JSON that says what the bundle is and how to start it. A warm start reads nothing more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Capture, Digest, FORMAT_VERSION, FormatError};

/// Everything about a bundle that is not its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Version of the Coracle that built it.
    pub coracle: String,
    /// How to start it: the image's config, with the build's changes.
    pub config: ImageConfig,
    /// Facts about the tree that engines ask for. Opaque here; `ImageFacts` of `engines/api` gives it its meaning.
    pub facts: serde_json::Value,
    /// Runtime options fixed at build time.
    #[serde(default)]
    pub defaults: Defaults,
    /// Where it came from.
    pub provenance: Provenance,
    /// The stub at its head.
    pub stub: StubInfo,
    /// Sizes, for looking before unpacking.
    pub payload: PayloadInfo,
    /// The index.
    pub index: IndexInfo,
    /// What the builder left out or changed, in words: device nodes, unreadable files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The part of an OCI image config that says how to run (image-spec, config.md), flattened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "snake_case")]
pub struct ImageConfig {
    /// OCI `architecture`.
    pub architecture: String,
    /// OCI `os`.
    pub os: String,
    /// OCI `variant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `User`: name or id, optionally with `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `Env`: `KEY=value` strings, in order.
    pub env: Vec<String>,
    /// `Entrypoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `Cmd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `WorkingDir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `Volumes`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// `ExposedPorts`, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// `Labels`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `StopSignal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `Healthcheck`; containers in the background are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How to find out whether a program works (HEALTHCHECK of a Dockerfile). Times are in nanoseconds; zero is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `NONE`; `CMD` and a program with its arguments; or `CMD-SHELL` and a line for `/bin/sh`.
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// What a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// How long failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Runtime options that the builder fixed; the user's own options win over them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// `--isolated` at build time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// `--engine` at build time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// `--volume` at build time, as `HOST[:GUEST][:ro]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Show none of the caller's directories and variables, as a recorded run wants it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Let the application change its files until it ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub writable: bool,
}

/// Where the tree came from. Holds no date, so that the same image gives the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The source as asked for, with its transport: `docker://docker.io/library/python:3.12`.
    pub source: String,
    /// Digest of the image manifest, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Digest of the image config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Digest of the manifest of the bundle whose run has changed the tree since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// Digests of the layers as stored, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Names of the licences that the tree's package database and copyright files give, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// Build options that changed the tree or the config, as given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The run that was recorded, if the bundle was made of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
}

/// The stub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StubInfo {
    /// Target triple it was built for.
    pub target: String,
    /// Length in bytes, which is P.
    pub len: u64,
    /// Offset of the slot.
    pub slot: u64,
    /// SHA-256, in hexadecimal, of the stub with a bare slot.
    pub sha256: String,
}

/// Sizes of the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadInfo {
    /// Length as stored.
    pub stored: u64,
    /// Bytes that the unpacked files take.
    pub unpacked: u64,
    /// Files, directories and links that unpacking makes.
    pub inodes: u64,
}

/// The index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// SHA-256 of the decompressed index, in hexadecimal: the name of the cache directory.
    pub sha256: String,
    /// SHA-256 of the index as stored: some bits of a zstd frame can change without changing what it holds.
    #[serde(default)]
    pub stored_sha256: String,
}

impl Manifest {
    /// The manifest's bytes.
    ///
    /// # Panics
    /// Never: a manifest holds nothing that JSON cannot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest holds nothing that JSON cannot")
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for what is no manifest, [`FormatError::Version`] for another layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| FormatError::corrupt("manifest", error.to_string()))?;
        if manifest.format != FORMAT_VERSION {
            return Err(FormatError::Version { found: manifest.format, expected: FORMAT_VERSION });
        }
        Ok(manifest)
    }
}

/// A digest in lower-case hexadecimal.
#[must_use]
pub fn hex(digest: &Digest) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The digest that 64 hexadecimal digits name.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
