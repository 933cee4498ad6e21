//! One registry (or mirror) and one repository in it: requests with whatever login it wants, tried again where that helps.
//!
//! The first request finds out how the registry is spoken to: https; or http for a loopback address or where it was
//! allowed. Its challenge says which login it wants; a token is fetched when it is first needed and again when it has
//! expired.

use std::{fmt, net::IpAddr, time::SystemTime};

use reqwest::{
    Client as Http, Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, RANGE, WWW_AUTHENTICATE},
};
use tokio::sync::{Mutex, OnceCell};

use super::{
    RegistryError, challenge,
    credentials::{self, Credentials},
    error::{cause, innermost, seconds, tame},
    retry, tls, token,
};
use crate::source::Options;

/// Where a registry is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The name that messages and credentials know it by.
    pub(super) name: String,
    /// `HOST[:PORT]` to connect to.
    pub(super) host: String,
    /// Before the repository, with a slash at its end, or empty.
    pub(super) prefix: String,
    /// Plain http is what its address says.
    pub(super) http: bool,
    /// Plain http and unknown certificates are allowed.
    pub(super) insecure: bool,
}

/// A connection to a repository.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    /// With the endpoint's prefix; empty for login.
    repository: String,
    /// For messages.
    image: String,
    http: Http,
    options: Options,
    base: OnceCell<String>,
    /// The `Authorization` that the registry takes.
    authorization: Mutex<Option<String>>,
    /// Whether credentials were found, and whose.
    user: OnceCell<Option<Credentials>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// What to ask for.
#[derive(Debug, Clone)]
pub(super) struct Ask<'ask> {
    pub(super) method: Method,
    /// Below the repository: `manifests/latest`; or the registry's own, from its slash on.
    pub(super) path: &'ask str,
    pub(super) accept: Option<String>,
    /// The first byte wanted.
    pub(super) from: u64,
    /// For messages.
    pub(super) what: String,
}

impl Client {
    /// Sets up a connection; nothing is sent yet.
    pub(super) fn new(
        endpoint: Endpoint,
        repository: &str,
        image: String,
        options: &Options,
    ) -> Result<Self, RegistryError> {
        let http = http(&endpoint, options)?;
        let repository = if repository.is_empty() { String::new() } else { format!("{}{repository}", endpoint.prefix) };
        Ok(Self {
            endpoint,
            repository,
            image,
            http,
            options: options.clone(),
            base: OnceCell::new(),
            authorization: Mutex::new(None),
            user: OnceCell::new(),
        })
    }

    /// Uses these credentials instead of those in files.
    pub(super) fn with_credentials(self, credentials: Credentials) -> Self {
        Self { user: OnceCell::new_with(Some(Some(credentials))), ..self }
    }

    fn name(&self) -> String {
        self.endpoint.name.clone()
    }

    /// `http[s]://HOST`, found out by asking for `/v2/`.
    async fn base(&self) -> Result<&str, RegistryError> {
        self.base.get_or_try_init(|| self.find_base()).await.map(String::as_str)
    }

