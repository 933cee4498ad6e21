//! One engine alone, without a bundle: trees, launch specifications and runs, for the tests of engines.
//!
//! Each run is a process of its own (engines need one thread), which gives up root where the test has it. Panics are
//! assertions here, too.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use coracle_api::{Bind, BindOrigin, Ended, Engine, Identity, LaunchSpec};
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe};

/// Whom the tests become where they are root.
pub const NOBODY_IN_PARTICULAR: u32 = 12345;

/// A tree of its own directory, removed with this.
#[derive(Debug)]
pub struct Tree {
    /// Its root; a directory `scratch` lies beside it.
    pub root: PathBuf,
    _dir: tempfile::TempDir,
}

/// An image of the tests' folder, extracted for the user of the runs; `None` without the folder.
pub fn extract(name: &str) -> Option<Tree> {
    let image = crate::images::find(&format!("{name}.tar.gz"))?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let root = dir.path().join("tree");
    fs::create_dir(&root).expect("mkdir");
    fs::create_dir(dir.path().join("scratch")).expect("mkdir");
    let done = Command::new("tar").arg("-xzf").arg(&image).arg("-C").arg(&root).status().expect("tar");
    assert!(done.success(), "tar extracts {}", image.display());
    if Uid::effective().is_root() {
        let owner = format!("{NOBODY_IN_PARTICULAR}:{NOBODY_IN_PARTICULAR}");
        let done = Command::new("chown").arg("-R").arg(owner).arg(dir.path()).status().expect("chown");
        assert!(done.success(), "chown");
    }
    Some(Tree { root, _dir: dir })
}

/// The tree that most tests share.
pub fn alpine() -> Option<&'static Tree> {
    static TREE: OnceLock<Option<Tree>> = OnceLock::new();
    TREE.get_or_init(|| extract("alpine-3.20.3-x86_64")).as_ref()
}

/// A run of a program in a tree, as the user of the runs, with a scratch directory of its own.
///
/// # Panics
/// If that cannot be made.
#[must_use]
pub fn spec(tree: &Tree, argv: &[&str]) -> LaunchSpec {
    let (uid, gid) = if Uid::effective().is_root() {
        (NOBODY_IN_PARTICULAR, NOBODY_IN_PARTICULAR)
    } else {
        (Uid::effective().as_raw(), Gid::effective().as_raw())
    };
    let scratch = tempfile::tempdir_in(tree.root.with_file_name("scratch")).expect("a scratch directory").keep();
    if Uid::effective().is_root() {
        chown(&scratch, Some(uid), Some(gid)).expect("chown");
    }
    LaunchSpec {
        scratch,
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()), ("SHOWN".into(), "yes".into())],
        ..LaunchSpec::new(tree.root.clone(), Identity::launcher(uid, gid))
    }
}

/// A volume.
#[must_use]
pub fn bind(host: &Path, guest: &str, read_only: bool) -> Bind {
    Bind { host: host.to_owned(), guest: guest.into(), read_only, optional: false, origin: BindOrigin::Volume }
}

/// A directory of the host's that the guest's user may write to.
pub fn volume() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    if Uid::effective().is_root() {
        chown(dir.path(), Some(NOBODY_IN_PARTICULAR), Some(NOBODY_IN_PARTICULAR)).expect("chown");
    }
    dir
}

/// What a run printed (both streams), and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// All that was printed.
    pub text: String,
    /// The end.
    pub ended: Ended,
}

/// Status by which the child of `run` says that the engine failed; its text is the error.
pub const ENGINE_FAILED: i32 = 125;

/// Starts a run in a process of its own: its id, and where both of its streams can be read.
pub fn start(engine: &dyn Engine, spec: &LaunchSpec) -> (i32, fs::File) {
    start_after(engine, spec, || {})
}

/// As [`start`]; `before` runs in the run's process.
pub fn start_after(engine: &dyn Engine, spec: &LaunchSpec, before: impl FnOnce()) -> (i32, fs::File) {
    let (read, write) = pipe().expect("pipe");
    // SAFETY: the child has one thread, this one; of what other threads held locked it uses the allocator at most, which
    // the C library makes usable after fork.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            nix::unistd::dup2_stdout(&write).expect("dup2");
            nix::unistd::dup2_stderr(&write).expect("dup2");
            // What other tests hold open (a script being written, say) is not for this one to keep open.
            // SAFETY: no owner of any of them gets to run in this child: it ends by `_exit`.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
            if Uid::effective().is_root() {
                nix::unistd::fchown(std::io::stdout(), Some(Uid::from_raw(NOBODY_IN_PARTICULAR)), None)
                    .expect("fchown");
                nix::unistd::setgroups(&[]).expect("setgroups");
                nix::unistd::setgid(Gid::from_raw(NOBODY_IN_PARTICULAR)).expect("setgid");
                nix::unistd::setuid(Uid::from_raw(NOBODY_IN_PARTICULAR)).expect("setuid");
            }
            // Rust ignores the first, whoever runs tests in the background the others, and a guest would inherit that.
            for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGQUIT] {
                // SAFETY: the signal's disposition alone.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            before();
            let status = match engine.run(spec) {
                Ok(ended) => i32::from(coracle_api::signals::die_as(ended)),
                Err(error) => {
                    // Past the harness, which keeps what is printed by `eprintln`.
                    let _ = nix::unistd::write(std::io::stderr(), format!("{error}\n").as_bytes());
                    ENGINE_FAILED
                }
            };
            // SAFETY: ends the child at once, without the test harness's exit handlers.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => (child.as_raw(), fs::File::from(read)),
    }
}

/// How the run `process` ended, or by which signal it stopped.
pub fn wait(process: i32) -> Result<Ended, i32> {
    let mut status = 0;
    // SAFETY: waitpid writes one int.
    let waited = unsafe { libc::waitpid(process, &raw mut status, libc::WUNTRACED) };
    assert_eq!(waited, process, "a child of ours");
    if libc::WIFSTOPPED(status) {
        Err(libc::WSTOPSIG(status))
    } else if libc::WIFSIGNALED(status) {
        Ok(Ended::Signaled(libc::WTERMSIG(status)))
    } else {
        Ok(Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).expect("a status")))
    }
}

/// Runs it, to its end.
///
/// # Panics
/// As [`start`].
pub fn run(engine: &dyn Engine, spec: &LaunchSpec) -> Output {
    let (process, mut output) = start(engine, spec);
    let mut text = Vec::new();
    output.read_to_end(&mut text).expect("the guest's output");
    let text = String::from_utf8_lossy(&text).into_owned();
    let ended = wait(process).expect("the run's end");
    Output { text, ended }
}
