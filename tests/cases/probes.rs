//! The probe programs of `tests/guests` say the same under every engine as in a real chroot, line by line.
//!
//! The measure is the kernel: the same static programs, run natively by the same user in a chroot of the same tree, which
//! root prepares with a read-only bind mount. What differs under an engine and is known stands in [`KNOWN`] with its
//! reason. A difference that is not there fails, and so does one that is there and has gone away.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use harness::{Sandbox, coracle, images, skip, user, ways};

/// No probe needs a second; one that hangs is ended after this.
const LIMIT: Duration = Duration::from_secs(60);

/// Engine, probe, the kernel's line, the engine's line, why.
pub(crate) type Difference = (&'static str, &'static str, &'static str, &'static str, &'static str);

const UNMAPPED: &str = "a user namespace knows no other ids than those it maps";

const OTHER_PROCESS: &str =
    "what a socket was bound as is known in the process that bound it; others are shown its path";

const LONG: &str = "the C library's own getcwd goes on where the kernel says that a path is too long";

const TAKEN_OVER: &str = "who takes over a static program has not the descriptor, which closes, but the file's name";

pub(crate) const KNOWN: &[Difference] = &[
    (
        "preload",
        "exec",
        "told: argv0 a name argc 4 comm exec execfn /dev/fd/3 env none",
        "told: argv0 a name argc 4 comm exec execfn /probes/exec env none",
        TAKEN_OVER,
    ),
    (
        "preload",
        "exec",
        "told: argv0 a name argc 4 comm exec execfn /dev/fd/3/exec env none",
        "told: argv0 a name argc 4 comm exec execfn /probes/exec env none",
        TAKEN_OVER,
    ),
    ("preload", "messages", "  from: length 20 /work/link/childs", "  from: length 19 /work/dir/childs", OTHER_PROCESS),
    ("preload", "cwd", "getcwd of a long path: ERANGE", "getcwd of a long path: ENAMETOOLONG", LONG),
    ("namespaces", "kernel", "setuid(0): EPERM", "setuid(0): EINVAL", UNMAPPED),
    ("namespaces", "kernel", "setgid(0): EPERM", "setgid(0): EINVAL", UNMAPPED),
];

/// Probes of where one mount ends and the next begins. Namespaces are the kernel's own, but they have more mounts than the
/// chroot that is the measure: a directory that lacks a mount point gets a cover, which is a mount too.
const OF_MOUNTS: [&str; 3] = ["openat2", "order", "random"];

/// A probe of writing to files whose modes would allow it. In namespaces the kernel looks at the modes on disk first, and
/// files of a shared tree have no write bits there: `EACCES` comes before `EROFS`. In an edited view, files have one
/// link more.
const OF_MODES: &str = "ways";

/// Where the probes are that a loader brings a C library to: for an engine that needs one.
pub(crate) const DYNAMIC: &str = "dynamic";

/// Probes of what that engine cannot play: debuggers and filters of guests, which see the calls that the shim makes; calls
/// by instructions of the program's own; and programs of which the kernel knows only the loader that it executes.
pub(crate) const OF_PROCESSES: [&str; 5] = ["ptrace", "filter", "strict", "registers", "programs"];

/// Probes of what a C library does by itself, and of what is done inside of a process, which there is only where one is
/// loaded.
const OF_LIBRARIES: [&str; 4] = ["library", "names", "interrupts", "stacks"];

/// The tree, its bundle, and what the kernel says.
pub(crate) struct Prepared {
    sandbox: Sandbox,
    bundle: PathBuf,
    native: BTreeMap<String, Vec<String>>,
}

fn prepared() -> Option<&'static Prepared> {
    static PREPARED: OnceLock<Option<Prepared>> = OnceLock::new();
    if skip::lacks(&["gcc", "unshare", "chroot", "setfattr"]) || skip::unless_root() {
        return None;
    }
    PREPARED.get_or_init(|| Some(prepare())).as_ref()
}

/// The directories and files that the probes look at.
pub(crate) fn plant(root: &Path) {
    for dir in ["etc", "links", "dir/sub", "probes", "probes32", DYNAMIC, "tmp", "proc", "dev", "work"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let files = [
        ("etc/passwd", "root:x:0:0::/:/none\n"),
        ("etc/group", "root:x:0:\n"),
        ("dir/file", "text\n"),
        ("dir/sub/deep", "x\n"),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text).unwrap();
    }
    let links = [
        ("abs", "/etc/passwd"),
        ("rel", "../etc/passwd"),
        ("loop", "loop"),
        ("dangling", "/no/where"),
        ("up", "../../../.."),
        ("dir", "/dir"),
        ("chain", "rel"),
    ];
    for (name, target) in links {
        symlink(target, root.join("links").join(name)).unwrap();
    }
    ways::plant(root);
}

