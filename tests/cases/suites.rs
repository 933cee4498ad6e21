//! Whole distributions: `tests/guests/programs.sh` says the same under every engine as in a real chroot of the same tree.
//! Alpine in the quick tier, four releases of Debian in the slow one.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Output, Sandbox, coracle, images, skip, user};

const SCRIPT: &str = "/work/programs.sh";

const EVERY: &[&str] = &["namespaces", "P1", "P2", "F1", "F3"];

/// Runs the script in a chroot of the tarball's tree and under these engines, and compares.
fn same_as_in_a_chroot(tar: &Path, engines: &[&str]) {
    if skip::unless_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let root = sandbox.make_dir("root");
    let mut unpack = Command::new("tar");
    unpack.args(["--exclude=./dev", "-xf"]).arg(tar).arg("-C").arg(&root);
    user::ordinary().apply(&mut unpack);
    Output::of(unpack).ok();
    for dir in ["dev", "proc", "work"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let native = Output::of(natively(&sandbox, &root));
    assert!(native.stdout.lines().filter(|line| line.starts_with("ok ")).count() > 5, "{native}");
    let (source, bundle) = (format!("rootfs:{}", tar.display()), sandbox.work("suite.run"));
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/sh"]"#, "-o", bundle.to_str().unwrap()]).ok();
    let explained = sandbox.run(&bundle, ["--coracle-explain"]).stdout;
    for engine in engines {
        let name = match *engine {
            "P1" | "P2" => "ptrace",
            "F1" | "F3" => "preload",
            engine => engine,
        };
        if !explained.contains(&format!("{name}: accepted")) {
            skip::because(&format!("this node refuses {name}"));
            continue;
        }
        let work = work(&sandbox, engine);
        let mut command = sandbox.command(&bundle);
        command.args([format!("--coracle-engine={engine}"), format!("--coracle-volume={}:/work", work.display())]);
        command.args(["--coracle-workdir=/work", "/bin/sh", SCRIPT]);
        let seen = Output::of(command);
        assert_eq!(seen.stdout, native.stdout, "{engine}: {seen}\nnatively: {native}");
    }
}

/// A directory with nothing but the script in it.
fn work(sandbox: &Sandbox, name: &str) -> PathBuf {
    let dir = sandbox.make_dir(&format!("work/{name}"));
    let script = dir.join("programs.sh");
    fs::copy(images::workspace().join("tests/guests/programs.sh"), &script).unwrap();
    let owner = fs::metadata(&dir).unwrap();
    chown(&script, Some(owner.uid()), Some(owner.gid())).unwrap();
    dir
}

fn natively(sandbox: &Sandbox, root: &Path) -> Command {
    let script = r#"
        set -e
        mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/work"
        exec chroot --userspec="$2" --groups= "$0" /bin/sh "$3"
    "#;
    let user = user::ordinary();
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--mount", "sh", "-c", script]).arg(root).arg(work(sandbox, "native"));
    command.args([&format!("{}:{}", user.uid, user.gid), SCRIPT]);
    command
}

#[test]
fn alpine_of_today() {
    if let Some(tar) = images::find(images::ALPINE) {
        same_as_in_a_chroot(&tar, EVERY);
    }
}

#[test]
fn alpine_of_2019() {
    if let Some(tar) = images::find(images::ALPINE_OLD) {
        same_as_in_a_chroot(&tar, EVERY);
    }
}

#[test]
fn alpine_of_32_bits() {
    if let Some(tar) = images::find(images::ALPINE_I386) {
        same_as_in_a_chroot(&tar, EVERY);
    }
}

/// A release's tree.
fn debian(release: &str) {
    if let Some(tar) = images::debian(release) {
        same_as_in_a_chroot(&tar, EVERY);
    }
}

#[test]
fn debian_bullseye() {
    debian("bullseye");
}

#[test]
fn debian_bookworm() {
    debian("bookworm");
}

#[test]
fn debian_trixie() {
    debian("trixie");
}

#[test]
fn debian_sid() {
    debian("sid");
}

/// Go makes its system calls itself, in static programs and dynamic ones, and from threads of its own: past any library
/// that is preloaded.
#[test]
fn debian_with_go() {
    if let Some(tar) = images::debian_with("bookworm", "go", "minbase", "--include=golang-go,gcc,libc6-dev") {
        same_as_in_a_chroot(&tar, &EVERY[..3]);
    }
}
