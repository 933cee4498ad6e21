//! Images that come from no registry: loaded from archives, imported, made of containers. They are kept as pulled ones are.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Pulled, Store, StoreError, digest};
use crate::source::{Blob, Compression, SourceError, sniff};

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Digest of the blob.
    pub digest: String,
    /// Its length.
    pub size: u64,
    /// Digest of the tar in it.
    pub diff_id: String,
    /// How it is compressed.
    pub compression: Compression,
}

impl StoredLayer {
    /// The image specification's name for its kind.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        match self.compression {
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            // Others have no registered name; whoever reads them recognises them by their first bytes.
            Compression::None | Compression::Xz | Compression::Bzip2 => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

impl Store {
    /// Takes a run of bytes in as a layer. The digests are computed; the ones expected, if any, must be the same.
    ///
    /// # Errors
    /// [`SourceError::Digest`] for damage, [`SourceError::Store`] for what cannot be written.
    pub fn add_layer(
        &self,
        blob: &Blob,
        compression: Compression,
        expected: Option<&str>,
        diff_id: Option<&str>,
        what: &str,
    ) -> Result<StoredLayer, SourceError> {
        // Forms that have no registered name are unpacked on the way, unless a manifest names the blob as it is.
        let unpack = expected.is_none() && matches!(compression, Compression::Xz | Compression::Bzip2);
        let unreadable = |cause| SourceError::file("read", &blob.file, cause);
        let mut from = File::open(&blob.file).map_err(unreadable)?;
        from.seek(SeekFrom::Start(blob.offset)).map_err(unreadable)?;
        let directory = self.root().join("partial");
        let unwritable = |cause| StoreError::File { action: "write in", path: directory.clone(), cause };
        let mut temporary = tempfile::Builder::new().prefix("layer-").tempfile_in(&directory).map_err(unwritable)?;
        // Nobody collects it meanwhile.
        let _ = super::lock::try_exclusive(temporary.as_file()).map_err(unwritable)?;
        let mut stored = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 1 << 18];
        let taken: Box<dyn io::Read> = if unpack {
            Box::new(sniff::decoder(io::BufReader::new(from.take(blob.len)), compression).map_err(unreadable)?)
        } else {
            Box::new(from.take(blob.len))
        };
        let mut taken = taken;
        loop {
            let read = match taken.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            stored.update(&buffer[..read]);
            temporary.write_all(&buffer[..read]).map_err(unwritable)?;
            size += read as u64;
        }
        let digest = written(stored);
        let compression = if unpack { Compression::None } else { compression };
        let differs = |expected: &str, actual: &str| SourceError::Digest {
            what: what.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
        };
        if let Some(expected) = expected.filter(|expected| !unpack && *expected != digest) {
            return Err(differs(expected, &digest));
        }
        let found = match compression {
            Compression::None => digest.clone(),
            _ => {
                let file = File::open(temporary.path()).map_err(unwritable)?;
                let mut tar = sniff::decoder(io::BufReader::new(file), compression).map_err(unreadable)?;
                let mut hasher = Sha256::new();
                let broken =
                    |error: io::Error| SourceError::malformed(what, format!("it does not decompress: {error}"));
                loop {
                    match tar.read(&mut buffer).map_err(broken)? {
                        0 => break,
                        read => hasher.update(&buffer[..read]),
                    }
                }
                written(hasher)
            }
        };
        if let Some(diff_id) = diff_id.filter(|diff_id| **diff_id != found) {
            return Err(differs(diff_id, &found));
        }
        let parsed = digest::parse(&digest).unwrap_or_else(|| unreachable!("sha256 gives a digest"));
        let path = self.blob_path(&parsed);
        temporary
            .as_file()
            .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .and_then(|()| temporary.persist(&path).map(drop).map_err(|error| error.error))
            .map_err(|cause| StoreError::File { action: "write", path, cause })?;
        Ok(StoredLayer { digest, size, diff_id: found, compression })
    }

    /// Takes an image in whose layers are there already, under each of the names. Without a manifest one is made. Gives the
    /// manifest's digest.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn add_image(
        &self,
        names: &[String],
        platform: &str,
        layers: &[StoredLayer],
        config: &[u8],
        manifest: Option<&[u8]>,
    ) -> Result<String, StoreError> {
        let put = |bytes: &[u8]| {
            let digest = digest::sha256(bytes);
            let parsed = digest::parse(&digest).unwrap_or_else(|| unreachable!("sha256 gives a digest"));
            self.put_blob(&parsed, bytes).map(|()| digest)
        };
        let config_digest = put(config)?;
        let made;
        let manifest = if let Some(manifest) = manifest {
            manifest
        } else {
            let layer = |layer: &StoredLayer| json!({ "mediaType": layer.media_type(), "digest": layer.digest, "size": layer.size });
            made = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config_digest,
                    "size": config.len(),
                },
                "layers": layers.iter().map(layer).collect::<Vec<_>>(),
            })
            .to_string();
            made.as_bytes()
        };
        let digest = put(manifest)?;
        let size = config.len() as u64 + layers.iter().map(|layer| layer.size).sum::<u64>();
        for name in names {
            let pulled = Pulled { manifest: digest.clone(), target: digest.clone(), size, pulled: super::now() };
            self.record(name, platform, pulled)?;
        }
        Ok(digest)
    }

    /// A blob that must be there: its file.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub fn must_have(&self, digest: &str, of: &str) -> Result<PathBuf, StoreError> {
        let missing = || StoreError::Missing { digest: digest.to_owned(), of: of.to_owned() };
        let parsed = digest::parse(digest).ok_or_else(missing)?;
        let path = self.blob_path(&parsed);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(path),
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::File { action: "look at", path, cause })
            }
            _ => Err(missing()),
        }
    }
}

fn written(hasher: Sha256) -> String {
    let digest: [u8; 32] = hasher.finalize().into();
    format!("sha256:{}", coracle_format::hex(&digest))
}
