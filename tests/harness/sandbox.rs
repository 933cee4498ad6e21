//! A sandbox: one test's own directory and environment, and the commands run in it.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Once, OnceLock},
};

use crate::{Output, images, user};

/// Path of the built `coracle`, where an ordinary user can execute it.
///
/// `CORACLE_BIN` names one; otherwise it is built once, in the profile that the tests were built in, so that a test never
/// drives a stale binary.
///
/// # Panics
/// If it cannot be built.
pub fn coracle() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let built = env::var_os("CORACLE_BIN").map_or_else(build, PathBuf::from);
        // The workspace may lie below a directory that only its owner can enter.
        let dir = shared_dir().join("bin");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("coracle");
        fs::copy(&built, &path).unwrap_or_else(|error| panic!("copy {}: {error}", built.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
}

fn build() -> PathBuf {
    // target/<triple>/<profile>/deps/cases-…
    let exe = env::current_exe().unwrap();
    let profile_dir = exe.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "coracle"]).current_dir(crate::images::workspace());
    // What cargo tells a test of its own package would make build scripts that read it run again, here and by hand.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|own| text.starts_with(own)) {
            cargo.env_remove(&name);
        }
    }
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "coracle could not be built");
    profile_dir.join("coracle")
}

/// A directory of this test process, readable by everybody, removed by nobody but the next boot or `/tmp`'s cleaner when
/// the process is killed, and by [`Drop`] of its guard otherwise.
pub(crate) fn shared_dir() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("coracle-cases-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        register_removal(dir.path());
        dir
    });
    dir.path()
}

/// Statics are never dropped: a child process waits for our end and removes the directory.
fn register_removal(dir: &Path) {
    let script = r#"read _; chmod -R u+rwX "$0" 2>/dev/null; rm -rf "$0""#;
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its standard input stays open as long as this process lives.
    std::mem::forget(child);
}

/// One test's directory and environment.
#[derive(Debug)]
pub struct Sandbox {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Makes `home`, `tmp`, `cache`, `work` (the working directory) in a fresh directory, all the ordinary user's own.
    ///
    /// # Panics
    /// If the directory cannot be made.
    #[must_use]
    pub fn new() -> Self {
        heed_signals();
        let dir = tempfile::Builder::new().prefix("coracle-case-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut sandbox = Self { dir, env: Vec::new() };
        own(sandbox.path());
        for name in ["home", "tmp", "cache", "work"] {
            sandbox.make_dir(name);
        }
        let at = |name: &str| sandbox.path().join(name).display().to_string();
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", at("home")),
            ("TMPDIR", at("tmp")),
            ("CORACLE_CACHE", at("cache")),
            ("CORACLE_DIR", at("home/.coracle")),
            ("LANG", "C.UTF-8".to_owned()),
        ];
        sandbox.env = env.map(|(key, value)| (key.to_owned(), value)).into();
        sandbox
    }

    /// A sandbox for a static, which is never dropped: removed when the process ends.
    #[must_use]
    pub fn kept() -> Self {
        let sandbox = Self::new();
        register_removal(sandbox.path());
        sandbox
    }

    /// The sandbox's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the working directory.
    #[must_use]
    pub fn work(&self, name: &str) -> PathBuf {
        self.path().join("work").join(name)
    }

    /// Makes a directory below the sandbox, the user's own.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        own(&path);
        path
    }

    /// Gives a file, wherever it is, to the ordinary user.
    ///
    /// # Panics
    /// If it cannot be given.
    pub fn own(&self, path: &Path) {
        own(path);
    }

    /// Writes a file below the working directory, the user's own.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).unwrap();
            own(parent);
        }
        fs::write(&path, content).unwrap();
        own(&path);
        path
    }

    /// Sets a variable for all later commands.
    pub fn set(&mut self, key: &str, value: impl AsRef<Path>) -> &mut Self {
        self.unset(key);
        self.env.push((key.to_owned(), value.as_ref().display().to_string()));
        self
    }

    /// Removes a variable for all later commands.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.env.retain(|(name, _)| name != key);
        self
    }

    /// A command as the ordinary user, in the working directory, with the sandbox's environment and nothing else.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.env.iter().map(|(key, value)| (key, value)));
        command.current_dir(self.path().join("work")).stdin(Stdio::null());
        user::ordinary().apply(&mut command);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Output {
        let mut command = self.command(program);
        command.args(args);
        finish(command)
    }

    /// Runs a command to its end, with bytes on its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run_with_input<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Output {
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A thread feeds it, so that neither side waits for the other. A reader that closes early is no fault.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Output::new(shown, output)
    }

    /// Runs the built `coracle`.
    pub fn coracle<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.run(coracle(), args)
    }

    /// Imports Alpine as `alpine:1`; none where its archive is not at hand.
    #[must_use]
    pub fn import_alpine(&self) -> Option<()> {
        let tar = images::find(images::ALPINE)?;
        self.coracle(["import".as_ref(), tar.as_os_str(), "alpine:1".as_ref()]).ok();
        Some(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Unpacked trees have directories without write bits; as root this is not needed, and harmless.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// Puts the signals of a terminal at their defaults for all that this process starts, whoever started it: `nohup` ignores
/// hang-ups, and a shell's `&` interrupts, and both are inherited (signal(7)).
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: signal(2) with a default takes no pointer, and nothing here handles these.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    });
}

/// Runs a prepared command to its end.
///
/// # Panics
/// If it cannot be started.
pub(crate) fn finish(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    for _ in 0..100 {
        match command.output() {
            // A program that was written just now: another test forked meanwhile, and its child holds the file open for
            // writing until it executes something.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            output => return Output::new(shown.clone(), output.unwrap_or_else(|error| panic!("{shown}: {error}"))),
        }
    }
    panic!("{shown}: somebody keeps it open for writing");
}

/// Gives a file to the ordinary user.
fn own(path: &Path) {
    if user::is_root() {
        let user = user::ordinary();
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}
