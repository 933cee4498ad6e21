//! Runs the engine as an ordinary user over a real tree, and looks at what came out.
//!
//! Every run is a fork of the test: the child gives up root if it has it, takes pipes for its output, and calls the
//! engine as the launcher would. A guest that must do more than Alpine's shell can is this test program itself, bound
//! into the tree: see [`guest_action`].

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use coracle_api::{Access, Bind, BindOrigin, Ended, Engine, Identity, LaunchSpec, RunError, SubordinateIds, signals};
use coracle_namespaces::Namespaces;
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Gid, Pid, Uid, fork, getegid, geteuid, setgroups, setresgid, setresuid},
};
use tempfile::TempDir;

/// The id that the tests run guests as when they are root themselves.
const ORDINARY: u32 = 12345;

/// The environment variable that makes this program a guest, and names what it does.
pub(crate) const ACTION: &str = "CORACLE_GUEST_ACTION";

/// Host ids of the user whom guests belong to.
pub(crate) fn user() -> (u32, u32) {
    if geteuid().is_root() { (ORDINARY, ORDINARY) } else { (geteuid().as_raw(), getegid().as_raw()) }
}

/// Records why a test does nothing.
pub(crate) fn skip(why: &str) {
    harness::skip::because(why);
}

fn images() -> Option<PathBuf> {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/images"));
    Some(env::var_os("CORACLE_TEST_IMAGES").map_or_else(default, PathBuf::from)).filter(|path| path.is_dir())
}

/// A directory that the ordinary user owns and everybody may enter.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("coracle-ns-").tempdir_in("/tmp").expect("make a directory in /tmp");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    own(dir.path());
    dir
}

/// Gives a path to the ordinary user.
pub(crate) fn own(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(ORDINARY), Some(ORDINARY)).expect("chown");
    }
}

/// Makes a directory, or a file with this text, owned by the ordinary user.
pub(crate) fn make(path: PathBuf, text: Option<&str>) -> PathBuf {
    match text {
        Some(text) => fs::write(&path, text).expect("write"),
        None => fs::create_dir_all(&path).expect("mkdir"),
    }
    own(&path);
    path
}

/// An Alpine tree of the test's own, without write bits, as the cache keeps it; `None` without the images.
pub(crate) fn fresh_tree() -> Option<TempDir> {
    let Some(images) = images() else {
        skip("no test images (CORACLE_TEST_IMAGES)");
        return None;
    };
    let dir = directory();
    let (uid, gid) = user();
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(images.join("alpine-3.20.3-x86_64.tar.gz")).arg("-C").arg(dir.path());
    tar.args(["--no-same-owner", "--no-same-permissions"]);
    if geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut tar, uid);
        std::os::unix::process::CommandExt::gid(&mut tar, gid);
    }
    assert!(tar.status().expect("tar").success());
    assert!(
        Command::new("find")
            .arg(dir.path())
            .args(["-type", "f", "-exec", "chmod", "a-w", "{}", "+"])
            .status()
            .expect("find")
            .success()
    );
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    Some(dir)
}

/// An Alpine tree shared by the tests of one file, which nobody changes.
pub(crate) fn shared_tree() -> Option<&'static Path> {
    static TREE: OnceLock<Option<PathBuf>> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(Some(path)) = TREE.get() {
            let _ = fs::remove_dir_all(path);
        }
    }
    TREE.get_or_init(|| {
        // SAFETY: `remove` is a plain function that lives as long as the program.
        unsafe { libc::atexit(remove) };
        fresh_tree().map(TempDir::keep)
    })
    .as_deref()
}

/// A run of `argv` in `tree` as yourself, with the host's devices and nothing else.
pub(crate) fn spec(tree: &Path, argv: &[&str]) -> LaunchSpec {
    let (uid, gid) = user();
    LaunchSpec {
        scratch: PathBuf::from("/nonexistent"),
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        ..LaunchSpec::new(tree.to_owned(), Identity::launcher(uid, gid))
    }
}

/// A run of a shell script.
pub(crate) fn script(tree: &Path, text: &str) -> LaunchSpec {
    spec(tree, &["/bin/sh", "-c", text])
}

/// A run of this test program as guest; the action is one of the test file's.
pub(crate) fn action(tree: &Path, name: &str) -> LaunchSpec {
    let mut spec = spec(tree, &["/coracle-test-guest", "--exact", "guest_side", "--nocapture", "--test-threads=1"]);
    spec.env.push((ACTION.into(), name.into()));
    spec.binds.push(bind(&env::current_exe().expect("current_exe"), "/coracle-test-guest"));
    spec
}

/// What [`action`] asked for, in a guest.
pub(crate) fn guest_action() -> Option<String> {
    env::var(ACTION).ok()
}

/// A writable bind.
pub(crate) fn bind(host: &Path, guest: &str) -> Bind {
    Bind { host: host.to_owned(), guest: guest.into(), read_only: false, optional: false, origin: BindOrigin::Volume }
}

/// A read-only bind.
pub(crate) fn bind_read_only(host: &Path, guest: &str) -> Bind {
    Bind { read_only: true, ..bind(host, guest) }
}

/// Makes the guest root.
pub(crate) fn as_root(mut spec: LaunchSpec) -> LaunchSpec {
    (spec.identity.uid, spec.identity.gid) = (0, 0);
    spec
}

/// Makes the run copy-on-write, in a directory of its own that is returned.
pub(crate) fn copy_on_write(spec: &mut LaunchSpec) -> Changes {
    let changes = directory();
    spec.access = Access::CopyOnWrite { changes: changes.path().to_owned() };
    Changes(changes)
}

