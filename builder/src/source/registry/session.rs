//! From a reference to an image: which manifest it means, asked of the registry or of the store; then the blobs.

use std::{sync::Arc, time::SystemTime};

use coracle_format::{Defaults, Provenance};
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci_spec::image::{Descriptor, ImageManifest};
use reqwest::Method;

use super::{
    RegistryError,
    client::{self, Ask, Client},
    endpoints, transfer,
};
use crate::{
    source::{
        Blob, Content, Image, Options, Platform, PullPolicy, Reference, SourceError, files,
        manifest::{self, Document},
        platform,
    },
    store::{
        Pulled, Store,
        digest::{self, Digest},
    },
};

/// One image being fetched.
struct Session<'session> {
    reference: &'session Reference,
    store: &'session Store,
    options: &'session Options,
    /// Mirrors first, the registry last; empty if it must not be asked.
    clients: Vec<Client>,
}

/// What a reference led to.
struct Found {
    /// What the reference itself names.
    target: Digest,
    digest: Digest,
    manifest: Box<ImageManifest>,
}

/// See [`super::image`].
pub(super) async fn image(reference: &Reference, store: &Store, options: &Options) -> Result<Image, SourceError> {
    let host = Platform::host();
    let platform = options.platform.as_ref().unwrap_or(&host);
    let online = Session::new(reference, store, options)?;
    let offline = Session { clients: Vec::new(), ..Session::new(reference, store, options)? };
    let known = match &reference.digest {
        Some(digest) => Some(digest.clone()),
        None => store
            .image(&reference.to_string())?
            .and_then(|record| digest::parse(&record.platforms.get(&platform.to_string())?.target)),
    };
    // Nothing is collected until the image is flattened.
    let using = store.use_blobs()?;
    let mut image = match (options.pull, known) {
        (PullPolicy::Never, None) => Err(offline.not_pulled(platform)),
        (PullPolicy::Never, Some(target)) => offline.get(target, platform).await,
        // A digest means one image for ever, and `missing` takes what is there: ask only for what is not.
        (PullPolicy::Missing | PullPolicy::Reuse, Some(target)) => online.get(target, platform).await,
        (_, Some(target)) if reference.digest.is_some() => online.get(target, platform).await,
        (PullPolicy::Newer, Some(target)) => match online.target(Some(&target)).await {
            Ok(target) => online.get(target, platform).await,
            Err(SourceError::Registry(error))
                if error.is_unreachable() && offline.is_complete(&target, platform).await =>
            {
                options.progress.note(&format!("{error}; using {reference} as it was pulled before"));
                offline.get(target, platform).await
            }
            Err(error) => Err(error),
        },
        (_, known) => {
            let target = online.target(known.as_ref()).await?;
            online.get(target, platform).await
        }
    }?;
    image.spools.extend(using.map(Arc::new));
    Ok(image)
}

/// See [`super::offers`].
pub(super) async fn platforms(
    reference: &Reference,
    store: &Store,
    options: &Options,
) -> Result<Vec<Platform>, SourceError> {
    let session = Session::new(reference, store, options)?;
    let target = match &reference.digest {
        Some(digest) => digest.clone(),
        None => session.target(None).await?,
    };
    match session.document(&target).await? {
        Document::Index(index) => Ok(platform::candidates(&index, &Platform::host()).1),
        Document::Manifest(manifest) => {
            let bytes = session.small(manifest.config(), manifest::CONFIG_LIMIT).await?;
            let config = manifest::parse_config(&bytes, "the config")?.config;
            Ok(vec![Platform { os: config.os, architecture: config.architecture, variant: config.variant }])
        }
    }
}

/// See [`super::search::document`].
pub(super) async fn document(
    reference: &Reference,
    platform: Option<&Platform>,
    store: &Store,
    options: &Options,
) -> Result<Vec<u8>, SourceError> {
    let session = Session::new(reference, store, options)?;
    let mut digest = match &reference.digest {
        Some(digest) => digest.clone(),
        None => session.target(None).await?,
    };
    session.document(&digest).await?;
    if let Some(platform) = platform {
        digest = session.find(digest, platform).await?.digest;
    }
    store.read_blob(&digest, manifest::MANIFEST_LIMIT)?.ok_or_else(|| session.not_pulled(&Platform::host()))
}

impl<'session> Session<'session> {
    fn new(
        reference: &'session Reference,
        store: &'session Store,
        options: &'session Options,
    ) -> Result<Self, SourceError> {
        let clients = if options.pull == PullPolicy::Never {
            Vec::new()
        } else {
            endpoints(&reference.registry, options)?
                .into_iter()
                .map(|endpoint| Client::new(endpoint, &reference.repository, reference.to_string(), options))
                .collect::<Result<_, _>>()?
        };
        Ok(Self { reference, store, options, clients })
    }