    async fn find_base(&self) -> Result<String, RegistryError> {
        let host = &self.endpoint.host;
        let may_be_http = self.endpoint.insecure || is_loopback(host);
        let mut refused = None;
        if !self.endpoint.http {
            let base = format!("https://{host}");
            match self.send(&|| self.http.get(format!("{base}/v2/")), "its version", true).await {
                Ok(response) => {
                    self.learn(response.headers()).await?;
                    return Ok(base);
                }
                Err(error @ RegistryError::PlainHttp { .. }) if may_be_http => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let base = format!("http://{host}");
        match self.send(&|| self.http.get(format!("{base}/v2/")), "its version", true).await {
            Ok(response) => {
                self.learn(response.headers()).await?;
                Ok(base)
            }
            Err(error) => Err(refused.unwrap_or(error)),
        }
    }

    /// Makes a request, logs in if that is wanted, and gives an answer of success (2xx), 404 or 416.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let base = self.base().await?.to_owned();
        let url = if ask.path.starts_with('/') {
            format!("{base}{}", ask.path)
        } else if self.repository.is_empty() {
            format!("{base}/v2/")
        } else {
            format!("{base}/v2/{}/{}", self.repository, ask.path)
        };
        let mut renewed = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let make = || {
                let mut request = self.http.request(ask.method.clone(), &url);
                if let Some(accept) = &ask.accept {
                    request = request.header(ACCEPT, accept);
                }
                if ask.from > 0 {
                    request = request.header(RANGE, format!("bytes={}-", ask.from));
                }
                match &authorization {
                    Some(value) => request.header(AUTHORIZATION, value),
                    None => request,
                }
            };
            let response = self.send(&make, &ask.what, false).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                let mut current = self.authorization.lock().await;
                // Another download may have renewed the token meanwhile.
                if *current == authorization {
                    *current = self.log_in(response.headers()).await?;
                }
                continue;
            }
            return match status.as_u16() {
                200..=299 | 404 | 416 => Ok(response),
                401 | 403 => Err(self.denied().await),
                _ => {
                    let status = status.to_string();
                    let detail = detail(response).await;
                    Err(RegistryError::Status { registry: self.name(), what: ask.what.clone(), status, detail })
                }
            };
        }
    }

    /// The error of an image that is not there.
    pub(super) async fn not_found(&self) -> RegistryError {
        let anonymous = self.credentials().await.ok().flatten().is_none();
        RegistryError::NotFound { image: self.image.clone(), registry: self.name(), anonymous }
    }

    async fn denied(&self) -> RegistryError {
        match self.credentials().await {
            Ok(Some(found)) => RegistryError::Credentials {
                registry: self.name(),
                user: found.user().to_owned(),
                image: self.image.clone(),
            },
            _ => RegistryError::Denied { image: self.image.clone(), registry: self.name() },
        }
    }

    /// Sends a request as often as it takes.
    ///
    /// `first` says that nothing is known of the registry yet: then a refused connection or an unknown name is final.
    async fn send(
        &self,
        make: &dyn Fn() -> RequestBuilder,
        what: &str,
        first: bool,
    ) -> Result<Response, RegistryError> {
        let retry = &self.options.retry;
        let mut attempt = 1;
        loop {
            let (wait, say) = match make().send().await {
                Ok(response) if !retry::is_passing(response.status()) => return Ok(response),
                Ok(response) => {
                    let asked = retry::retry_after(response.headers(), SystemTime::now());
                    let status = response.status();
                    if let Some(wait) = asked.filter(|wait| *wait > retry.longest) {
                        return Err(RegistryError::TooMany { registry: self.name(), wait });
                    }
                    let wait = asked.unwrap_or_default().max(retry::pause(retry, attempt));
                    let wait =
                        if asked.is_some_and(|asked| asked.is_zero()) { asked.unwrap_or_default() } else { wait };
                    if attempt >= retry.attempts {
                        if status == StatusCode::TOO_MANY_REQUESTS {
                            return Err(RegistryError::TooMany { registry: self.name(), wait });
                        }
                        let (status, detail) = (status.to_string(), detail(response).await);
                        return Err(RegistryError::Status {
                            registry: self.name(),
                            what: what.to_owned(),
                            status,
                            detail,
                        });
                    }
                    (wait, format!("answers {status}"))
                }
                Err(error) => {
                    let (error, is_final) = self.transport(&error, first);
                    if is_final || attempt >= retry.attempts {
                        return Err(error);
                    }
                    (retry::pause(retry, attempt), "does not answer".to_owned())
                }
            };
            self.options.progress.note(&format!(
                "{} {say} to {what}: trying again in {}",
                self.endpoint.name,
                seconds(wait)
            ));
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// What a failed exchange means, and whether trying again is pointless.
    fn transport(&self, error: &reqwest::Error, first: bool) -> (RegistryError, bool) {
        let registry = self.name();
        let why = innermost(error);
        if error.is_redirect() || error.is_builder() {
            return (RegistryError::Setup { registry, why }, true);
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = source {
            match error.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidMessage(_)) => {
                    let why = "it answers TLS with something else".to_owned();
                    return (RegistryError::PlainHttp { registry, why }, true);
                }
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => {
                    return (RegistryError::Certificate { registry, why }, true);
                }
                _ => source = cause(error),
            }
        }
        // Some plain servers just hang up on what is no HTTP to them.
        let hung_up = error.is_connect() && (why.contains("eof") || why.contains("reset"));
        if first && hung_up && (self.endpoint.insecure || is_loopback(&self.endpoint.host)) && !self.endpoint.http {
            return (RegistryError::PlainHttp { registry, why }, true);
        }
        let is_final = first && error.is_connect();
        (RegistryError::Unreachable { registry, why }, is_final)
    }

    /// Takes note of the challenge that comes with the first answer.
    async fn learn(&self, headers: &HeaderMap) -> Result<(), RegistryError> {
        if headers.contains_key(WWW_AUTHENTICATE) {
            let authorization = self.log_in(headers).await?;
            *self.authorization.lock().await = authorization;
        }
        Ok(())
    }

    /// The `Authorization` that answers a challenge.
    async fn log_in(&self, headers: &HeaderMap) -> Result<Option<String>, RegistryError> {
        let challenges: Vec<_> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let credentials = self.credentials().await?;
        if let Some(Credentials::Bearer(token)) = &credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        if let Some(bearer) = challenges.iter().find(|one| one.scheme == "bearer" && one.get("realm").is_some()) {
            let token = self.token(bearer, credentials.as_ref()).await?;
            return Ok(Some(format!("Bearer {token}")));
        }
        if challenges.iter().any(|one| one.scheme == "basic") {
            return match credentials {
                Some(Credentials::Basic(user, password)) => Ok(Some(token::basic(&user, &password))),
                _ => Ok(None),
            };
        }
        match challenges.first() {
            Some(other) => Err(RegistryError::Scheme { registry: self.name(), scheme: tame(&other.scheme) }),
            None => Ok(None),
        }
    }

    /// Asks the token server.
    async fn token(
        &self,
        bearer: &challenge::Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<String, RegistryError> {
        let registry = self.name();
        let realm = bearer.get("realm").unwrap_or_default();
        let url = Url::parse(realm).map_err(|_| RegistryError::Setup {
            registry: registry.clone(),
            why: format!("its token server's address {:?} is none", tame(realm)),
        })?;
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" && !self.endpoint.insecure && !is_loopback(host) {
            return Err(RegistryError::Setup {
                registry,
                why: format!(
                    "its token server {host} is plain http, so a password would travel unprotected: use --insecure to allow that"
                ),
            });
        }
        let scope = (!self.repository.is_empty()).then(|| format!("repository:{}:pull", self.repository));
        let make = || token::request(&self.http, &url, bearer.get("service"), scope.as_deref(), credentials);
        let response = self.send(&make, "a login", false).await?;
        match response.status().as_u16() {
            200..=299 => {
                let bytes = body(response, 1 << 20, "a token", &registry).await?;
                token::parse(&bytes).ok_or_else(|| RegistryError::Setup {
                    registry,
                    why: format!("its token server {host} answers without a token"),
                })
            }
            400 | 401 | 403 | 404 => Err(self.denied().await),
            _ => {
                let status = response.status().to_string();
                let detail = detail(response).await;
                Err(RegistryError::Status { registry, what: format!("a login at {host}"), status, detail })
            }
        }
    }

    /// The user's credentials for this registry, looked up once.
    async fn credentials(&self) -> Result<Option<Credentials>, RegistryError> {
        let find = || async {
            let (name, repository, options) = (self.name(), self.repository.clone(), self.options.clone());
            // A helper is a process that may ask the user something.
            tokio::task::spawn_blocking(move || credentials::find(&name, &repository, &options)).await.unwrap_or_else(
                |error| Err(RegistryError::Keyring { place: "the credential files".into(), why: error.to_string() }),
            )
        };
        self.user.get_or_try_init(find).await.cloned()
    }
}

