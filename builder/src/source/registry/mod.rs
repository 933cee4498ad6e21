//! Images from registries (the distribution specification, and Docker's registry before it), by way of the store.
//!
//! From a reference to documents ([`session`]), from documents to blobs (`transfer`), over a client per registry or mirror.
//! This is the only asynchronous part: the functions here block.

mod challenge;
mod client;
pub mod credentials;
mod error;
mod retry;
pub mod search;
mod session;
pub mod settings;
mod tls;
mod token;
mod transfer;

pub use error::RegistryError;

use std::future::Future;

use reqwest::Method;

use super::{Image, Options, Platform, Reference, SourceError, SourceSpec};
use crate::store::Store;
use client::{Ask, Client, Endpoint};

/// Runs asynchronous work to its end.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("coracle-net")
        .enable_all()
        .build()
        .map_err(|cause| SourceError::file("start threads for", "the network", cause))?;
    runtime.block_on(work)
}

/// An image from a registry, or from the store if that will do.
///
/// # Errors
/// [`SourceError`].
pub fn image(reference: &Reference, store: &Store, options: &Options) -> Result<Image, SourceError> {
    block_on(session::image(reference, store, options))
}

/// The platforms that an image has, as far as they can be learnt; for a message.
pub(super) fn offers(spec: &SourceSpec, options: &Options) -> Vec<Platform> {
    let SourceSpec::Docker(reference) = spec else { return Vec::new() };
    let offers = || {
        let store = super::open_store(options)?;
        block_on(session::platforms(reference, &store, options))
    };
    offers().unwrap_or_default()
}

/// Where to find a registry: its mirrors first, then itself.
fn endpoints(registry: &str, options: &Options) -> Result<Vec<Endpoint>, RegistryError> {
    let known = options.registries.get(registry);
    let insecure = options.insecure || known.insecure;
    let mut endpoints = Vec::new();
    for mirror in &known.mirrors {
        let (http, rest) = match (mirror.strip_prefix("http://"), mirror.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => (false, mirror.as_str()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let own_insecure = insecure || options.registries.get(host).insecure;
        if http && !own_insecure && !client::is_loopback(host) {
            return Err(RegistryError::PlainMirror { mirror: mirror.clone() });
        }
        endpoints.push(Endpoint {
            name: host.to_owned(),
            host: host.to_owned(),
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
            http,
            insecure: own_insecure,
        });
    }
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    endpoints.push(Endpoint {
        name: registry.to_owned(),
        host: host.to_owned(),
        prefix: String::new(),
        http: false,
        insecure,
    });
    Ok(endpoints)
}

/// Whether a registry takes a user name and password.
///
/// # Errors
/// [`SourceError::Registry`].
pub fn check_login(registry: &str, user: &str, password: &str, options: &Options) -> Result<(), SourceError> {
    let endpoint = endpoints(registry, options)?.pop();
    block_on(async move {
        let Some(endpoint) = endpoint else { return Ok(()) };
        let credentials = credentials::Credentials::Basic(user.to_owned(), password.to_owned());
        let client = Client::new(endpoint, "", String::new(), options)?.with_credentials(credentials);
        let ask = Ask { method: Method::GET, path: "", accept: None, from: 0, what: "a login".to_owned() };
        client.ask(&ask).await?;
        Ok(())
    })
}

/// TLS settings for a client that will not use them.
pub(super) fn plain_tls(options: &Options) -> Result<rustls::ClientConfig, RegistryError> {
    tls::config("localhost", true, options)
}

pub(super) use error::{innermost as reason, tame};
