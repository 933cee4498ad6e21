//! A set of named files to find an image in: a directory, or a tar of which only the table of members is read.
//!
//! A tar is never extracted: a member is a run of bytes in it. A compressed tar is decompressed once, into a file that has
//! no name and so vanishes with the process.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    sync::Arc,
};

use super::{Blob, Compression, Layer, Options, SourceError, sniff};
use crate::store::digest::{self, Digest};

/// Where the files of an image are.
#[derive(Debug)]
pub(super) enum Files {
    /// A directory.
    Directory(PathBuf),
    /// A tar, by its members.
    Tar(TarFiles),
}

/// An uncompressed tar on disk, and what is where in it.
#[derive(Debug)]
pub(super) struct TarFiles {
    /// The file's name, for messages.
    name: String,
    /// The file to read: the user's own, or a spool by way of `/proc/self/fd`.
    path: PathBuf,
    members: HashMap<String, Member>,
    /// The spool, if there is one.
    spool: Option<Arc<File>>,
}

#[derive(Debug)]
enum Member {
    File { offset: u64, len: u64 },
    Link(String),
}

/// Links are followed this often; more is a loop.
const LINKS: usize = 16;

impl Files {
    /// Its name, for messages.
    #[must_use]
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Tar(tar) => tar.name.clone(),
        }
    }

    /// The spool to keep while its runs are in use.
    #[must_use]
    pub(super) fn spools(&self) -> Vec<Arc<File>> {
        match self {
            Self::Directory(_) => Vec::new(),
            Self::Tar(tar) => tar.spool.iter().cloned().collect(),
        }
    }

    /// Finds a file.
    ///
    /// # Errors
    /// [`SourceError::File`]; [`SourceError::Malformed`] for a loop of links.
    pub(super) fn find(&self, name: &str) -> Result<Option<Blob>, SourceError> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                match fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => Ok(Some(Blob { file: path, offset: 0, len: meta.len() })),
                    Ok(_) => Ok(None),
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                        Ok(None)
                    }
                    Err(cause) => Err(SourceError::file("read", path, cause)),
                }
            }
            Self::Tar(tar) => tar.find(name),
        }
    }

    /// A small file's bytes.
    ///
    /// # Errors
    /// [`SourceError::File`]; [`SourceError::Malformed`] for one over the limit.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(blob) = self.find(name)? else { return Ok(None) };
        if blob.len > limit {
            return Err(SourceError::malformed(
                format!("{name} in {}", self.name()),
                format!("it has {} bytes, more than the {limit} that are allowed", blob.len),
            ));
        }
        let mut bytes = vec![0; usize::try_from(blob.len).unwrap_or(0)];
        File::open(&blob.file)
            .and_then(|file| file.read_exact_at(&mut bytes, blob.offset))
            .map_err(|cause| SourceError::file("read", &blob.file, cause))?;
        Ok(Some(bytes))
    }

    /// A layer, recognised by its first bytes; its digest is checked if one is given.
    ///
    /// # Errors
    /// [`SourceError::Malformed`] if it is not there, [`SourceError::Digest`] if it is damaged.
    pub(super) fn layer(
        &self,
        name: &str,
        blob_digest: Option<&Digest>,
        diff_id: Option<&str>,
    ) -> Result<Layer, SourceError> {
        let Some(blob) = self.find(name)? else {
            return Err(SourceError::malformed(
                self.name(),
                format!("its layer {name} is missing: it was cut short, or never written whole"),
            ));
        };
        let what = format!("the layer {name} in {}", self.name());
        if let Some(expected) = blob_digest {
            check(&blob, expected, &what)?;
        }
        layer(blob, blob_digest.map(ToString::to_string), diff_id)
    }
}

/// A run of bytes as a layer.
///
/// # Errors
/// [`SourceError::File`].
pub(super) fn layer(blob: Blob, digest: Option<String>, diff_id: Option<&str>) -> Result<Layer, SourceError> {
    let head = File::open(&blob.file)
        .and_then(|file| sniff::head_at(&file, blob.offset, blob.len))
        .map_err(|cause| SourceError::file("read", &blob.file, cause))?;
    let compression = sniff::compression(&head);
    let digest = match (digest, diff_id, compression) {
        (Some(digest), ..) => digest,
        // Not compressed: the two digests are the same, and flattening checks this one.
        (None, Some(diff_id), Compression::None) => diff_id.to_owned(),
        (None, ..) => {
            let like = digest::parse(&digest::sha256(b"")).expect("our own digest");
            digest::of_file(&blob.file, blob.offset, blob.len, &like)
                .map_err(|cause| SourceError::file("read", &blob.file, cause))?
                .unwrap_or_default()
        }
    };
    Ok(Layer { digest, diff_id: diff_id.map(str::to_owned), compression, blob })
}

