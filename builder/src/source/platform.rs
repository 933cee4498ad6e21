//! Platforms: which of an index's images is wanted, and whether anything here can run it.

use std::{fmt, str::FromStr};

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

/// `os/arch[/variant]` in OCI's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".to_owned(), architecture: architecture(std::env::consts::ARCH).to_owned(), variant: None }
    }

    /// Whether a stub of this version can run it. A variant (`amd64/v3`) is the node's concern.
    #[must_use]
    pub fn runnable(&self) -> bool {
        self.os == "linux" && matches!(self.architecture.as_str(), "amd64" | "386")
    }

    /// Whether an image that says it is for `os/architecture` is what was asked for; empty parts say nothing.
    #[must_use]
    pub fn accepts(&self, os: &str, architecture: &str) -> bool {
        (os.is_empty() || os == self.os) && (architecture.is_empty() || architecture == self.architecture)
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<String> = text.split('/').map(|part| part.trim().to_lowercase()).collect();
        let good = |part: &String| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(good) {
            return Err(format!("{text:?} is no platform: write it as linux/amd64 or linux/arm64/v8"));
        }
        let arch = |name: &str| architecture(name).to_owned();
        match parts.as_slice() {
            [one] if one == "linux" => Ok(Self::host()),
            [one] => Ok(Self { os: "linux".to_owned(), architecture: arch(one), variant: None }),
            [os, architecture] => Ok(Self { os: os.clone(), architecture: arch(architecture), variant: None }),
            [os, architecture, variant] => {
                Ok(Self { os: os.clone(), architecture: arch(architecture), variant: Some(variant.clone()) })
            }
            _ => Err(format!("{text:?} is no platform: write it as linux/amd64 or linux/arm64/v8")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// OCI's name for an architecture that people and compilers name otherwise.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "i386" | "i486" | "i586" | "i686" | "x86" => "386",
        "aarch64" => "arm64",
        "armhf" | "armv7l" => "arm",
        "powerpc64le" => "ppc64le",
        name => name,
    }
}

/// The platform that an index's entry states; `None` if it states none, or is no image (attestations say `unknown`).
#[must_use]
pub fn stated(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    Some(Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone(),
    })
}

/// Entries of an index that may lead to the wanted platform, the best first; and the platforms it has, for a message.
#[must_use]
pub fn candidates<'index>(index: &'index ImageIndex, wanted: &Platform) -> (Vec<&'index Descriptor>, Vec<Platform>) {
    let mut found = Vec::new();
    let mut has = Vec::new();
    for entry in index.manifests() {
        let is_attestation =
            entry.annotations().as_ref().is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
        let platform = stated(entry);
        if is_attestation || platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
            continue;
        }
        if let Some(platform) = &platform
            && !has.contains(platform)
        {
            has.push(platform.clone());
        }
        if let Some(rank) = rank(platform.as_ref(), is_index(entry), wanted) {
            found.push((rank, entry));
        }
    }
    // Stable: of equals the first listed, as other tools choose.
    found.sort_by_key(|(rank, _)| *rank);
    has.sort();
    (found.into_iter().map(|(_, entry)| entry).collect(), has)
}

/// How well an entry fits, 0 best; `None` if not at all.
fn rank(platform: Option<&Platform>, nested: bool, wanted: &Platform) -> Option<u32> {
    let Some(platform) = platform else {
        // A nested index may hold anything; a manifest that says nothing is checked by its config.
        return Some(if nested { 50 } else { 60 });
    };
    if platform.os != wanted.os || platform.architecture != wanted.architecture {
        return None;
    }
    match (&platform.variant, &wanted.variant) {
        (have, want) if have == want => Some(0),
        (None, Some(want)) if is_baseline(&wanted.architecture, want) => Some(1),
        (Some(have), None) if is_baseline(&wanted.architecture, have) => Some(1),
        // Nobody asked for a variant: the least demanding one.
        (Some(have), None) => Some(2 + have.trim_start_matches('v').parse::<u32>().unwrap_or(40).min(40)),
        _ => None,
    }
}

fn is_baseline(architecture: &str, variant: &str) -> bool {
    matches!((architecture, variant), ("amd64", "v1") | ("arm64", "v8"))
}

/// Whether an entry is itself an index.
#[must_use]
pub fn is_index(entry: &Descriptor) -> bool {
    match entry.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(name) => name == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, &str)]) -> ImageIndex {
        let manifests: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(number, (platform, extra))| {
                let mut entry = serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{number:064}"), "size": 1,
                });
                if let [os, arch, variant @ ..] = platform.split('/').collect::<Vec<_>>().as_slice() {
                    entry["platform"] = serde_json::json!({"os": os, "architecture": arch});
                    if let [variant] = variant {
                        entry["platform"]["variant"] = serde_json::json!(variant);
                    }
                }
                if *extra == "attestation" {
                    entry["annotations"] = serde_json::json!({"vnd.docker.reference.type": "attestation-manifest"});
                }
                if *extra == "index" {
                    entry["mediaType"] = serde_json::json!("application/vnd.oci.image.index.v1+json");
                }
                entry
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests})).expect("an index")
    }

    fn chosen(entries: &[(&str, &str)], wanted: &str) -> Vec<usize> {
        let index = index(entries);
        let wanted = wanted.parse().expect("a platform");
        let (found, _) = candidates(&index, &wanted);
        found.iter().map(|entry| entry.digest().digest().parse().expect("a number")).collect()
    }

    #[test]
    fn the_exact_platform_wins() {
        let all = [
            ("linux/arm64/v8", ""),
            ("linux/386", ""),
            ("linux/amd64/v3", ""),
            ("linux/amd64", ""),
            ("windows/amd64", ""),
        ];
        assert_eq!(chosen(&all, "linux/amd64"), [3, 2]);
        assert_eq!(chosen(&all, "linux/amd64/v3"), [2]);
        assert_eq!(chosen(&all, "linux/amd64/v1"), [3]);
        assert_eq!(chosen(&all, "linux/386"), [1]);
        assert_eq!(chosen(&all, "linux/arm64"), [0]);
        assert_eq!(chosen(&all, "linux/s390x"), [] as [usize; 0]);
    }

    #[test]
    fn attestations_are_no_images_and_nested_indexes_may_hold_some() {
        let all =
            [("unknown/unknown", "attestation"), ("", "index"), ("linux/amd64", "attestation"), ("linux/amd64", "")];
        assert_eq!(chosen(&all, "linux/amd64"), [3, 1]);
        assert_eq!(candidates(&index(&all), &Platform::host()).1, ["linux/amd64".parse().expect("a platform")]);
    }

    #[test]
    fn platforms_as_people_write_them() {
        let parse = |text: &str| text.parse::<Platform>().map(|platform| platform.to_string());
        assert_eq!(parse("linux/x86_64").as_deref(), Ok("linux/amd64"));
        assert_eq!(parse("i686").as_deref(), Ok("linux/386"));
        assert_eq!(parse("linux/arm/v7").as_deref(), Ok("linux/arm/v7"));
        assert!(
            parse("linux/").is_err() && parse("").is_err() && parse("a/b/c/d").is_err() && parse("linux/a b").is_err()
        );
        assert!(parse("linux/386").is_ok_and(|_| "linux/386".parse::<Platform>().is_ok_and(|p| p.runnable())));
        assert!(!"linux/arm64".parse::<Platform>().expect("a platform").runnable());
        assert!(!"windows/amd64".parse::<Platform>().expect("a platform").runnable());
    }
}