/// A run's changes. The overlay leaves a directory of mode 000 among them, which nobody but root removes as it is.
pub(crate) struct Changes(TempDir);

impl std::ops::Deref for Changes {
    type Target = TempDir;

    fn deref(&self) -> &TempDir {
        &self.0
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let _ = fs::set_permissions(self.path().join("work/work"), fs::Permissions::from_mode(0o700));
    }
}

/// A user with subordinate ids, as (uid, gid, ranges); only root can become that user.
pub(crate) fn user_with_ranges() -> Option<(u32, u32, SubordinateIds)> {
    let helpers = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"].map(PathBuf::from);
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let range = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(1).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let (uids, gids) = (range("/etc/subuid", name)?, range("/etc/subgid", name)?);
        let [newuidmap, newgidmap] = helpers.clone();
        (uid != 0).then_some((uid, gid, SubordinateIds { uids, gids, newuidmap, newgidmap }))
    });
    if !geteuid().is_root() || !helpers.iter().all(|helper| helper.exists()) || found.is_none() {
        skip("needs root, newuidmap and newgidmap, and a user with ranges in /etc/subuid and /etc/subgid");
        return None;
    }
    found
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) ended: Ended,
}

impl Outcome {
    /// Standard output, of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.ended, Ended::Exited(0), "out: {}\nerr: {}", self.out, self.err);
        self.out
    }

    /// Standard error, of a run that must have failed with this status.
    #[track_caller]
    pub(crate) fn failure(self, code: u8) -> String {
        assert_eq!(self.ended, Ended::Exited(code), "out: {}\nerr: {}", self.out, self.err);
        self.err
    }
}

/// A run that is under way.
pub(crate) struct Running {
    pub(crate) pid: Pid,
    out: File,
    err: File,
}

impl Running {
    /// Reads standard output up to a newline.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.out.read(&mut byte).expect("read") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Outcome {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        // What a guest of these tests says on standard error fits a pipe.
        self.out.read_to_end(&mut out).expect("read");
        self.err.read_to_end(&mut err).expect("read");
        let ended = match waitpid(self.pid, None).expect("waitpid") {
            WaitStatus::Exited(_, code) => Ended::Exited(u8::try_from(code).expect("an exit status")),
            WaitStatus::Signaled(_, signal, _) => Ended::Signaled(signal as i32),
            other => panic!("{other:?}"),
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { out: text(out), err: text(err), ended }
    }
}

/// Starts `body` in a fork of this process, as the ordinary user, or as these ids.
pub(crate) fn start_as(ids: (u32, u32), body: impl FnOnce() -> Result<Ended, RunError>) -> Running {
    let (out, to_out) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    let (err, to_err) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    // SAFETY: the child has one thread; libc's allocator is usable after fork, and nothing else is relied on.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => Running { pid: child, out: out.into(), err: err.into() },
        ForkResult::Child => {
            nix::unistd::dup2_stdout(&to_out).expect("dup2");
            nix::unistd::dup2_stderr(&to_err).expect("dup2");
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // What the tests were started with does not concern the guest.
                // SAFETY: the call takes plain integers, and only marks descriptors.
                unsafe {
                    libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 4 /* CLOSE_RANGE_CLOEXEC */)
                };
                become_user(ids);
                match body() {
                    Ok(ended) => signals::die_as(ended),
                    Err(error) => {
                        use std::io::Write as _;
                        let _ = writeln!(File::from(to_err), "{error}");
                        error.exit_code()
                    }
                }
            }));
            // SAFETY: ends the fork alone, without the test harness's exit handlers.
            unsafe { libc::_exit(code.map_or(99, i32::from)) }
        }
    }
}

fn become_user((uid, gid): (u32, u32)) {
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).expect("setgroups");
        setresgid(group, group, group).expect("setresgid");
        setresuid(user, user, user).expect("setresuid");
        // After a change of user the kernel denies us our own /proc files until the next exec, which a real launcher
        // has had. SAFETY: this option takes plain integers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    }
}

/// Starts a run.
pub(crate) fn start(spec: &LaunchSpec) -> Running {
    start_as((spec.identity.host_uid, spec.identity.host_gid), || Namespaces.run(spec))
}

/// Runs to the end.
pub(crate) fn run(spec: &LaunchSpec) -> Outcome {
    start(spec).finish()
}

/// Every path of a tree with its kind, size, mode and time of change: what must not change.
pub(crate) fn fingerprint(tree: &Path) -> Vec<String> {
    let mut todo = vec![tree.to_owned()];
    let mut lines = Vec::new();
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("stat");
        lines.push(format!(
            "{} {:o} {} {}.{}",
            path.display(),
            meta.mode(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).expect("read_dir").map(|entry| entry.expect("entry").path()));
        }
    }
    lines.sort();
    lines
}

/// Writes to descriptor 1: what `print!` writes in a forked test, the harness of the first process would keep.
pub(crate) fn print(text: &str) {
    nix::unistd::write(std::io::stdout(), text.as_bytes()).expect("write");
}

/// Makes this process root of a user namespace of its own, where it may change the limits and the root directory.
pub(crate) fn become_contained() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER | nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
}

/// Makes these system calls answer with an error from now on, as a container runtime's filter does.
pub(crate) fn forbid(calls: &[libc::c_long], errno: i32) {
    let statement =
        |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).expect("a code"), jt: 0, jf: 0, k };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        let call = u32::try_from(*call).expect("a number");
        filter.push(libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call) });
        filter.push(statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | u32::try_from(errno).expect("an errno")));
    }
    filter.push(statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).expect("short"), filter: filter.as_mut_ptr() };
    // SAFETY: the first option takes integers, the second a description of `filter`, which outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}
