//! Copy-on-write: whatever a guest does to its files, and however, they are its own, and the shared tree never changes.
//!
//! Under `ptrace` and `preload` a writable run has a view made of hard links into the shared tree, so a forgotten way
//! of changing a file would change it for everybody. The probes try all ways, one by one (compared with the kernel,
//! line by line) and in a storm of threads; then the shared tree is compared: names, inodes, modes, owners, times,
//! attributes and contents. (Link counts and change times do change, of every file that is linked.)

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use harness::{Sandbox, bundles, coracle, images, skip, user, ways};

/// A tracer's, for static programs, and the shim's, for dynamic ones.
const ENGINES: [(&str, bool); 3] = [("P1", false), ("P2", false), ("F1", true)];

/// Where the programs are that load the C library.
const DYNAMIC: &str = "dynamic";

/// The tree with the probes, packed; and what the kernel says.
struct Prepared {
    sandbox: Sandbox,
    bundle: PathBuf,
    /// By the directory of the probes.
    native: BTreeMap<&'static str, String>,
}

fn prepared() -> Option<&'static Prepared> {
    static PREPARED: OnceLock<Option<Prepared>> = OnceLock::new();
    if skip::lacks(&["gcc", "setfattr", "getfattr", "chroot", "cp"]) {
        return None;
    }
    PREPARED.get_or_init(|| Some(prepare())).as_ref()
}

/// What compilers are told, and where the probes are that they make: of the word sizes that run here, linked statically, and
/// dynamic ones.
fn kinds() -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    let other = super::probes::has_other_word().then_some((&["-m32", "-static"][..], "probes32"));
    [(&["-static"][..], "probes"), (&[][..], DYNAMIC)].into_iter().chain(other)
}

/// The directories of probes that an engine can run.
fn directories(dynamic: bool) -> impl Iterator<Item = &'static str> {
    kinds().map(|(_, dir)| dir).filter(move |dir| (*dir == DYNAMIC) == dynamic)
}