fn prepare() -> Prepared {
    let sandbox = Sandbox::kept();
    let root = sandbox.make_dir("work/tree");
    plant(&root);
    let mut names = Vec::new();
    let mut compilers = Vec::new();
    for entry in fs::read_dir(images::workspace().join("tests/guests")).unwrap() {
        let source = entry.unwrap().path();
        for (name, compiler) in compilers_of(&root, &source) {
            compilers.push(compiler);
            names.push(name);
        }
    }
    compile(compilers);
    libraries(&root, &root.join(DYNAMIC).join("paths"));
    assert!(!names.is_empty());
    measured(sandbox, &root, names)
}

/// Has the kernel say what the probes of a tree print, and makes its bundle.
pub(crate) fn measured(sandbox: Sandbox, root: &Path, names: Vec<String>) -> Prepared {
    // Everything is the user's own, as it is in an unpacked tree.
    let owner = format!("{}:{}", user::ordinary().uid, user::ordinary().gid);
    assert!(Command::new("chown").args(["-hR", &owner]).arg(root).status().unwrap().success());
    let native = names.into_iter().map(|name| (name.clone(), lines(natively(&sandbox, root, &name, &[])))).collect();
    let bundle = sandbox.work("probes.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/probes/exec"]"#, "-o", bundle.to_str().unwrap()]).ok();
    Prepared { sandbox, bundle, native }
}

/// The names of a probe's programs, and what makes them of its source.
fn compilers_of(root: &Path, source: &Path) -> Vec<(String, Command)> {
    let name = source.file_stem().unwrap().to_str().unwrap();
    let kind = source.extension().and_then(|extension| extension.to_str());
    let gcc = |dir: &str, word: &str| {
        let name = format!("{dir}/{name}");
        let mut gcc = Command::new("gcc");
        gcc.args([word, "-O1", "-static", "-pthread", "-w", "-o"]).arg(root.join(&name)).arg(source);
        (name, gcc)
    };
    let dynamic = || {
        let name = format!("{DYNAMIC}/{name}");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-pthread", "-w", "-o"]).arg(root.join(&name)).arg(source);
        (name, gcc)
    };
    match kind {
        // A static C library would have no part in it.
        Some("c") if OF_LIBRARIES.contains(&name) => vec![dynamic()],
        Some("c") if has_other_word() => vec![gcc("probes", "-m64"), gcc("probes32", "-m32"), dynamic()],
        Some("c") => vec![gcc("probes", "-m64"), dynamic()],
        Some("rs") => {
            let name = format!("probes/{name}");
            let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
            rustc
                .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-o"])
                .arg(root.join(&name))
                .arg(source);
            vec![(name, rustc)]
        }
        _ => Vec::new(),
    }
}

/// The host's loader and C library, for the probes that need them (as this one does), and the library by which the latter
/// cancels threads.
pub(crate) fn libraries(root: &Path, program: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let named = Command::new("gcc").arg("-print-file-name=libgcc_s.so.1").output().unwrap().stdout;
    let unwinder = PathBuf::from(String::from_utf8(named).unwrap().trim());
    for path in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let inside = root.join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(path, &inside).unwrap();
        if path.ends_with("libc.so.6") {
            fs::copy(&unwinder, inside.with_file_name("libgcc_s.so.1")).unwrap();
        }
    }
}

/// Two at a time.
pub(crate) fn compile(compilers: Vec<Command>) {
    let mut running = VecDeque::new();
    for mut compiler in compilers {
        if running.len() == 2 {
            ended(running.pop_front().unwrap());
        }
        let child = compiler.spawn().unwrap();
        running.push_back((compiler, child));
    }
    running.into_iter().for_each(ended);
}

fn ended((compiler, mut child): (Command, Child)) {
    assert!(child.wait().unwrap().success(), "{compiler:?} failed");
}

/// Whether programs of 32 bits can be made (Debian: gcc-multilib) and run here.
pub(crate) fn has_other_word() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("empty.c"), dir.path().join("empty"));
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-m32", "-static", "-o"]).arg(&program).arg(&source).stderr(Stdio::null());
        let runs =
            gcc.status().unwrap().success() && Command::new(&program).status().is_ok_and(|status| status.success());
        if !runs {
            skip::because("no probes of 32 bits: gcc -m32 -static does not work here (Debian: gcc-multilib)");
        }
        runs
    })
}

/// A probe in a chroot of the tree, read-only but for /work, in a mount namespace of its own.
fn natively(sandbox: &Sandbox, root: &Path, name: &str, args: &[&str]) -> Command {
    let script = r#"
        set -e
        mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
        mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/work"
        cd "$0"
        user=$2 probe=$3
        shift 3
        exec chroot --userspec="$user" --groups= "$0" "/$probe" "$@"
    "#;
    let user = user::ordinary();
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--mount", "sh", "-c", script]).arg(root);
    command.arg(fresh(sandbox, &place(&format!("native{}", args.concat()), name)));
    command.args([&format!("{}:{}", user.uid, user.gid), name]).args(args);
    command
}

fn place(engine: &str, name: &str) -> String {
    format!("{engine}-{}", name.replace('/', "-"))
}

/// An empty directory for a probe to fill.
fn fresh(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.make_dir(&format!("work/{name}"))
}

