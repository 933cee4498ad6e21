//! A real registry (Debian's `docker-registry`) on loopback, ended with its guard.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{eventually, free_port, sandbox::finish};

/// A running registry, its storage in a temporary directory.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one that anybody may use.
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    #[must_use]
    pub fn open() -> Self {
        Self::start(|_| String::new())
    }

    /// Starts one that wants this user and password (htpasswd, basic authentication).
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    #[must_use]
    pub fn with_password(user: &str, password: &str) -> Self {
        Self::start(|dir| {
            let file = dir.join("htpasswd");
            let made = Command::new("htpasswd").args(["-Bbn", user, password]).output().unwrap();
            fs::write(&file, made.stdout).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
        })
    }

    /// Starts one with more configuration, given the directory that it may put files in.
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    #[must_use]
    pub fn start(more: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("coracle-registry-").tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            dir.path().join("data").display(),
            more(dir.path()),
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { child, port, dir };
        eventually("the registry answers", 10, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }

    /// Starts one that speaks TLS, given the `tls` member of its `http` section.
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    #[must_use]
    pub fn start_tls(tls: impl FnOnce(&Path) -> String) -> Self {
        // The section of HTTP is the last in the configuration, so what follows it indented belongs to it.
        Self::start(|dir| format!("  {}", tls(dir).trim_start()))
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where the registry keeps its blobs.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Pushes with skopeo; `source` in skopeo's words, `name` without the registry, `options` such as `--dest-creds`.
    ///
    /// # Panics
    /// If skopeo fails.
    pub fn push(&self, source: &str, name: &str, options: &[&str]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]).args(options);
        skopeo.arg(source).arg(format!("docker://{}/{name}", self.address()));
        finish(skopeo).ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