    fn not_pulled(&self, platform: &Platform) -> SourceError {
        SourceError::NotPulled { image: self.reference.to_string(), platform: platform.clone() }
    }

    /// The digest that the reference's tag means now. If it is the known one, its documents need not be fetched again.
    async fn target(&self, known: Option<&Digest>) -> Result<Digest, SourceError> {
        let mut failed = None;
        for client in &self.clients {
            match self.target_at(client, known).await {
                Ok(digest) => return Ok(digest),
                Err(error) => failed = Some(self.next(client, failed, error)),
            }
        }
        Err(failed.unwrap_or_else(|| self.not_pulled(&Platform::host())))
    }

    /// Notes that a mirror failed; gives the error to report if nothing else works, which is the registry's own.
    fn next(&self, client: &Client, _before: Option<SourceError>, error: SourceError) -> SourceError {
        if client.endpoint.name != self.reference.registry {
            self.options.progress.note(&format!("mirror {}: {error}", client.endpoint.name));
        }
        error
    }

    async fn target_at(&self, client: &Client, known: Option<&Digest>) -> Result<Digest, SourceError> {
        let path = format!("manifests/{}", self.reference.target());
        let mut ask = Ask {
            method: Method::HEAD,
            path: &path,
            accept: Some(manifest::ACCEPT.join(", ")),
            from: 0,
            what: format!("the manifest of {}", self.reference),
        };
        if let Some(known) = known {
            let response = client.ask(&ask).await?;
            let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            if response.status().is_success() && said == Some(known.as_ref()) {
                return Ok(known.clone());
            }
        }
        ask.method = Method::GET;
        let response = client.ask(&ask).await?;
        if !response.status().is_success() {
            return Err(client.not_found().await.into());
        }
        let said =
            response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = client::body(response, manifest::MANIFEST_LIMIT, &ask.what, &client.endpoint.name).await?;
        manifest::parse(&bytes, &ask.what)?;
        // The registry's own digest may be by another algorithm; whichever it is, the bytes must have it.
        let said = said.as_deref().and_then(digest::parse);
        let actual = digest::sha256(&bytes);
        let digest = match said {
            Some(said) => check(&bytes, said, &ask.what, &client.endpoint.name)?,
            None => digest::parse(&actual).unwrap_or_else(|| unreachable!("sha256 gives a digest")),
        };
        self.store.put_blob(&digest, &bytes)?;
        Ok(digest)
    }

    /// A manifest or index by digest, from the store or a registry.
    async fn document(&self, digest: &Digest) -> Result<Document, SourceError> {
        let what = format!("the manifest {digest} of {}", self.reference);
        if let Some(bytes) = self.store.read_blob(digest, manifest::MANIFEST_LIMIT)? {
            return manifest::parse(&bytes, &what);
        }
        let mut failed = None;
        for client in &self.clients {
            match self.document_at(client, digest, &what).await {
                Ok(bytes) => {
                    let document = manifest::parse(&bytes, &what)?;
                    self.store.put_blob(digest, &bytes)?;
                    return Ok(document);
                }
                Err(error) => failed = Some(self.next(client, failed, error)),
            }
        }
        Err(failed.unwrap_or_else(|| self.not_pulled(&Platform::host())))
    }

    async fn document_at(&self, client: &Client, digest: &Digest, what: &str) -> Result<Vec<u8>, SourceError> {
        let path = format!("manifests/{digest}");
        let accept = Some(manifest::ACCEPT.join(", "));
        let ask = Ask { method: Method::GET, path: &path, accept, from: 0, what: what.to_owned() };
        let response = client.ask(&ask).await?;
        if !response.status().is_success() {
            return Err(client.not_found().await.into());
        }
        let bytes = client::body(response, manifest::MANIFEST_LIMIT, what, &client.endpoint.name).await?;
        check(&bytes, digest.clone(), what, &client.endpoint.name)?;
        Ok(bytes)
    }

    /// Goes down through indexes to the platform's manifest.
    async fn find(&self, target: Digest, platform: &Platform) -> Result<Found, SourceError> {
        let mut has = Vec::new();
        let mut open = vec![target.clone()];
        for _ in 0..manifest::SEARCH_LIMIT {
            let Some(digest) = open.pop() else { break };
            match self.document(&digest).await? {
                Document::Manifest(manifest) => return Ok(Found { target, digest, manifest }),
                Document::Index(index) => {
                    let (found, offers) = platform::candidates(&index, platform);
                    has.extend(offers);
                    open.extend(found.into_iter().rev().map(|entry| entry.digest().clone()));
                }
            }
        }
        has.sort();
        has.dedup();
        Err(SourceError::NoPlatform { image: self.reference.to_string(), wanted: platform.clone(), has })
    }

