//! The guest's environment.
//!
//! A bundle's default is Apptainer's: the host's environment passes, less what names libraries and data of the host's own
//! programs, and the image's ENV wins. Isolated it is Docker's: the image's ENV with HOME, PATH, HOSTNAME and TERM. On top
//! of both come the user's files and settings.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use coracle_api::{
    env_file::{self, Setting},
    exec::DEFAULT_PATH,
};

use super::{Caller, LaunchError};
use crate::options::{
    EnvSetting,
    table::{Kind, Row},
};

/// Variables that lead a program to the host's libraries, locale archives or Python, which do not fit the image's. `LD_*`
/// goes too. A user who wants one inside says `--coracle-env=NAME`.
const HOST_ONLY: [&str; 11] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "LOCPATH",
    "NLSPATH",
    "TZDIR",
    "HOSTALIASES",
    "PYTHONHOME",
    "PYTHONEXECUTABLE",
    "GIO_MODULE_DIR",
    "GDK_PIXBUF_MODULE_FILE",
    "FONTCONFIG_FILE",
];

/// A guest's environment while it is put together: insertion order, each key once.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// The host's, less what is the host's own business.
    pub(super) fn of_host(caller: &Caller) -> Self {
        let mut env = Self::default();
        for (key, value) in caller.env.iter().filter(|(key, _)| passes(key)) {
            env.set(key, value);
        }
        env
    }

    pub(super) fn set(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let (key, value) = (key.as_ref(), value.as_ref().to_owned());
        match self.0.iter_mut().find(|(have, _)| have == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    pub(super) fn set_default(&mut self, key: &str, value: impl AsRef<OsStr>) {
        if self.get(key).is_none() {
            self.set(key, value);
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&OsStr> {
        self.0.iter().find(|(have, _)| have == key).map(|(_, value)| value.as_os_str())
    }

    pub(super) fn remove(&mut self, key: impl AsRef<OsStr>) {
        self.0.retain(|(have, _)| have != key.as_ref());
    }

    /// The image's ENV: `KEY=value` strings.
    pub(super) fn add_image(&mut self, env: &[String]) {
        for pair in env {
            if let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) {
                self.set(key, value);
            }
        }
        self.set_default("PATH", DEFAULT_PATH);
    }

    /// The user's settings, in order.
    pub(super) fn add_settings(&mut self, settings: &[EnvSetting], caller: &Caller) -> Result<(), LaunchError> {
        let host = |key: &OsStr| caller.env.iter().find(|(have, _)| have == key).map(|(_, value)| value.clone());
        for setting in settings {
            match setting {
                EnvSetting::One(pair) => self.add(&[env_file::setting(pair, host)]),
                EnvSetting::File(path) => {
                    let path = caller.absolute(path);
                    let wrong =
                        |line, why: &str| LaunchError::EnvFile { path: path.clone(), line, why: why.to_owned() };
                    let text = fs::read(&path).map_err(|error| wrong(None, &format!("{error}: correct the path")))?;
                    let settings = env_file::settings(&text, host).map_err(|(line, why)| wrong(Some(line), why))?;
                    self.add(&settings);
                }
            }
        }
        Ok(())
    }

    /// Settings that are read already.
    pub(super) fn add(&mut self, settings: &[Setting]) {
        for (key, value) in settings {
            match value {
                Some(value) => self.set(key, value),
                None => self.remove(key),
            }
        }
    }

    pub(super) fn into_vec(self) -> Vec<(OsString, OsString)> {
        self.0
    }
}

/// Whether a variable of the host goes inside by default.
fn passes(key: &OsString) -> bool {
    let bytes = key.as_bytes();
    !bytes.starts_with(b"LD_")
        && !bytes.starts_with(b"CORACLE_BUNDLE")
        && !HOST_ONLY.iter().any(|name| name.as_bytes() == bytes)
        && Row::of_variable(bytes).is_none_or(|row| row.kind == Kind::Node)
}

/// A variable that names a path, without the scheme that Kerberos allows: `FILE:/tmp/krb5cc_1000`.
pub(super) fn path_of(value: &OsStr) -> Option<&Path> {
    let bytes = value.as_bytes();
    let bytes = bytes.strip_prefix(b"FILE:").or_else(|| bytes.strip_prefix(b"DIR:")).unwrap_or(bytes);
    // DIR::/path/to/one names one file of a collection.
    let bytes = bytes.strip_prefix(b":").unwrap_or(bytes);
    Some(Path::new(OsStr::from_bytes(bytes))).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::caller;

    fn get(env: &Environment, key: &str) -> Option<String> {
        env.get(key).map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn the_hosts_environment_passes_less_the_loaders_and_the_images_wins() {
        let caller = caller(&[
            ("PATH", "/host/bin"),
            ("LD_PRELOAD", "x.so"),
            ("PYTHONHOME", "/host/py"),
            ("PYTHONPATH", "/home/me/py"),
            ("EDITOR", "vi"),
            ("LANG", "de"),
            ("CORACLE_ENTRYPOINT", "/x"),
            ("CORACLE_CACHE", "/c"),
        ]);
        let mut env = Environment::of_host(&caller);
        env.remove("PATH");
        env.add_image(&["LANG=C.UTF-8".to_owned(), "=broken".to_owned()]);
        assert_eq!(get(&env, "PATH").as_deref(), Some(DEFAULT_PATH));
        assert_eq!(get(&env, "LANG").as_deref(), Some("C.UTF-8"));
        assert_eq!(get(&env, "EDITOR").as_deref(), Some("vi"));
        assert_eq!(get(&env, "PYTHONPATH").as_deref(), Some("/home/me/py"));
        assert_eq!(get(&env, "CORACLE_CACHE").as_deref(), Some("/c"));
        for key in ["LD_PRELOAD", "PYTHONHOME", "CORACLE_ENTRYPOINT"] {
            assert_eq!(get(&env, key), None, "{key}");
        }
    }

    #[test]
    fn a_name_alone_passes_the_hosts_value_or_unsets() {
        let caller = caller(&[("LD_PRELOAD", "x.so")]);
        let mut env = Environment::default();
        env.add_image(&["GONE=1".to_owned()]);
        let settings = ["LD_PRELOAD", "GONE", "A=", "B=x=y"].map(|pair| EnvSetting::One(pair.into()));
        env.add_settings(&settings, &caller).expect("nothing is read");
        assert_eq!(get(&env, "LD_PRELOAD").as_deref(), Some("x.so"));
        assert_eq!(get(&env, "GONE"), None);
        assert_eq!(get(&env, "A").as_deref(), Some(""));
        assert_eq!(get(&env, "B").as_deref(), Some("x=y"));
    }

    #[test]
    fn a_file_is_read_by_dockers_rules() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let file = dir.path().join("env");
        fs::write(&file, "# comment\n\n  A=\"quoted\"  \r\nFROM_HOST\nNOT_ON_HOST\nB= spaced\n").expect("writable");
        let caller = caller(&[("FROM_HOST", "yes")]);
        let mut env = Environment::default();
        env.add_settings(&[EnvSetting::File(file.clone())], &caller).expect("it is well-formed");
        assert_eq!(get(&env, "A").as_deref(), Some("\"quoted\"  "));
        assert_eq!(get(&env, "B").as_deref(), Some(" spaced"));
        assert_eq!(get(&env, "FROM_HOST").as_deref(), Some("yes"));
        assert_eq!(get(&env, "NOT_ON_HOST"), None);
        fs::write(&file, "A=1\nmy key=2\n").expect("writable");
        let error = env.add_settings(&[EnvSetting::File(file)], &caller).expect_err("white space in a name");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn kerberos_names_are_paths_only_for_files() {
        assert_eq!(path_of(OsStr::new("FILE:/tmp/cc")), Some(Path::new("/tmp/cc")));
        assert_eq!(path_of(OsStr::new("DIR::/run/cc/tkt")), Some(Path::new("/run/cc/tkt")));
        assert_eq!(path_of(OsStr::new("KEYRING:persistent:1000")), None);
    }
}
