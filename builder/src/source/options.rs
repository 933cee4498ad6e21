//! Everything about the user and the machine that a source depends on, gathered once. Nothing in `source` reads the
//! environment: [`Options::from_environment`] asks the caller for each variable.

use std::{ffi::OsString, fmt, num::NonZero, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use super::{WalkOptions, platform::Platform, registry::settings::Registries};
use crate::flatten::Limits;

/// When a registry is asked, and when the store's own copy will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Ask, and fail if it does not answer.
    Always,
    /// Ask; if it cannot be reached, take the store's copy and say so.
    #[default]
    Newer,
    /// Ask only if the store has none.
    Missing,
    /// The same; a container that has the name is taken as it is (udocker's word).
    Reuse,
    /// Never ask.
    Never,
}

impl FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "newer" => Ok(Self::Newer),
            "missing" | "ifnotpresent" => Ok(Self::Missing),
            "reuse" => Ok(Self::Reuse),
            "never" => Ok(Self::Never),
            _ => Err(format!("{text:?} is none of always, newer, missing, reuse and never")),
        }
    }
}

/// How failing requests are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts without any progress before giving up.
    pub attempts: u32,
    /// Pause after the first; it doubles with each.
    pub pause: Duration,
    /// The longest pause, and the longest that a registry may ask for by Retry-After.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(500), longest: Duration::from_mins(5) }
    }
}

/// Told what happens; called from several threads.
pub trait Progress: fmt::Debug + Send + Sync {
    /// A blob is to be downloaded: its digest, its size, and how much of it is there from before.
    fn begin(&self, digest: &str, size: u64, have: u64);
    /// So many bytes of it are there now.
    fn at(&self, digest: &str, have: u64);
    /// It is whole and verified; `downloaded` is false if it was in the store already.
    fn done(&self, digest: &str, size: u64, downloaded: bool);
    /// Something that the user should know: a retry, a wait, a fallback.
    fn note(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: u64) {}
    fn at(&self, _: &str, _: u64) {}
    fn done(&self, _: &str, _: u64, _: bool) {}
    fn note(&self, _: &str) {}
}

/// Proxies, as the environment names them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Hosts to reach directly.
    pub none_for: Option<String>,
}

/// What a source depends on.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's directory; it is opened only by sources that need it. `None` if there is neither HOME nor CORACLE_DIR.
    pub store: Option<PathBuf>,
    /// Where temporary files go.
    pub scratch: PathBuf,
    /// The platform asked for, if any.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub pull: PullPolicy,
    /// Plain http and unknown certificates are accepted from every registry.
    pub insecure: bool,
    /// The registry of names that have none, instead of Docker's.
    pub registry: Option<String>,
    /// Downloads at once.
    pub jobs: usize,
    /// How a directory is read.
    pub walk: WalkOptions,
    /// The most bytes that a temporary file may take: what is decompressed may be a bomb.
    pub limit: u64,
    /// Processor cores to use.
    pub threads: NonZero<usize>,
    /// How failures are tried again.
    pub retry: Retry,
    /// Mirrors and exceptions, from the configuration files.
    pub registries: Registries,
    /// Files with credentials, the first that has some for a registry wins. Ours is [`Options::own_auth_file`].
    pub auth_files: Vec<PathBuf>,
    /// The file that `login` writes.
    pub own_auth_file: Option<PathBuf>,
    /// Directories with one directory per registry that holds its certificates.
    pub certificate_directories: Vec<PathBuf>,
    /// `SSL_CERT_FILE`: certificates to trust instead of the system's.
    pub certificate_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: likewise.
    pub certificate_directory: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Daemons to ask for `docker-daemon:`, the first that answers: `unix:///run/podman/podman.sock`.
    pub daemons: Vec<String>,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
}