/// Checks a run of bytes against its digest.
///
/// # Errors
/// [`SourceError::Digest`], [`SourceError::File`].
pub(super) fn check(blob: &Blob, expected: &Digest, what: &str) -> Result<(), SourceError> {
    let found = digest::of_file(&blob.file, blob.offset, blob.len, expected)
        .map_err(|cause| SourceError::file("read", &blob.file, cause))?;
    match found {
        Some(actual) if actual == expected.as_ref() => Ok(()),
        Some(actual) => Err(SourceError::Digest { what: what.to_owned(), expected: expected.to_string(), actual }),
        None => Err(SourceError::Unsupported {
            what: what.to_owned(),
            why: format!("{expected} is an unknown kind of digest"),
        }),
    }
}

impl TarFiles {
    /// Reads the table of an uncompressed tar.
    ///
    /// # Errors
    /// [`SourceError::Malformed`] for what is no tar.
    pub(super) fn open(path: PathBuf, name: String, spool: Option<Arc<File>>) -> Result<Self, SourceError> {
        let file = File::open(&path).map_err(|cause| SourceError::file("read", &path, cause))?;
        let total = file.metadata().map_err(|cause| SourceError::file("read", &path, cause))?.len();
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 13, file));
        let entries = archive.entries_with_seek().map_err(|error| SourceError::malformed(&name, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| SourceError::malformed(&name, format!("it is no whole tar: {error}")))?;
            let path = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind.is_contiguous() {
                let (offset, len) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(len).is_none_or(|end| end > total) {
                    return Err(SourceError::malformed(&name, format!("it is cut short in the middle of {path}")));
                }
                Member::File { offset, len }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                Member::Link(if kind.is_symlink() { beside(&path, &target) } else { normal(&target) })
            } else {
                continue;
            };
            members.insert(path, member);
        }
        Ok(Self { name, path, members, spool })
    }

    fn find(&self, name: &str) -> Result<Option<Blob>, SourceError> {
        let mut name = normal(name);
        for _ in 0..LINKS {
            match self.members.get(&name) {
                Some(Member::File { offset, len }) => {
                    return Ok(Some(Blob { file: self.path.clone(), offset: *offset, len: *len }));
                }
                Some(Member::Link(target)) => target.clone_into(&mut name),
                None => return Ok(None),
            }
        }
        Err(SourceError::malformed(&self.name, format!("the links of {name} go in a circle")))
    }
}

/// A member's name without `./`, `//` and `..`.
fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What a symlink at `path` to `target` means, inside the archive.
fn beside(path: &str, target: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, _)) if !target.starts_with('/') => normal(&format!("{directory}/{target}")),
        _ => normal(target),
    }
}

/// Writes a stream, decompressed, to a file without a name in the scratch directory.
///
/// # Errors
/// [`SourceError::File`] with the directory, [`SourceError::Malformed`] for a stream that does not decompress,
/// [`SourceError::Limit`] for a bomb.
pub(super) fn spool(
    from: impl io::Read,
    compression: Compression,
    options: &Options,
    name: &str,
) -> Result<Arc<File>, SourceError> {
    use io::Write as _;
    let unwritable = |cause| SourceError::file("write a temporary file in", &options.scratch, cause);
    let mut file = tempfile::tempfile_in(&options.scratch).map_err(unwritable)?;
    let broken = |error: &io::Error| SourceError::malformed(name, format!("it does not decompress: {error}"));
    let mut from = sniff::decoder(from, compression).map_err(|error| broken(&error))?;
    let mut buffer = vec![0; 1 << 17];
    let mut len = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(Arc::new(file)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(&error)),
        };
        len += read as u64;
        if len > options.limit {
            return Err(SourceError::Limit { what: name.to_owned(), limit: options.limit });
        }
        file.write_all(&buffer[..read]).map_err(unwritable)?;
    }
}

/// A path by which this process opens a file without a name.
#[must_use]
pub(super) fn descriptor_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(normal("./a//b/../c"), "a/c");
        assert_eq!(normal("../../etc/passwd"), "etc/passwd");
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("a/layer.tar", "/b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("x", "y"), "y");
    }

    #[test]
    fn links_are_followed_and_loops_are_seen() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, link: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, name, bytes).expect("added");
            } else {
                builder.append_link(&mut header, name, link).expect("added");
            }
        };
        add("./1/layer.tar", tar::EntryType::Regular, "", b"one");
        add("2/layer.tar", tar::EntryType::Symlink, "../1/layer.tar", b"");
        add("3/layer.tar", tar::EntryType::Link, "2/layer.tar", b"");
        add("a", tar::EntryType::Symlink, "b", b"");
        add("b", tar::EntryType::Symlink, "a", b"");
        let bytes = builder.into_inner().expect("a tar");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.tar");
        fs::write(&path, &bytes).expect("written");
        let files = Files::Tar(TarFiles::open(path.clone(), "x".into(), None).expect("a table"));
        for name in ["1/layer.tar", "2/layer.tar", "3/layer.tar", "./3//layer.tar"] {
            assert_eq!(files.read(name, 100).expect("read").as_deref(), Some(&b"one"[..]), "{name}");
        }
        assert!(files.find("nope").expect("looked").is_none());
        assert!(files.find("a").is_err());
        assert!(files.read("1/layer.tar", 2).is_err(), "over the limit");
        fs::write(&path, &bytes[..514]).expect("written");
        assert!(TarFiles::open(path, "x".into(), None).is_err(), "cut short");
    }
}
