//! User names and passwords: the files of containers/image and Docker, their credential helpers, and our own login.
//!
//! A secret is never part of a message or of a `Debug` output.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::RegistryError;
use crate::{source::Options, store};

/// How to say who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Basic(String, String),
    /// A token that a token server exchanges for others (OAuth2 refresh token).
    Identity(String),
    /// A token to hand to the registry as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of {}", self.user())
    }
}

impl Credentials {
    /// Whose they are, for messages.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Basic(user, _) => user,
            Self::Identity(_) | Self::Bearer(_) => "your token",
        }
    }
}

/// `auth.json` and `config.json`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The credentials for a repository of a registry, from the first file that has some.
///
/// # Errors
/// [`RegistryError::Keyring`] for a file that is damaged, or a helper that fails.
pub fn find(registry: &str, repository: &str, options: &Options) -> Result<Option<Credentials>, RegistryError> {
    for path in &options.auth_files {
        if let Some(found) = in_file(path, registry, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_file(path: &Path, registry: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
    let keyring = |why: String| RegistryError::Keyring { place: path.display().to_string(), why };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(keyring(error.to_string())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    // The parser's own message could quote a secret: say only where.
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|error| keyring(format!("it is damaged (line {}): repair or remove it", error.line())))?;
    let wanted = keys(registry, repository);
    for want in &wanted {
        let helper = file.cred_helpers.iter().find(|(key, _)| normal(key) == *want);
        if let Some((key, helper)) = helper
            && let Some(found) = ask_helper(helper, key)?
        {
            return Ok(Some(found));
        }
        for (_, entry) in file.auths.iter().filter(|(key, _)| normal(key) == *want) {
            if let Some(found) =
                entry.credentials().map_err(|()| keyring(format!("its entry for {want} is damaged: log in again")))?
            {
                return Ok(Some(found));
            }
        }
    }
    match &file.creds_store {
        // Docker's own name for its registry, the only one its helpers know.
        Some(helper) if registry == "docker.io" => ask_helper(helper, "https://index.docker.io/v1/"),
        Some(helper) => ask_helper(helper, registry),
        None => Ok(None),
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, ()> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Credentials::Bearer(token)));
        }
        if let Some(auth) = some(&self.auth) {
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| ())?;
            let text = String::from_utf8(decoded).map_err(|_| ())?;
            let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(())?;
            return Ok(Some(Credentials::Basic(user.to_owned(), password.to_owned())));
        }
        Ok(some(&self.username).zip(some(&self.password)).map(|(user, password)| Credentials::Basic(user, password)))
    }
}

/// The keys that may name a repository's credentials, the most exact first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = format!("{registry}/{repository}");
    while name.len() > registry.len() {
        keys.push(name.clone());
        name.truncate(name.rfind('/').unwrap_or(0));
    }
    keys.push(registry.to_owned());
    keys
}