impl Options {
    /// The options that an environment and its configuration files mean.
    ///
    /// # Errors
    /// A configuration file that is there and cannot be understood, in words.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |names: [&str; 2]| {
            names.iter().find_map(|name| path(name)).map(|value| value.to_string_lossy().into_owned())
        };
        let home = path("HOME");
        let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let config_home = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let runtime = path("XDG_RUNTIME_DIR");
        let store = path("CORACLE_DIR").or_else(|| below_home(".coracle"));
        let auth_file = path("REGISTRY_AUTH_FILE");
        let own_auth_file = auth_file.clone().or_else(|| store.as_ref().map(|store| store.join("auth.json")));
        let docker_config = path("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let auth_files = match auth_file {
            Some(file) => vec![file],
            None => [
                own_auth_file.clone(),
                runtime.as_ref().map(|runtime| runtime.join("containers/auth.json")),
                config_home.as_ref().map(|config| config.join("containers/auth.json")),
                docker_config.map(|config| config.join("config.json")),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        let certificate_directories = [
            config_home.as_ref().map(|config| config.join("containers/certs.d")),
            below_home(".docker/certs.d"),
            Some("/etc/containers/certs.d".into()),
            Some("/etc/docker/certs.d".into()),
        ];
        let daemons = match text(["DOCKER_HOST", "CONTAINER_HOST"]) {
            Some(host) => vec![host],
            None => [
                Some("/var/run/docker.sock".into()),
                runtime.as_ref().map(|runtime| runtime.join("docker.sock")),
                runtime.as_ref().map(|runtime| runtime.join("podman/podman.sock")),
                Some("/run/podman/podman.sock".into()),
            ]
            .into_iter()
            .flatten()
            .map(|path: PathBuf| format!("unix://{}", path.display()))
            .collect(),
        };
        let configuration = [Some("/etc/coracle.toml".into()), config_home.map(|config| config.join("coracle.toml"))];
        Ok(Self {
            store,
            scratch: path("TMPDIR").unwrap_or_else(|| "/var/tmp".into()),
            platform: None,
            pull: PullPolicy::default(),
            insecure: false,
            registry: None,
            jobs: 4,
            walk: WalkOptions::default(),
            limit: Limits::default().size,
            threads: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            retry: Retry::default(),
            registries: Registries::read(configuration.into_iter().flatten())?,
            auth_files,
            own_auth_file,
            certificate_directories: certificate_directories.into_iter().flatten().collect(),
            certificate_file: path("SSL_CERT_FILE"),
            certificate_directory: path("SSL_CERT_DIR"),
            proxies: Proxies {
                // Only the lower-case name: a web server's HTTP_PROXY may come from a request's header ("httpoxy").
                http: if path("REQUEST_METHOD").is_some() {
                    text(["http_proxy", "http_proxy"])
                } else {
                    text(["http_proxy", "HTTP_PROXY"])
                }
                .or_else(|| text(["all_proxy", "ALL_PROXY"])),
                https: text(["https_proxy", "HTTPS_PROXY"]).or_else(|| text(["all_proxy", "ALL_PROXY"])),
                none_for: text(["no_proxy", "NO_PROXY"]),
            },
            daemons,
            progress: Arc::new(Silent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Options {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Options::from_environment(&find).expect("options")
    }

    #[test]
    fn places_follow_the_environment() {
        let plain = options(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
        assert_eq!(plain.store, Some("/home/u/.coracle".into()));
        let files = [
            "/home/u/.coracle/auth.json",
            "/run/user/1/containers/auth.json",
            "/home/u/.config/containers/auth.json",
            "/home/u/.docker/config.json",
        ];
        assert_eq!(plain.auth_files, files.map(PathBuf::from));
        assert_eq!(plain.daemons[2], "unix:///run/user/1/podman/podman.sock");
        let all = options(&[
            ("HOME", "/h"),
            ("CORACLE_DIR", "/s"),
            ("REGISTRY_AUTH_FILE", "/a"),
            ("DOCKER_HOST", "tcp://x:1"),
            ("HTTPS_PROXY", "http://p:3128"),
        ]);
        assert_eq!(all.store, Some("/s".into()));
        assert_eq!((all.auth_files, all.own_auth_file), (vec!["/a".into()], Some("/a".into())));
        assert_eq!(all.daemons, ["tcp://x:1"]);
        assert_eq!((all.proxies.https.as_deref(), all.proxies.http), (Some("http://p:3128"), None));
        assert_eq!(options(&[]).store, None);
    }
}
