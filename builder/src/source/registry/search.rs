//! Looking around in a registry: repositories by a word, tags of a repository, documents as they are.
//!
//! Docker's own registry has a search of its own (`/v1/search`), as some others do; elsewhere the catalog is read, which
//! is what the distribution specification's registry offers.

use reqwest::Method;
use serde::Deserialize;

use super::{
    block_on,
    client::{self, Ask, Client, Endpoint},
    endpoints, session,
};
use crate::{
    source::{Options, Platform, Reference, SourceError, reference::DEFAULT_REGISTRY},
    store::Store,
};

/// The longest answer that is read.
const LIMIT: u64 = 16 << 20;
/// Pages of a list that are read at most.
const PAGES: usize = 1000;

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hit {
    /// Its name, without the registry's.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// How many users like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Docker itself looks after it.
    #[serde(rename = "is_official")]
    pub official: bool,
}

#[derive(Deserialize)]
struct Found {
    results: Vec<Hit>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    repositories: Vec<String>,
    tags: Option<Vec<String>>,
}

/// Repositories of a registry that fit a word.
///
/// # Errors
/// [`SourceError::Registry`].
pub fn search(registry: &str, term: &str, limit: usize, options: &Options) -> Result<Vec<Hit>, SourceError> {
    let endpoint = if registry == DEFAULT_REGISTRY {
        let (name, host) = (registry.to_owned(), "index.docker.io".to_owned());
        Some(Endpoint { name, host, prefix: String::new(), http: false, insecure: options.insecure })
    } else {
        endpoints(registry, options)?.pop()
    };
    block_on(async move {
        let Some(endpoint) = endpoint else { return Ok(Vec::new()) };
        let client = Client::new(endpoint, "", String::new(), options)?;
        let path = format!("/v1/search?q={}&n={}", escaped(term), limit.clamp(1, 100));
        let what = format!("a search for {term:?}");
        match get(&client, &path, &what).await {
            Ok(Some((bytes, _))) => {
                if let Ok(found) = serde_json::from_slice::<Found>(&bytes) {
                    return Ok(found.results.into_iter().take(limit).collect());
                }
            }
            Err(error) if registry == DEFAULT_REGISTRY => return Err(error),
            // It has no such search; whatever else is wrong shows at the catalog too.
            _ => {}
        }
        let listed = list(&client, "/v2/_catalog?n=1000", "its catalog").await?;
        let names = listed.into_iter().flat_map(|page| page.repositories).filter(|name| name.contains(term));
        Ok(names.map(|name| Hit { name, ..Hit::default() }).take(limit).collect())
    })
}

/// Tags of a repository, as the registry orders them.
///
/// # Errors
/// [`SourceError::Registry`].
pub fn tags(reference: &Reference, options: &Options) -> Result<Vec<String>, SourceError> {
    let endpoints = endpoints(&reference.registry, options)?;
    block_on(async move {
        let Some(endpoint) = endpoints.into_iter().next_back() else { return Ok(Vec::new()) };
        let client = Client::new(endpoint, &reference.repository, reference.name(), options)?;
        let pages = list(&client, "tags/list?n=1000", &format!("the tags of {}", reference.name())).await?;
        Ok(pages.into_iter().flat_map(|page| page.tags.unwrap_or_default()).collect())
    })
}

/// The bytes of what a reference names: an index or a manifest; with a platform, that platform's manifest.
///
/// # Errors
/// [`SourceError`].
pub fn document(
    reference: &Reference,
    platform: Option<&Platform>,
    store: &Store,
    options: &Options,
) -> Result<Vec<u8>, SourceError> {
    let _using = store.use_blobs()?;
    block_on(session::document(reference, platform, store, options))
}

async fn list(client: &Client, first: &str, what: &str) -> Result<Vec<Listed>, SourceError> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next.take().filter(|_| pages.len() < PAGES) {
        let Some((bytes, link)) = get(client, &path, what).await? else {
            return Err(client.not_found().await.into());
        };
        let page = serde_json::from_slice(&bytes).map_err(|error| SourceError::malformed(what, error))?;
        pages.push(page);
        // Only to the same registry: a link elsewhere is not followed.
        next = link.filter(|link| link.starts_with('/') && !link.starts_with("//"));
    }
    Ok(pages)
}

/// An answer's body, and where the next page is; `None` if there is nothing of that name.
async fn get(client: &Client, path: &str, what: &str) -> Result<Option<(Vec<u8>, Option<String>)>, SourceError> {
    let ask = Ask { method: Method::GET, path, accept: None, from: 0, what: what.to_owned() };
    let response = client.ask(&ask).await?;
    if !response.status().is_success() {
        return Ok(None);
    }
    let link = response.headers().get("link").and_then(|value| value.to_str().ok()).and_then(next_page);
    let bytes = client::body(response, LIMIT, what, &client.endpoint.name).await?;
    Ok(Some((bytes, link)))
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    let (target, rest) = header.trim().strip_prefix('<')?.split_once('>')?;
    let rest = rest.replace([' ', '"'], "");
    rest.contains("rel=next").then(|| target.to_owned())
}

/// A word as part of a query (RFC 3986).
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_words() {
        let link = "</v2/_catalog?last=a&n=1>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("/v2/_catalog?last=a&n=1"));
        assert_eq!(next_page("</x>; rel=prev"), None);
        assert_eq!(next_page("x"), None);
        assert_eq!(escaped("a b/é"), "a%20b%2F%C3%A9");
    }
}
