//! References to images in registries, as the distribution specification and Docker write them.
//!
//! `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`. The first component is a registry if it holds a dot, a colon or an upper-case
//! letter, is `localhost`, or is an address in brackets; otherwise the registry is `docker.io`, whose one-component
//! repositories live under `library/`. Without tag and digest the tag is `latest`; with both, the digest decides.

use std::{fmt, str::FromStr};

use crate::store::digest::{self, Digest};

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A reference, every part known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io`, `quay.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// `library/alpine`.
    pub repository: String,
    /// `3.20`; there is a tag or a digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// The registry's part.
    #[error("{0:?} is no host name or address with an optional port")]
    Registry(String),
    /// The repository's part.
    #[error("{0:?} is no repository name: lower-case letters, digits, and single '.', '_', '-' between them")]
    Repository(String),
    /// Upper-case letters, the most frequent mistake.
    #[error("the repository name {0:?} has upper-case letters: try {lower:?}", lower = .0.to_lowercase())]
    UpperCase(String),
    /// Too long.
    #[error("the repository name has more than 255 characters")]
    TooLong,
    /// The tag.
    #[error("{0:?} is no tag: up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'")]
    Tag(String),
    /// The digest.
    #[error("{0:?} is no digest: it should be sha256: and 64 lower-case hexadecimal digits (or sha512: and 128)")]
    Digest(String),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest::parse(digest).ok_or_else(|| ReferenceError::Digest(digest.to_owned()))?))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_registry(first) => {
                if !valid_registry(first) {
                    return Err(ReferenceError::Registry(first.to_owned()));
                }
                (first, rest)
            }
            _ => (DEFAULT_REGISTRY, rest),
        };
        // A colon after the last slash begins a tag; before it, it was the registry's port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !valid_tag(tag)) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        if !repository.split('/').all(valid_component) {
            return Err(if repository.to_lowercase().split('/').all(valid_component) {
                ReferenceError::UpperCase(repository.to_owned())
            } else {
                ReferenceError::Repository(repository.to_owned())
            });
        }
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
            registry => registry.to_owned(),
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if repository.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

impl Reference {
    /// What a registry is asked for: the digest if there is one, else the tag.
    #[must_use]
    pub fn target(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_ref(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// As people write it: without what goes without saying of Docker's own registry.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").filter(|_| short.len() < full.len()).unwrap_or(short).to_owned()
    }

    /// The name without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the component before the first slash is meant as a registry.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.starts_with('[')
        || first.contains(['.', ':'])
        || first.contains(|c: char| c.is_ascii_uppercase())
}

fn valid_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("address", port)
    } else {
        text.find(':').map_or((text, ""), |colon| text.split_at(colon))
    };
    let port_fits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
    port_fits && host.split('.').all(valid_label)
}

fn valid_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Lower-case letters and digits, separated by `.`, `_`, `__`, or any number of `-`.
fn valid_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