/// A key as people and tools write it, as a plain `HOST[:PORT][/PATH]`.
fn normal(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".to_owned(),
        key => key.to_owned(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let keyring = |why: String| RegistryError::Keyring { place: program.clone(), why };
    if helper.is_empty() || helper.contains('/') {
        return Err(keyring("it is no name of a credential helper".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            keyring(format!("cannot run it: {error}: install it, or remove it from the file that names it"))
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that reads nothing gives EPIPE, and its exit status tells the rest.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| keyring(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        if said.contains("not found") {
            return Ok(None);
        }
        return Err(keyring(format!("it failed for {server} ({}): unlock or repair it", output.status)));
    }
    let secret: Secret = serde_json::from_slice(&output.stdout)
        .map_err(|_| keyring(format!("its answer for {server} is not what a credential helper says")))?;
    Ok(Some(match secret.username.as_str() {
        "<token>" => Credentials::Identity(secret.secret),
        _ => Credentials::Basic(secret.username, secret.secret),
    }))
}

/// Keeps a registry's user name and password in a file that only its owner may read.
///
/// # Errors
/// [`RegistryError::Keyring`].
pub fn keep(path: &Path, registry: &str, user: &str, password: &str) -> Result<(), RegistryError> {
    change(path, |auths| {
        auths.insert(registry.to_owned(), json!({"auth": STANDARD.encode(format!("{user}:{password}"))}));
        true
    })
    .map(|_| ())
}

/// Forgets a registry's; says whether there was anything to forget.
///
/// # Errors
/// [`RegistryError::Keyring`].
pub fn forget(path: &Path, registry: &str) -> Result<bool, RegistryError> {
    if !path.exists() {
        return Ok(false);
    }
    change(path, |auths| {
        let before = auths.len();
        auths.retain(|key, _| normal(key) != registry);
        auths.len() != before
    })
}

/// Forgets all; says whether there was anything to forget.
///
/// # Errors
/// [`RegistryError::Keyring`].
pub fn forget_all(path: &Path) -> Result<bool, RegistryError> {
    if !path.exists() {
        return Ok(false);
    }
    change(path, |auths| {
        let any = !auths.is_empty();
        auths.clear();
        any
    })
}

fn change(path: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>) -> bool) -> Result<bool, RegistryError> {
    let keyring = |why: String| RegistryError::Keyring { place: path.display().to_string(), why };
    let mut all: Value = match fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => json!({}),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| keyring(format!("it is damaged (line {}): repair or remove it", error.line())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(keyring(error.to_string())),
    };
    let not_ours = || keyring("it is no file of credentials: repair or remove it".to_owned());
    let auths = all.as_object_mut().ok_or_else(not_ours)?.entry("auths").or_insert_with(|| json!({}));
    if !edit(auths.as_object_mut().ok_or_else(not_ours)?) {
        return Ok(false);
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| keyring(error.to_string()))?;
    }
    let bytes = serde_json::to_vec_pretty(&all).unwrap_or_default();
    store::replace(path, &bytes, 0o600).map_err(|error| {
        keyring(format!("{error}: set REGISTRY_AUTH_FILE or CORACLE_DIR to a place that you can write to"))
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(content: &Value) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), content.to_string()).expect("written");
        file
    }

    fn basic(user: &str) -> Option<Credentials> {
        Some(Credentials::Basic(user.into(), "p:w".into()))
    }

    #[test]
    fn the_most_exact_key_wins_whatever_its_spelling() {
        let auth = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:p:w"))});
        let file = file(&json!({"auths": {
            "https://index.docker.io/v1/": auth("hub"), "quay.io": auth("all"), "quay.io/team": auth("team"),
            "quay.io/team/one": auth("one"), "http://localhost:5000/v2/": auth("local"), "empty.io": {},
            "id.io": {"auth": "", "identitytoken": "T"},
        }}));
        let find = |registry: &str, repository: &str| in_file(file.path(), registry, repository).expect("read");
        assert_eq!(find("docker.io", "library/alpine"), basic("hub"));
        assert_eq!(find("quay.io", "other/x"), basic("all"));
        assert_eq!(find("quay.io", "team/two"), basic("team"));
        assert_eq!(find("quay.io", "team/one"), basic("one"));
        assert_eq!(find("quay.io", "teamster/x"), basic("all"));
        assert_eq!(find("localhost:5000", "x"), basic("local"));
        assert_eq!(find("id.io", "x"), Some(Credentials::Identity("T".into())));
        assert_eq!(find("empty.io", "x"), None);
        assert_eq!(find("other.io", "x"), None);
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        let damaged = tempfile::NamedTempFile::new().expect("a file");
        fs::write(damaged.path(), "{\"auths\": {\"x\": {\"auth\": hunter2}}}").expect("written");
        let error = in_file(damaged.path(), "x", "y").expect_err("damaged").to_string();
        assert!(!error.contains("hunter2") && error.contains("line 1"), "{error}");
        let odd = file(&json!({"auths": {"x": {"auth": "hunter2!"}}}));
        assert!(!in_file(odd.path(), "x", "y").expect_err("damaged").to_string().contains("hunter2"));
        assert!(!format!("{:?}", Credentials::Basic("u".into(), "hunter2".into())).contains("hunter2"));
    }

    #[test]
    fn login_and_logout_keep_what_others_wrote() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/auth.json");
        keep(&path, "quay.io", "u", "secret").expect("kept");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            in_file(&path, "quay.io", "x").expect("read"),
            Some(Credentials::Basic("u".into(), "secret".into()))
        );
        fs::write(
            &path,
            json!({"auths": {"https://quay.io": {"auth": "eDp5"}, "b": {}}, "credHelpers": {"c": "d"}}).to_string(),
        )
        .expect("written");
        assert!(forget(&path, "quay.io").expect("forgotten"));
        assert!(!forget(&path, "quay.io").expect("nothing left"));
        let left: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(left, json!({"auths": {"b": {}}, "credHelpers": {"c": "d"}}));
    }
}