/// What a command prints, ended when it takes too long.
fn lines(mut command: Command) -> Vec<String> {
    let shown = format!("{command:?}");
    let log = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap()).process_group(0);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            let group = i32::try_from(child.id()).unwrap();
            // SAFETY: kill takes integers; the group is the one that the child, not yet waited for, leads.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = String::from_utf8_lossy(&fs::read(log.path()).unwrap()).into_owned();
    assert!(status.is_some(), "{shown} did not end in time; it printed:\n{text}");
    assert!(status.is_some_and(|status| status.success()), "{shown}: {status:?}:\n{text}");
    text.lines().map(numberless).collect()
}

/// `/proc/123/…` with the number, which differs from run to run, replaced.
fn numberless(line: &str) -> String {
    let mut parts = line.split("/proc/");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        text += if rest.len() < part.len() { "/proc/N" } else { "/proc/" };
        text += rest;
    }
    text
}

/// `asked`: the name by which the engine is asked for.
fn compare(engine: &'static str, asked: &str) {
    if let Some(prepared) = prepared() {
        compare_with(prepared, engine, asked, KNOWN);
    }
}

/// As [`compare`], of any tree, and with what is known of it.
pub(crate) fn compare_with(prepared: &Prepared, engine: &'static str, asked: &str, all_known: &[Difference]) {
    let Prepared { sandbox, bundle, native } = prepared;
    let first = if engine == "preload" { format!("/{DYNAMIC}/exec") } else { "/probes/exec".to_owned() };
    if !sandbox.run(bundle, ["--coracle-explain", &first]).stdout.contains(&format!("{engine}: accepted")) {
        return skip::because(&format!("this node refuses {engine}"));
    }
    let mut new = Vec::new();
    let mut known: Vec<&Difference> = all_known.iter().filter(|known| known.0 == engine).collect();
    for (name, expected) in native {
        let by_loader = engine == "preload";
        if by_loader != name.starts_with(DYNAMIC) || by_loader && OF_PROCESSES.iter().any(|probe| name.ends_with(probe))
        {
            continue;
        }
        if asked == "F3" && name.ends_with(OF_MODES) {
            continue;
        }
        if engine == "namespaces" && OF_MOUNTS.iter().chain([&OF_MODES]).any(|probe| name.ends_with(probe)) {
            continue;
        }
        let work = fresh(sandbox, &place(asked, name));
        let mut command = sandbox.command(bundle);
        if asked == "F3" {
            // A view's files are links of the tree's, which the others are to see as if there were none.
            command.env("CORACLE_CACHE", sandbox.make_dir("work/cache-of-views"));
        }
        command.arg(format!("--coracle-engine={asked}")).arg("--coracle-workdir=/");
        command.arg(format!("--coracle-volume={}:/work", work.display())).arg(format!("/{name}"));
        let seen = lines(command);
        if seen.len() != expected.len() {
            new.push(format!("{name}: {} lines instead of {}:\n{}", seen.len(), expected.len(), seen.join("\n")));
            continue;
        }
        for (expected, seen) in expected.iter().zip(&seen).filter(|(expected, seen)| expected != seen) {
            let is_this =
                |known: &Difference| name.rsplit('/').next() == Some(known.1) && known.2 == expected && known.3 == seen;
            if !all_known.iter().any(|known| known.0 == engine && is_this(known)) {
                new.push(format!("(\"{engine}\", \"{name}\", {expected:?}, {seen:?}, \"\"),"));
            }
            known.retain(|known| !is_this(known));
        }
    }
    assert!(new.is_empty(), "differs from the kernel:\n{}", new.join("\n"));
    assert!(known.is_empty(), "no longer differ from the kernel, take them off the list: {known:#?}");
}

#[test]
fn namespaces_are_the_kernel() {
    compare("namespaces", "namespaces");
}

#[test]
fn the_tracer_answers_as_the_kernel_does() {
    compare("ptrace", "P1");
}

#[test]
fn so_does_one_that_stops_every_call() {
    compare("ptrace", "P2");
}

#[test]
fn the_shim_answers_as_the_kernel_does() {
    compare("preload", "F1");
}

#[test]
fn so_do_they_in_edited_programs() {
    compare("preload", "F3");
}

#[test]
fn many_random_calls_under_the_tracer() {
    if skip::unless_slow() {
        return;
    }
    let Some(Prepared { sandbox, bundle, .. }) = prepared() else { return };
    for first in (1000..3000).step_by(100) {
        let (name, first) = ("probes/random", first.to_string());
        let expected = lines(natively(sandbox, &sandbox.work("tree"), name, &[&first, "10"]));
        let work = fresh(sandbox, &place(&format!("P1-{first}"), name));
        let mut command = sandbox.command(bundle);
        command.args(["--coracle-engine=P1", "--coracle-workdir=/"]);
        command.arg(format!("--coracle-volume={}:/work", work.display())).args([&format!("/{name}"), &first, "10"]);
        let seen = lines(command);
        assert_eq!(expected.len(), seen.len(), "seeds from {first}");
        for (number, (expected, seen)) in expected.iter().zip(&seen).enumerate() {
            assert_eq!(expected, seen, "seeds from {first}, line {number}");
        }
    }
}