/// A body of at most `limit` bytes.
pub(super) async fn body(
    mut response: Response,
    limit: u64,
    what: &str,
    registry: &str,
) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { registry: registry.to_owned(), what: what.to_owned(), limit };
    if response.content_length().is_some_and(|len| len > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > limit => return Err(too_large()),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => {
                return Err(RegistryError::Unreachable { registry: registry.to_owned(), why: innermost(&error) });
            }
        }
    }
}

/// What an error's body says: the specification's JSON, or nothing of use.
async fn detail(response: Response) -> String {
    let Ok(bytes) = body(response, 1 << 16, "", "").await else { return String::new() };
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = &json["errors"][0];
    let text = |name: &str| first[name].as_str().unwrap_or_default();
    tame(&format!("{} {}", text("code"), text("message")))
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    bare == "localhost"
        || bare.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The HTTP client for one registry.
fn http(endpoint: &Endpoint, options: &Options) -> Result<Http, RegistryError> {
    let setup = |why: String| RegistryError::Setup { registry: endpoint.name.clone(), why };
    let insecure = endpoint.insecure;
    let follow = reqwest::redirect::Policy::custom(move |attempt| {
        let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if from_tls && attempt.url().scheme() != "https" && !insecure {
            attempt.error("it redirects from https to plain http")
        } else if attempt.previous().len() > 10 {
            attempt.error("it redirects in a circle")
        } else {
            attempt.follow()
        }
    });
    let mut builder = Http::builder()
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls::config(&endpoint.host, insecure, options)?)
        .redirect(follow)
        .referer(false)
        .connect_timeout(std::time::Duration::from_secs(20))
        .read_timeout(std::time::Duration::from_mins(1))
        .no_proxy();
    if !is_loopback(&endpoint.host) {
        let none_for = || options.proxies.none_for.as_deref().and_then(reqwest::NoProxy::from_string);
        let bad =
            |error: reqwest::Error| setup(format!("the proxy of the environment is no address: {}", innermost(&error)));
        if let Some(proxy) = &options.proxies.http {
            builder = builder.proxy(reqwest::Proxy::http(proxy).map_err(bad)?.no_proxy(none_for()));
        }
        if let Some(proxy) = &options.proxies.https {
            builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(bad)?.no_proxy(none_for()));
        }
    }
    builder.build().map_err(|error| setup(innermost(&error)))
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn this_machine() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
            "[::1]",
            "::1",
            "x.localhost:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]:1", "example.com:5000", "10.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
