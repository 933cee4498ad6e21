//! Names of sources: `TRANSPORT:REST` as skopeo and podman write them, a bare image name, a bare path, or `-`.
//!
//! A bare name that begins with `/`, `./`, `../` (or is `.` or `..`) is a path. Any other bare name is an image in a
//! registry, unless a file or directory of that name is there and *is* an image archive, a layout, a tar or a bundle (by its
//! content): `alpine` stays the registry's even beside a directory `alpine`; `alpine.tar` is the file if it is a tar. Any
//! doubt is settled by writing the transport.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    SourceError,
    reference::{DEFAULT_REGISTRY, Reference},
    sniff,
};

/// Where an image is to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// `docker://NAME` or a bare name: an image in a registry.
    Docker(Reference),
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Oci(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`: an OCI image layout in a tar.
    OciArchive(PathBuf, Option<String>),
    /// `docker-daemon:NAME`: an image that Docker or Podman holds on this machine.
    DockerDaemon(String),
    /// `rootfs:DIR` or `rootfs:TAR`: a root file system with no config.
    Rootfs(PathBuf),
    /// `bundle:FILE`: a bundle that Coracle built.
    Bundle(PathBuf),
    /// A bare path: recognised by what is there.
    Path(PathBuf),
    /// `-`: standard input, recognised by what comes.
    Stdin,
}

const TRANSPORTS: &str = "docker://, docker-archive:, docker-daemon:, oci:, oci-archive:, rootfs: and bundle:";

impl SourceSpec {
    /// Understands a source's name, whose paths may hold any bytes.
    ///
    /// # Errors
    /// As [`SourceSpec::parse`].
    pub fn parse_os(text: &OsStr) -> Result<Self, SourceError> {
        if let Some(text) = text.to_str() {
            return Self::parse(text);
        }
        // Not UTF-8, so no image name; where a transport takes a tag too, it could not be told from the path.
        let bytes = text.as_bytes();
        let rest = |transport: &str| {
            bytes.strip_prefix(transport.as_bytes()).map(|rest| PathBuf::from(OsStr::from_bytes(rest)))
        };
        if bytes.starts_with(b"/") || bytes.starts_with(b"./") || bytes.starts_with(b"../") {
            Ok(Self::Path(text.into()))
        } else if let Some(path) = rest("rootfs:") {
            Ok(Self::Rootfs(path))
        } else if let Some(path) = rest("bundle:") {
            Ok(Self::Bundle(path))
        } else if let Some(path) = rest("docker-archive:") {
            Ok(Self::DockerArchive(path, None))
        } else if let Some(path) = rest("oci-archive:") {
            Ok(Self::OciArchive(path, None))
        } else if let Some(path) = rest("oci:") {
            Ok(Self::Oci(path, None))
        } else {
            let given = text.to_string_lossy().into_owned();
            Err(SourceError::Name { given, why: "it is not UTF-8: write a path with ./ before it".to_owned() })
        }
    }

    /// The same source, with another registry than Docker's for a name that has none.
    #[must_use]
    pub fn at(self, registry: Option<&str>) -> Self {
        match (self, registry) {
            (Self::Docker(reference), Some(registry)) if reference.registry == DEFAULT_REGISTRY => {
                // Only Docker's own registry keeps such names below `library/`.
                let repository =
                    reference.repository.strip_prefix("library/").unwrap_or(&reference.repository).to_owned();
                Self::Docker(Reference { registry: registry.to_owned(), repository, ..reference })
            }
            (spec, _) => spec,
        }
    }

    /// Understands a source's name.
    ///
    /// # Errors
    /// [`SourceError::Name`] or [`SourceError::Reference`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let name_error = |why: &str| SourceError::Name { given: text.to_owned(), why: why.to_owned() };
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if text.is_empty() {
            return Err(name_error("it is empty: name an image, or a path"));
        }
        if is_path(text) {
            return Ok(Self::Path(text.into()));
        }
        if let Some((transport, rest)) = text.split_once(':') {
            let need = |rest: &str, what: &str| {
                if rest.is_empty() { Err(name_error(&format!("{what} is missing after {transport}:"))) } else { Ok(()) }
            };
            match transport {
                "docker" => {
                    let name = rest.strip_prefix("//").ok_or_else(|| name_error("write docker://NAME"))?;
                    return reference(name);
                }
                "docker-archive" => {
                    need(rest, "the file")?;
                    let (path, tag) = path_and_tag(rest);
                    return Ok(Self::DockerArchive(path, tag));
                }
                "oci" => {
                    need(rest, "the directory")?;
                    let (path, tag) = path_and_tag(rest);
                    return Ok(Self::Oci(path, tag));
                }
                "oci-archive" => {
                    need(rest, "the file")?;
                    let (path, tag) = path_and_tag(rest);
                    return Ok(Self::OciArchive(path, tag));
                }
                "docker-daemon" => {
                    need(rest, "the image")?;
                    return Ok(Self::DockerDaemon(rest.to_owned()));
                }
                "rootfs" => {
                    need(rest, "the directory or tar")?;
                    return Ok(Self::Rootfs(rest.into()));
                }
                "bundle" => {
                    need(rest, "the file")?;
                    return Ok(Self::Bundle(rest.into()));
                }
                "containers-storage" | "dir" | "sif" | "atomic" | "ostree" | "tarball" | "docker-image" | "library"
                | "oras" | "shub" | "podman" | "https" | "http" => {
                    return Err(name_error(&format!(
                        "the transport {transport}: is not known here: there are {TRANSPORTS}"
                    )));
                }
                _ => {}
            }
        }
        if is_recognised(Path::new(text)) {
            return Ok(Self::Path(text.into()));
        }
        reference(text)
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut with_tag = |transport: &str, path: &Path, tag: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            match tag {
                Some(tag) if tag.starts_with('@') => f.write_str(tag),
                Some(tag) => write!(f, ":{tag}"),
                None => Ok(()),
            }
        };
        match self {
            Self::Docker(reference) => write!(f, "docker://{reference}"),
            Self::DockerArchive(path, tag) => with_tag("docker-archive", path, tag),
            Self::Oci(path, tag) => with_tag("oci", path, tag),
            Self::OciArchive(path, tag) => with_tag("oci-archive", path, tag),
            Self::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
            Self::Rootfs(path) => with_tag("rootfs", path, &None),
            Self::Bundle(path) => with_tag("bundle", path, &None),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("-"),
        }
    }
}

fn reference(name: &str) -> Result<SourceSpec, SourceError> {
    match name.parse() {
        Ok(reference) => Ok(SourceSpec::Docker(reference)),
        Err(why) => Err(SourceError::Reference { given: name.to_owned(), why }),
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/']) || text.starts_with("./") || text.starts_with("../") || matches!(text, "." | "..")
}

/// Splits `PATH[:TAG]` or `PATH@DIGEST` where both may hold colons: the longest beginning that is there is the path;
/// if none is, it ends at the first colon.
fn path_and_tag(text: &str) -> (PathBuf, Option<String>) {
    if Path::new(text).exists() {
        return (text.into(), None);
    }
    let ends = text.char_indices().rev().filter(|(at, c)| *at > 0 && matches!(c, ':' | '@'));
    for (at, c) in ends {
        if Path::new(&text[..at]).exists() {
            let tag = if c == '@' { &text[at..] } else { &text[at + 1..] };
            return (text[..at].into(), Some(tag.to_owned()).filter(|tag| !tag.is_empty()));
        }
    }
    match text.split_once(':') {
        Some((path, tag)) if !path.is_empty() => (path.into(), Some(tag.to_owned()).filter(|tag| !tag.is_empty())),
        _ => (text.into(), None),
    }
}

/// Whether something of this name is there and is of a form we know by its content.
fn is_recognised(path: &Path) -> bool {
    let Ok(meta) = path.metadata() else { return false };
    if meta.is_dir() {
        return path.join("oci-layout").is_file();
    }
    if !meta.is_file() {
        return false;
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(sniff::HEAD as u64).read_to_end(&mut head));
    read.is_ok() && sniff::is_known(&head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> SourceSpec {
        SourceSpec::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn transports() {
        let docker = |text: &str| SourceSpec::Docker(text.parse().expect("a reference"));
        assert_eq!(parse("alpine"), docker("alpine"));
        assert_eq!(parse("docker://alpine:3.20"), docker("alpine:3.20"));
        assert_eq!(parse("localhost:5000/x"), docker("localhost:5000/x"));
        assert_eq!(parse("oci"), docker("oci"));
        assert_eq!(parse("-"), SourceSpec::Stdin);
        assert_eq!(parse("docker-archive:/nowhere/a.tar"), SourceSpec::DockerArchive("/nowhere/a.tar".into(), None));
        assert_eq!(
            parse("docker-archive:/nowhere/a.tar:lib/alpine:3.20"),
            SourceSpec::DockerArchive("/nowhere/a.tar".into(), some("lib/alpine:3.20"))
        );
        assert_eq!(parse("oci:/nowhere/d:3.20"), SourceSpec::Oci("/nowhere/d".into(), some("3.20")));
        assert_eq!(parse("oci:/nowhere/d"), SourceSpec::Oci("/nowhere/d".into(), None));
        assert_eq!(parse("oci-archive:/nowhere/d.tar:x"), SourceSpec::OciArchive("/nowhere/d.tar".into(), some("x")));
        assert_eq!(parse("docker-daemon:alpine:3.20"), SourceSpec::DockerDaemon("alpine:3.20".into()));
        assert_eq!(parse("rootfs:/"), SourceSpec::Rootfs("/".into()));
        assert_eq!(parse("bundle:x.run"), SourceSpec::Bundle("x.run".into()));
        for path in ["/x", "./x", "../x", ".", ".."] {
            assert_eq!(parse(path), SourceSpec::Path(path.into()));
        }
    }

    #[test]
    fn paths_of_any_bytes() {
        let odd = OsStr::from_bytes(b"rootfs:/a\xff");
        assert_eq!(SourceSpec::parse_os(odd).expect("a path"), SourceSpec::Rootfs(OsStr::from_bytes(b"/a\xff").into()));
        assert!(SourceSpec::parse_os(OsStr::from_bytes(b"a\xff")).is_err());
        assert!(matches!(SourceSpec::parse_os(OsStr::from_bytes(b"./a\xff")), Ok(SourceSpec::Path(_))));
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            "docker:alpine",
            "docker://",
            "docker-archive:",
            "oci:",
            "rootfs:",
            "bundle:",
            "docker-daemon:",
            "https://x/y",
            "sif:x",
            "dir:/x",
        ] {
            let error = SourceSpec::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_path_may_hold_colons() {
        let dir = tempfile::tempdir().expect("a directory");
        let odd = dir.path().join("a:b");
        std::fs::create_dir(&odd).expect("made");
        let text = odd.display().to_string();
        assert_eq!(parse(&format!("oci:{text}")), SourceSpec::Oci(odd.clone(), None));
        assert_eq!(parse(&format!("oci:{text}:1:2")), SourceSpec::Oci(odd.clone(), some("1:2")));
        assert_eq!(parse(&format!("oci:{text}@sha256:ab")), SourceSpec::Oci(odd, some("@sha256:ab")));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            if let Ok(spec) = SourceSpec::parse(&text) {
                prop_assert!(!spec.to_string().is_empty());
            }
        }
    }
}