fn prepare() -> Prepared {
    let sandbox = Sandbox::kept();
    let root = sandbox.make_dir("work/tree");
    for dir in ["etc", "probes", "probes32", DYNAMIC, "tmp", "proc", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    ways::plant(&root);
    for (options, dir) in kinds() {
        for name in ["ways", "changing/storm", "changing/swap"] {
            let source = images::workspace().join("tests/guests").join(name).with_extension("c");
            let program = root.join(dir).join(source.file_stem().unwrap());
            let mut gcc = Command::new("gcc");
            gcc.args(options).args(["-O1", "-pthread", "-w", "-o"]).arg(program).arg(&source);
            assert!(gcc.status().unwrap().success(), "{} does not compile", source.display());
        }
    }
    super::probes::libraries(&root, &root.join(DYNAMIC).join("ways"));
    let owner = format!("{}:{}", user::ordinary().uid, user::ordinary().gid);
    if user::is_root() {
        assert!(Command::new("chown").args(["-hR", &owner]).arg(&root).status().unwrap().success());
        // Its change took the set-id bits.
        fs::set_permissions(root.join("ways/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let bundle = sandbox.work("ways.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/probes/ways"]"#, "-o", bundle.to_str().unwrap()]).ok();
    let native = if user::is_root() {
        kinds().map(|(_, dir)| (dir, natively(&sandbox, &root, &owner, dir))).collect()
    } else {
        BTreeMap::new()
    };
    Prepared { sandbox, bundle, native }
}

/// What the probe prints in a real chroot of a copy that it may change.
fn natively(sandbox: &Sandbox, root: &Path, owner: &str, dir: &str) -> String {
    let copy = sandbox.work(&format!("native-{dir}"));
    assert!(Command::new("cp").arg("-a").args([root, &copy]).status().unwrap().success());
    let script = r#"mount --rbind /proc "$0/proc" && cd "$0" && exec chroot --userspec="$1" --groups= "$0" "/$2/ways""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&copy).args([owner, dir]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything of a file that may not change.
#[derive(Debug, PartialEq)]
struct File {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: Vec<u8>,
}

type Seen = BTreeMap<PathBuf, File>;

fn look(dir: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let data = path.symlink_metadata().unwrap();
        let content = match data.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        if data.is_dir() {
            look(&path, seen);
        }
        let (owner, mtime) = ((data.uid(), data.gid()), (data.mtime(), data.mtime_nsec()));
        seen.insert(path, File { inode: data.ino(), mode: data.mode(), owner, mtime, content });
    }
}

/// The shared tree of the one bundle that this cache holds.
fn shared(sandbox: &Sandbox) -> Seen {
    let base = sandbox.path().join("cache").join(format!("coracle-{}", user::ordinary().uid));
    let mut trees =
        fs::read_dir(base).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.file_name().len() == 64);
    let tree = trees.find_map(|tree| tree.path().join("root").canonicalize().ok()).expect("an unpacked tree");
    let mut seen = Seen::new();
    look(&tree, &mut seen);
    assert!(seen.len() > 60, "{} files", seen.len());
    // Attributes of all files, as one more file.
    let attributes = Command::new("getfattr").args(["-R", "-h", "-d", "--absolute-names"]).arg(&tree).output().unwrap();
    let content = attributes.stdout;
    assert!(content.windows(9).any(|text| text == b"user.note"), "this file system keeps attributes");
    seen.insert("attributes".into(), File { inode: 0, mode: 0, owner: (0, 0), mtime: (0, 0), content });
    seen
}

/// Asserts that nothing has changed, by name.
#[track_caller]
fn same(before: &Seen, after: &Seen) {
    for (path, was) in before {
        assert!(after.get(path) == Some(was), "{} changed: {was:?} became {:?}", path.display(), after.get(path));
    }
    assert_eq!(before.len(), after.len(), "new files in the shared tree");
}

fn run(prepared: &Prepared, engine: &str, writable: &str, args: &[&str]) -> harness::Output {
    let option = format!("--coracle-engine={engine}");
    prepared.sandbox.run(&prepared.bundle, [&[option.as_str(), writable, "--coracle-workdir=/"], args].concat())
}

#[test]
fn every_way_does_what_the_kernel_does_and_the_shared_tree_stays() {
    let Some(prepared) = prepared() else { return };
    run(prepared, "P1", "--coracle-quiet", &["/probes/storm"]);
    let before = shared(&prepared.sandbox);
    if prepared.native.is_empty() {
        skip::because("needs root for a chroot to compare with");
    }
    for (engine, dir) in
        ENGINES.iter().flat_map(|(engine, dynamic)| directories(*dynamic).map(move |dir| (engine, dir)))
    {
        let output = run(prepared, engine, "--coracle-writable", &[&format!("/{dir}/ways")]);
        same(&before, &shared(&prepared.sandbox));
        let seen = output.ok();
        assert!(seen.lines().count() > 140, "{seen}");
        let Some(native) = prepared.native.get(dir) else { continue };
        let pairs = native.trim_end().lines().zip(seen.lines()).filter(|(native, seen)| native != seen);
        let new: Vec<_> = pairs.map(|(native, seen)| format!("{native:?} became {seen:?}")).collect();
        assert!(new.is_empty(), "{engine} {dir} differs from the kernel:\n{}", new.join("\n"));
        assert_eq!(native.trim_end().lines().count(), seen.lines().count());
    }
}

#[test]
fn a_name_that_becomes_a_shared_file_s_before_the_call_is_made_changes_nothing_shared() {
    let Some(prepared) = prepared() else { return };
    run(prepared, "P1", "--coracle-quiet", &["/probes/storm"]);
    let before = shared(&prepared.sandbox);
    let runs = ENGINES.map(|(engine, dynamic)| (engine, dynamic, "--coracle-quiet"));
    let roots = [ENGINES[0], ENGINES[2]].map(|(engine, dynamic)| (engine, dynamic, "--coracle-user=root"));
    for (engine, dynamic, extra) in runs.into_iter().chain(roots) {
        for dir in directories(dynamic) {
            let output = run(prepared, engine, "--coracle-writable", &[extra, &format!("/{dir}/swap"), "/ways"]);
            same(&before, &shared(&prepared.sandbox));
            assert_eq!(output.ok(), "right", "{engine} {dir} {extra}: {output}");
        }
    }
}

#[test]
fn a_storm_of_threads_changes_nothing_that_is_shared() {
    let Some(prepared) = prepared() else { return };
    run(prepared, "P1", "--coracle-quiet", &["/probes/storm"]);
    let before = shared(&prepared.sandbox);
    for (engine, seed, extra) in [
        (ENGINES[0], "1", "--coracle-quiet"),
        (ENGINES[1], "2", "--coracle-quiet"),
        (ENGINES[0], "3", "--coracle-user=root"),
        (ENGINES[2], "4", "--coracle-quiet"),
        (ENGINES[2], "5", "--coracle-user=root"),
    ] {
        let (engine, dynamic) = engine;
        for dir in directories(dynamic) {
            let storm = format!("/{dir}/storm");
            let output = run(prepared, engine, "--coracle-writable", &[extra, &storm, "/ways", seed, "1000"]);
            assert_eq!(output.ok(), "right", "{engine} {seed}: {output}");
            same(&before, &shared(&prepared.sandbox));
        }
    }
    // The proof can fail: in its own view the storm has left few files as they were.
    let kept = prepared.sandbox.work("storm");
    let option = format!("--coracle-writable={}", kept.display());
    run(prepared, "P1", &option, &["/probes/storm", "/ways", "4", "2000"]).ok();
    let mut seen = Seen::new();
    look(&kept.join("view/root/ways"), &mut seen);
    let contents: Vec<_> = seen.values().filter(|file| file.content == b"text\n").collect();
    assert!(contents.len() < seen.len() / 2, "{} of {} files are as they were", contents.len(), seen.len());
    same(&before, &shared(&prepared.sandbox));
}

#[test]
fn changes_are_kept_where_it_is_said_and_nowhere_else() {
    let Some(app) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let sh =
        |writable: &str, script: &str| sandbox.run(&app, ["--coracle-engine=ptrace", writable, "sh", "-c", script]);
    for cache in ["--coracle-writable", "--coracle-writable"] {
        assert_eq!(
            sh(cache, "cat /etc/motd | head -1; echo new >/etc/motd; cat /etc/motd").ok(),
            "Welcome to Alpine!\nnew"
        );
    }
    let left = |dir: &str| fs::read_dir(sandbox.path().join(dir)).unwrap().count();
    let base = format!("tmp/coracle-{}", user::ordinary().uid);
    assert_eq!(left(&base), 0, "the run's own directory is gone");
    sh("--coracle-writable=kept", "sed -i s/Alpine/Coracle/ /etc/motd; rm /etc/issue; mkdir /new; echo x >/new/file")
        .ok();
    let script = "head -1 /etc/motd; cat /new/file; ls /etc/issue 2>&1; echo y >>/new/file; stat -c %a:%h /etc/shells";
    let expected = "Welcome to Coracle!\nx\nls: /etc/issue: No such file or directory\n644:1";
    assert_eq!(sh("--coracle-writable=kept", script).stdout.trim_end(), expected);
    assert_eq!(sh("--coracle-writable=kept", "cat /new/file").ok(), "x\ny");
    assert_eq!(sh("--coracle-writable=no", "head -1 /etc/motd; ls /new 2>&1").stdout.lines().count(), 2);
    assert_eq!(fs::read(sandbox.work("kept/view/root/new/file")).unwrap(), b"x\ny\n");
}

#[test]
fn what_another_image_or_engine_keeps_is_refused_in_words() {
    let Some(app) = bundles::alpine() else { return };
    let Some(other) = bundles::of("busybox-musl-x86_64.tar.gz", &["--cmd", r#"["/bin/sh"]"#]) else { return };
    let sandbox = Sandbox::new();
    let run = |app: &Path, engine: &str, dir: &str| {
        let (engine, dir) = (format!("--coracle-engine={engine}"), format!("--coracle-writable={dir}"));
        sandbox.run(app, [engine.as_str(), &dir, "sh", "-c", "echo ran"])
    };
    assert_eq!(run(&app, "ptrace", "kept").ok(), "ran");
    let refused = run(&other, "ptrace", "kept");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains("holds the changes of another image"), "{refused}");
    assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{refused}");
    if !sandbox.run(&app, ["--coracle-explain"]).stdout.contains("namespaces: accepted") {
        return skip::because("this node refuses namespaces");
    }
    let refused = run(&app, "namespaces", "kept");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains("--coracle-engine=ptrace"), "{refused}");
    assert_eq!(run(&app, "namespaces", "overlaid").ok(), "ran");
    let refused = run(&app, "ptrace", "overlaid");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains("namespaces"), "{refused}");
}

#[test]
fn a_view_that_was_being_made_when_its_maker_was_killed_is_made_again() {
    let Some(app) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    sandbox.run(&app, ["true"]).ok();
    let mut made = 0;
    for milliseconds in (5..200).step_by(15) {
        let mut command = sandbox.command(&app);
        command.args(["--coracle-engine=ptrace", "--coracle-writable=kept", "sleep", "5"]);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        made += u32::from(sandbox.work("kept/view").exists());
    }
    let script = "busybox | head -1 | cut -c1-7; find /bin /etc /lib /sbin /usr | sort | md5sum";
    let output = sandbox.run(&app, ["--coracle-engine=ptrace", "--coracle-writable=kept", "sh", "-c", script]);
    let whole = sandbox.run(&app, ["--coracle-engine=ptrace", "sh", "-c", script]);
    assert_eq!(output.ok(), whole.ok(), "after {made} starts that came as far as a view");
    let left: Vec<_> = fs::read_dir(sandbox.work("kept")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn changes_that_are_not_kept_lie_where_links_can_be_made() {
    let Some(app) = bundles::alpine() else { return };
    let mut sandbox = Sandbox::new();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return skip::because("no /dev/shm") };
    sandbox.own(elsewhere.path());
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(elsewhere.path()) == device(sandbox.path()) {
        return skip::because("/dev/shm is no file system of its own");
    }
    sandbox.set("TMPDIR", elsewhere.path());
    let script = "stat -c %d /etc/shells; echo x >>/etc/shells";
    let seen = |writable: &str| {
        let output = sandbox.run(&app, ["--coracle-engine=ptrace", writable, "sh", "-c", script]);
        output.ok().parse::<u64>().unwrap()
    };
    assert_eq!(seen("--coracle-writable"), device(sandbox.path()), "beside the tree");
    let base = sandbox.path().join("cache").join(format!("coracle-{}", user::ordinary().uid));
    let left = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("run")).count(), 0, "and gone at the end");
    let kept = format!("--coracle-writable={}", elsewhere.path().join("kept").display());
    assert_eq!(seen(&kept), device(elsewhere.path()), "copied, if that is asked for");
}
