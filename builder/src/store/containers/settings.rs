//! What a container is, besides its tree: `container.json`.

use coracle_format::{ImageConfig, Provenance};
use serde::{Deserialize, Serialize};

use crate::store::digest;

/// Number of the newest form of `container.json` that this version reads. The second has [`base`](Settings::base).
pub const SETTINGS_VERSION: u32 = 2;

/// A container's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// 1, or 2 for a container with a [`base`](Self::base), which older versions cannot read.
    pub version: u32,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The image as the user would name it (`alpine:3.20`), or what it was imported from.
    pub image: String,
    /// Where the tree came from: reference and digests.
    pub provenance: Provenance,
    /// How to run it: the image's config, with what `create` changed.
    pub config: ImageConfig,
    /// The engine set by `setup --execmode`, as the user named it (`P2`); none is `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// `rm` refuses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// The image tree that it stands on (a name below the store's `trees/`); none is a tree of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// How the files of a tree of its own came to be.
    pub sharing: Sharing,
    /// Options of `run` and `create` that `start` uses again; their form is that of the command line's plan for runs.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub options: serde_json::Value,
}

/// Whether a tree's files share their bytes with those of the image's other containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Copies of its own.
    #[default]
    Copy,
    /// Clones that share blocks until either side is written: any engine may write into the tree.
    Reflink,
    /// Nothing but the image's tree so far: what comes of it depends on the engine of the first run.
    Image,
    /// Changes over the image's tree, put together by the kernel's overlayfs.
    Overlay,
    /// Hard links to the image's tree: an engine must not write into a file that has other names outside the container,
    /// but replace it by a copy first.
    Hardlink,
}

impl Settings {
    /// The content of `container.json`, with a digest of all of it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        let sum = sum_of(&mut value);
        value[SUM] = sum.into();
        serde_json::to_vec_pretty(&value).unwrap_or_default()
    }

    /// The number of the oldest form that holds them.
    pub(super) fn form(&self) -> u32 {
        if self.base.is_some() { 2 } else { 1 }
    }
}

/// Member of `container.json` with the digest of the others.
const SUM: &str = "sum";

fn sum_of(value: &mut serde_json::Value) -> String {
    if let Some(members) = value.as_object_mut() {
        members.remove(SUM);
    }
    digest::sha256(&serde_json::to_vec(value).unwrap_or_default())
}

/// Whether the content of a `container.json` is as it was written; what older versions wrote is not known to be otherwise.
pub(super) fn is_as_written(bytes: &[u8]) -> bool {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return false };
    let Some(sum) = value.get(SUM).and_then(serde_json::Value::as_str).map(str::to_owned) else {
        return value.get(SUM).is_none();
    };
    sum == sum_of(&mut value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_field_shows() {
        let settings = Settings {
            version: 1,
            image: "a:1".into(),
            options: serde_json::json!({"tty": true}),
            ..Settings::default()
        };
        let bytes = settings.encode();
        assert!(is_as_written(&bytes));
        assert_eq!(serde_json::from_slice::<Settings>(&bytes).expect("whole"), settings);
        let text = String::from_utf8(bytes).expect("text");
        for (from, to) in
            [("a:1", "a:2"), ("\"tty\"", "\"tts\""), ("true", "null"), ("\"version\": 1", "\"version\": 2")]
        {
            assert!(text.contains(from), "{from} in {text}");
            assert!(!is_as_written(text.replacen(from, to, 1).as_bytes()), "{from}");
        }
        assert!(is_as_written(b"{\"version\": 1}"), "an older version's");
    }
}