fn valid_tag(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !text.is_empty()
        && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn every_form_that_people_type() {
        let digest = format!("sha256:{HEX}");
        let cases = [
            ("alpine", "docker.io", "library/alpine", Some("latest"), false),
            ("alpine:3.20", "docker.io", "library/alpine", Some("3.20"), false),
            ("bitnami/redis", "docker.io", "bitnami/redis", Some("latest"), false),
            ("docker.io/alpine", "docker.io", "library/alpine", Some("latest"), false),
            ("docker.io/library/alpine", "docker.io", "library/alpine", Some("latest"), false),
            ("index.docker.io/library/alpine", "docker.io", "library/alpine", Some("latest"), false),
            ("registry-1.docker.io/library/alpine", "docker.io", "library/alpine", Some("latest"), false),
            ("quay.io/a/b", "quay.io", "a/b", Some("latest"), false),
            ("quay.io/a/b/c/d/e:x", "quay.io", "a/b/c/d/e", Some("x"), false),
            ("quay.io/a/b@D", "quay.io", "a/b", None, true),
            ("quay.io/a/b:t@D", "quay.io", "a/b", Some("t"), true),
            ("alpine@D", "docker.io", "library/alpine", None, true),
            ("alpine:3.20@D", "docker.io", "library/alpine", Some("3.20"), true),
            ("localhost/x", "localhost", "x", Some("latest"), false),
            ("localhost:5000/x", "localhost:5000", "x", Some("latest"), false),
            ("localhost:5000/x:1", "localhost:5000", "x", Some("1"), false),
            ("localhost:5000", "docker.io", "library/localhost", Some("5000"), false),
            ("127.0.0.1:5000/lib/alpine:3.20", "127.0.0.1:5000", "lib/alpine", Some("3.20"), false),
            ("[::1]:5000/x:1", "[::1]:5000", "x", Some("1"), false),
            ("[2001:db8::1]/a/b", "[2001:db8::1]", "a/b", Some("latest"), false),
            ("Registry/x", "Registry", "x", Some("latest"), false),
            ("host:443/x@D", "host:443", "x", None, true),
            ("a__b/c.d-e_f---g", "docker.io", "a__b/c.d-e_f---g", Some("latest"), false),
            ("x:UPPER_tag-1.0", "docker.io", "library/x", Some("UPPER_tag-1.0"), false),
            (
                "gitlab.example.com:8443/group/sub/project/image:v1",
                "gitlab.example.com:8443",
                "group/sub/project/image",
                Some("v1"),
                false,
            ),
        ];
        for (text, registry, repository, tag, digested) in cases {
            let text = text.replace('D', &digest);
            let reference = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (reference.registry.as_str(), reference.repository.as_str(), reference.tag.as_deref()),
                (registry, repository, tag),
                "{text}"
            );
            assert_eq!(reference.digest.as_ref().map(AsRef::as_ref), digested.then_some(digest.as_str()), "{text}");
            assert_eq!(parse(&reference.to_string()), Ok(reference), "{text}: canonical form");
        }
        let both = parse(&format!("x:t@{digest}")).expect("both");
        assert_eq!(both.target(), digest, "the digest decides");
    }

    #[test]
    fn what_is_no_reference_says_which_part() {
        assert_eq!(parse(""), Err(ReferenceError::Empty));
        assert!(matches!(parse("Alpine"), Err(ReferenceError::UpperCase(_))));
        assert!(matches!(parse("quay.io/Foo/bar"), Err(ReferenceError::UpperCase(_))));
        for bad in
            ["/x", "x/", "a//b", "-a", "a-", "a..b", "a___b", "a b", "quay.io/", "quay.io/../x", "ä", "a._b", ":t", "."]
        {
            assert!(matches!(parse(bad), Err(ReferenceError::Repository(_))), "{bad}: {:?}", parse(bad));
        }
        for bad in ["x:", "x:.t", "x:-t", "x:a b", &format!("x:{}", "t".repeat(129))] {
            assert!(matches!(parse(bad), Err(ReferenceError::Tag(_))), "{bad}");
        }
        for bad in [
            "x@",
            "x@sha256",
            "x@sha256:abc",
            "x@md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("x@sha256:{}", HEX.to_uppercase()),
        ] {
            assert!(matches!(parse(bad), Err(ReferenceError::Digest(_))), "{bad}");
        }
        for bad in [
            "a.b:port/x",
            "a.b:0/x",
            "a.b:70000/x",
            "[::1/x",
            "[zz]:5/x",
            "-a.b/x",
            "a..b.c/x",
            "a_b.c/x",
            "localhost:/x",
        ] {
            assert!(matches!(parse(bad), Err(ReferenceError::Registry(_))), "{bad}: {:?}", parse(bad));
        }
        assert_eq!(parse(&format!("q.io/{}", "a".repeat(256))), Err(ReferenceError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_canonical_forms_are_stable(text in "\\PC{0,60}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(parse(&reference.to_string()), Ok(reference));
            }
        }

        /// The `oci-spec` crate carries Docker's own regular expression: what it takes, we take, and split alike.
        #[test]
        fn agrees_with_dockers_grammar(text in "([A-Za-z0-9.-]{1,8}(:[0-9]{1,4})?/)?[a-z0-9._/-]{1,14}(:[A-Za-z0-9._-]{1,6})?") {
            if let Ok(theirs) = text.parse::<oci_spec::distribution::Reference>() {
                // It takes "host:99999" and "host:0", leaves "registry-1.docker.io" and "Foo/bar" as they are, and
                // takes a name as "a_b.c", which is no host's, for a part of the repository.
                let port = theirs.registry().rsplit_once(':').map(|(_, port)| port.parse::<u16>().unwrap_or(0));
                let upper = text.split('/').next().is_some_and(|first| first.contains(|c: char| c.is_ascii_uppercase()));
                let no_host = text.split_once('/').is_some_and(|(first, _)| first.contains('_') && first.contains(['.', ':']));
                if port != Some(0) && !upper && !no_host {
                    let ours = parse(&text);
                    prop_assert!(ours.is_ok(), "{} {:?}", text, ours);
                    let ours = ours.expect("checked");
                    prop_assert_eq!(&ours.registry, theirs.registry());
                    prop_assert_eq!(&ours.repository, theirs.repository());
                    prop_assert_eq!(ours.tag.as_deref(), theirs.tag());
                }
            }
        }
    }
}
