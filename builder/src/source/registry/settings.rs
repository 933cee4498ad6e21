//! What the configuration files say about registries: mirrors, and exceptions from safety.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example:5000", "cache.example/dockerhub"]
//! insecure = false
//! ```
//!
//! The launcher of bundles reads other members of the same files, so what is unknown here is left alone. A registry's
//! table in the user's file replaces the site's.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::Deserialize;

/// Registries by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries(BTreeMap<String, Registry>);

/// What is known of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// Asked before the registry itself, in order: `[http[s]://]HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Plain http and unknown certificates are accepted.
    pub insecure: bool,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

impl Registries {
    /// Reads configuration files, later ones over earlier; those that are not there say nothing.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood, in words.
    pub fn read(files: impl Iterator<Item = PathBuf>) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for path in files {
            let name = path.display();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let file: File = toml::from_str(&text)
                        .map_err(|error| format!("cannot understand {name}: {}", error.message()))?;
                    all.extend(file.registry);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(format!("cannot read {name}: {error}")),
            }
        }
        Ok(Self(all))
    }

    /// What is known of a registry.
    #[must_use]
    pub fn get(&self, name: &str) -> Registry {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// Adds a registry, for tests and callers with settings of their own.
    pub fn insert(&mut self, name: &str, registry: Registry) {
        self.0.insert(name.to_owned(), registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_table_replaces_the_sites_and_strangers_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (site, user) = (dir.path().join("site"), dir.path().join("user"));
        fs::write(&site, "engine = \"trap\"\n[registry.\"docker.io\"]\nmirrors = [\"a\"]\nfuture = 1\n[registry.\"x:5\"]\ninsecure = true\n").expect("written");
        fs::write(&user, "[registry.\"docker.io\"]\nmirrors = [\"b\", \"c\"]\n").expect("written");
        let all = Registries::read([site, user, dir.path().join("none")].into_iter()).expect("read");
        assert_eq!(all.get("docker.io").mirrors, ["b", "c"]);
        assert!(all.get("x:5").insecure && !all.get("y").insecure);
    }

    #[test]
    fn nonsense_is_an_error_with_the_files_name() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "[registry.\"x\"]\nmirrors = 7\n").expect("written");
        let error = Registries::read(std::iter::once(file.path().to_owned())).expect_err("refused");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
