//! Blobs into the store: resumed where an earlier try stopped, verified while they stream.
//!
//! Bytes go to the partial file and the hasher together, so a cut connection costs nothing: the next request asks for the
//! rest. What counts as progress is being further than ever before, so a server that always breaks at the same place is
//! given up, and a slow line never.

use std::io::{Seek as _, SeekFrom, Write as _};

use oci_spec::image::Descriptor;
use reqwest::{Method, StatusCode, header::CONTENT_RANGE};

use super::{
    RegistryError,
    client::{Ask, Client},
    error::{innermost, seconds},
    retry,
};
use crate::{
    source::{Options, SourceError},
    store::{
        Claim, Partial, Store, StoreError,
        digest::{self, Hasher},
    },
};

/// Brings a blob into the store, if it is not there.
pub(super) async fn fetch(
    client: &Client,
    store: &Store,
    blob: &Descriptor,
    options: &Options,
) -> Result<std::path::PathBuf, SourceError> {
    let (digest, size) = (blob.digest(), blob.size());
    let mut waited = false;
    let partial = loop {
        // A blob that was in the store before is read once more: disks rot. One that another pull has just brought is not.
        let there = if waited {
            store.blob(digest, Some(size))?
        } else {
            let (store, digest) = (store.clone(), digest.clone());
            blocking(move || store.verified_blob(&digest, Some(size))).await??
        };
        if let Some(path) = there {
            options.progress.done(digest.as_ref(), size, false);
            return Ok(path);
        }
        match store.claim(digest, size)? {
            Claim::Ours(partial) => break partial,
            Claim::There(_) => waited = true,
            Claim::Busy => {
                if !waited {
                    options.progress.note(&format!("waiting for another pull that downloads {digest}"));
                }
                waited = true;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    };
    let path = download(client, partial, blob, options).await?;
    options.progress.done(digest.as_ref(), size, true);
    Ok(path)
}

/// A download under way.
struct Transfer<'transfer> {
    partial: Partial,
    hasher: Hasher,
    have: u64,
    size: u64,
    digest: &'transfer str,
    options: &'transfer Options,
}

async fn download(
    client: &Client,
    partial: Partial,
    blob: &Descriptor,
    options: &Options,
) -> Result<std::path::PathBuf, SourceError> {
    let digest = blob.digest();
    let registry = client.endpoint.name.clone();
    let mut transfer = Transfer::begin(partial, blob, options).await?;
    // Bytes from an earlier run may be what is wrong; bytes that this one fetched from the start are the registry's fault.
    let mut resumed = transfer.have > 0;
    loop {
        transfer.complete(client).await?;
        let actual = transfer.hasher.clone().finish();
        if actual == digest.as_ref() {
            return Ok(transfer.partial.finish()?);
        }
        if !resumed {
            transfer.partial.abandon();
            return Err(RegistryError::Digest { registry, what: format!("blob {digest}"), actual }.into());
        }
        options
            .progress
            .note(&format!("what was left of an earlier download of {digest} is damaged: fetching it anew"));
        transfer.restart(blob)?;
        resumed = false;
    }
}

impl<'transfer> Transfer<'transfer> {
    /// Takes up what an earlier try has left.
    async fn begin(
        mut partial: Partial,
        blob: &'transfer Descriptor,
        options: &'transfer Options,
    ) -> Result<Self, SourceError> {
        let size = blob.size();
        let hasher = hasher(blob)?;
        let unreadable =
            |path: &std::path::Path, cause| StoreError::File { action: "read", path: path.to_owned(), cause };
        let mut have = partial.file.metadata().map_err(|cause| unreadable(partial.path(), cause))?.len();
        if have > size {
            partial.restart()?;
            have = 0;
        }
        let (partial, hasher) = blocking(move || {
            let mut hasher = hasher;
            let read = partial.file.rewind().and_then(|()| digest::feed(&mut hasher, &partial.file, have));
            let read = read.and_then(|()| partial.file.seek(SeekFrom::Start(have)));
            match read {
                Ok(_) => Ok((partial, hasher)),
                Err(cause) => Err(unreadable(partial.path(), cause)),
            }
        })
        .await??;
        let transfer = Self { partial, hasher, have, size, digest: blob.digest().as_ref(), options };
        transfer.options.progress.begin(transfer.digest, size, have);
        Ok(transfer)
    }

    /// Forgets what there is.
    fn restart(&mut self, blob: &Descriptor) -> Result<(), SourceError> {
        self.partial.restart()?;
        self.hasher = hasher(blob)?;
        self.have = 0;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), SourceError> {
        self.partial.restart()?;
        self.hasher = match &self.hasher {
            Hasher::Sha256(_) => Hasher::Sha256(Default::default()),
            Hasher::Sha384(_) => Hasher::Sha384(Default::default()),
            Hasher::Sha512(_) => Hasher::Sha512(Default::default()),
        };
        self.have = 0;
        Ok(())
    }

    /// Gets every byte that is missing.
    async fn complete(&mut self, client: &Client) -> Result<(), SourceError> {
        let retry = &self.options.retry;
        let (mut attempt, mut best) = (0, self.have);
        while self.have < self.size {
            let why = match self.attempt(client).await? {
                None => continue,
                Some(why) => why,
            };
            if self.have > best {
                best = self.have;
                attempt = 0;
            }
            attempt += 1;
            if attempt >= retry.attempts {
                return Err(RegistryError::Broken {
                    registry: client.endpoint.name.clone(),
                    what: format!("blob {}", self.digest),
                    why,
                    have: self.have,
                    size: self.size,
                }
                .into());
            }
            let wait = retry::pause(retry, attempt);
            self.options.progress.note(&format!(
                "the download of {} broke at {} of {} bytes ({why}): going on in {}",
                self.digest,
                self.have,
                self.size,
                seconds(wait)
            ));
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// One request; `Some(why)` if the stream broke before the end.
    async fn attempt(&mut self, client: &Client) -> Result<Option<String>, SourceError> {
        let path = format!("blobs/{}", self.digest);
        let what = format!("blob {}", self.digest);
        let ask = Ask { method: Method::GET, path: &path, accept: None, from: self.have, what };
        let mut response = client.ask(&ask).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(self.have) => {}
            StatusCode::OK => {
                if self.have > 0 {
                    // It does not know ranges, and sends everything again.
                    self.reset()?;
                }
            }
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::Status {
                    registry: client.endpoint.name.clone(),
                    what: ask.what,
                    status: "404 Not Found".to_owned(),
                    detail: "the image is incomplete there: push it again".to_owned(),
                }
                .into());
            }
            // A range that it cannot give, or another one than asked for.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                self.reset()?;
                return Ok(Some("the registry gives another range than asked for".to_owned()));
            }
            other => {
                return Err(RegistryError::Status {
                    registry: client.endpoint.name.clone(),
                    what: ask.what,
                    status: other.to_string(),
                    detail: String::new(),
                }
                .into());
            }
        }
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    if self.have + chunk.len() as u64 > self.size {
                        self.partial.restart()?;
                        let registry = client.endpoint.name.clone();
                        return Err(RegistryError::TooLarge { registry, what: ask.what, limit: self.size }.into());
                    }
                    self.partial.file.write_all(&chunk).map_err(|cause| StoreError::File {
                        action: "write",
                        path: self.partial.path().to_owned(),
                        cause,
                    })?;
                    self.hasher.update(&chunk);
                    self.have += chunk.len() as u64;
                    self.options.progress.at(self.digest, self.have);
                }
                Ok(None) if self.have == self.size => return Ok(None),
                Ok(None) => return Ok(Some("the registry ends it too early".to_owned())),
                Err(error) => return Ok(Some(innermost(&error))),
            }
        }
    }
}

fn hasher(blob: &Descriptor) -> Result<Hasher, SourceError> {
    Hasher::like(blob.digest()).ok_or_else(|| SourceError::Unsupported {
        what: format!("blob {}", blob.digest()),
        why: "it is named by an unknown kind of digest".to_owned(),
    })
}

/// Where a partial answer begins.
fn starts_at(response: &reqwest::Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SourceError::malformed("a blob", format!("the thread that read it failed: {error}")))
}