    /// A small blob: a config.
    async fn small(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError> {
        if blob.size() > limit {
            let what = format!("the config of {}", self.reference);
            return Err(RegistryError::TooLarge { registry: self.reference.registry.clone(), what, limit }.into());
        }
        if let Some(bytes) = self.store.read_blob(blob.digest(), limit)? {
            return Ok(bytes);
        }
        self.blob(blob).await?;
        self.store.read_blob(blob.digest(), limit)?.ok_or_else(|| SourceError::Digest {
            what: format!("{} in the store", blob.digest()),
            expected: blob.digest().to_string(),
            actual: "another".to_owned(),
        })
    }

    /// Brings a blob into the store.
    async fn blob(&self, blob: &Descriptor) -> Result<std::path::PathBuf, SourceError> {
        let mut failed = None;
        for client in &self.clients {
            match transfer::fetch(client, self.store, blob, self.options).await {
                Ok(path) => return Ok(path),
                // A full disk is full for every mirror.
                Err(error @ SourceError::Store(_)) => return Err(error),
                Err(error) => failed = Some(self.next(client, failed, error)),
            }
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        let there = self.store.verified_blob(blob.digest(), Some(blob.size()))?;
        there.ok_or_else(|| self.not_pulled(&Platform::host()))
    }

    /// Whether the store has everything already.
    async fn is_complete(&self, target: &Digest, platform: &Platform) -> bool {
        let Ok(found) = self.find(target.clone(), platform).await else { return false };
        let mut blobs = found.manifest.layers().iter().chain([found.manifest.config()]);
        blobs.all(|blob| matches!(self.store.blob(blob.digest(), Some(blob.size())), Ok(Some(_))))
    }

    /// Everything of the image that a target means.
    async fn get(&self, target: Digest, platform: &Platform) -> Result<Image, SourceError> {
        let found = self.find(target, platform).await?;
        let manifest = &found.manifest;
        let name = self.reference.to_string();
        let bytes = self.small(manifest.config(), manifest::CONFIG_LIMIT).await?;
        let config = manifest::parse_config(&bytes, &format!("the config of {name}"))?;
        manifest::check_config(&config, manifest.layers().len(), self.options.platform.as_ref(), &name)?;
        // A layer may be listed twice (an empty one often is); it is one blob.
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for layer in manifest.layers() {
            if !blobs.iter().any(|blob| blob.digest() == layer.digest()) {
                blobs.push(layer);
            }
        }
        futures_util::stream::iter(blobs)
            .map(|blob| self.blob(blob))
            .buffer_unordered(self.options.jobs.max(1))
            .try_collect::<Vec<_>>()
            .await?;
        let layers = manifest
            .layers()
            .iter()
            .zip(&config.diff_ids)
            .map(|(layer, diff_id)| {
                let file = self.store.blob_path(layer.digest());
                files::layer(
                    Blob { file, offset: 0, len: layer.size() },
                    Some(layer.digest().to_string()),
                    Some(diff_id),
                )
            })
            .collect::<Result<_, _>>()?;
        let size = manifest.layers().iter().chain([manifest.config()]).map(Descriptor::size).sum();
        let pulled = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let record = Pulled { manifest: found.digest.to_string(), target: found.target.to_string(), size, pulled };
        self.store.record(&name, &platform.to_string(), record)?;
        let provenance = Provenance {
            changed: None,
            source: format!("docker://{name}"),
            manifest: Some(found.digest.to_string()),
            config: Some(manifest.config().digest().to_string()),
            layers: manifest::layer_digests(manifest.layers()),
            ..Provenance::default()
        };
        Ok(Image {
            config: config.config,
            content: Content::Layers(layers),
            provenance,
            defaults: Defaults::default(),
            spools: Vec::new(),
        })
    }
}

/// Checks a document's bytes against its digest.
fn check(bytes: &[u8], digest: Digest, what: &str, registry: &str) -> Result<Digest, SourceError> {
    let Some(mut hasher) = digest::Hasher::like(&digest) else {
        return Err(SourceError::Unsupported {
            what: what.to_owned(),
            why: format!("{digest} is an unknown kind of digest"),
        });
    };
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == digest.as_ref() {
        return Ok(digest);
    }
    let what = format!("{what} ({digest})");
    Err(RegistryError::Digest { registry: registry.to_owned(), what, actual }.into())
}
