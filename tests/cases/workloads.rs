//! Real programs at tasks whose results are known, as an ordinary user: what computes (`tests/guests/computing.sh`) in four
//! releases of Debian, and languages, servers and tools (`tests/guests/tools.sh`) in one, in the slow tier; Alpine's tools
//! (`tests/guests/alpine.sh`) in two of its releases.
//!
//! Whatever an engine hides from a program shows in what the program works out, so results are compared with what they have
//! to be, not with another run.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Output, Sandbox, coracle, images, skip};

/// The two ways of the preload engine, and two engines that it has to be as good as.
const ENGINES: [(&str, &str); 4] =
    [("F3", "preload"), ("F1", "preload"), ("P1", "ptrace"), ("namespaces", "namespaces")];

const COMPUTING: &str = "--include=python3-venv,python3-numpy,r-base-core,octave,default-jdk-headless,nodejs,\
openmpi-bin,libopenmpi-dev,gcc,libc6-dev,gromacs";

const TOOLS: &str = "--include=cmake,ninja-build,g++,libc6-dev,make,ruby,lua5.4,tmux,gdb,postgresql,redis-server,\
nginx-light,ffmpeg,imagemagick,libjemalloc2,libtcmalloc-minimal4,locales,python3-pyqt5,python3-gi,gir1.2-gtk-3.0,cargo,\
rustc,curl,python3-venv,procps,php-cli,tcl,ghostscript,xvfb,gawk,screen,mariadb-server,zsh,fish,strace,libc-bin,\
openssh-client,rsync,file,jq,graphviz,gnuplot-nox,pandoc";

/// Themes that the preload engine does not play: a debugger takes a program that was made meanwhile for its loader, by
/// which it is started, and never sees the addresses at which it would stop it.
const NOT_PRELOADED: [&str; 1] = ["gdb"];

/// A bundle of the tarball's tree.
fn bundle(sandbox: &Sandbox, tar: &Path) -> PathBuf {
    let (source, bundle) = (format!("rootfs:{}", tar.display()), sandbox.work("programs.run"));
    sandbox
        .run(
            coracle(),
            ["build", &source, "--compression=1", "--cmd", r#"["/bin/sh"]"#, "-o", bundle.to_str().unwrap()],
        )
        .ok();
    bundle
}

/// A file of `tests/guests` in the sandbox's `dir`.
fn guest(sandbox: &Sandbox, dir: &str, file: &str) -> PathBuf {
    let text = fs::read(images::workspace().join("tests/guests").join(file)).unwrap();
    sandbox.write(&format!("{dir}/{file}"), text)
}

/// Runs a script of themes under every engine: all have to be `ok`, but for those that the tree is known to lack.
fn all_right(sandbox: &Sandbox, bundle: &Path, script: &str, options: &[&str], lacking: &[&str]) {
    let explained = sandbox.run(bundle, ["--coracle-explain"]).stdout;
    for (engine, name) in ENGINES {
        if !explained.contains(&format!("{name}: accepted")) {
            skip::because(&format!("this node refuses {name}"));
            continue;
        }
        let dir = sandbox.make_dir(&format!("work/{engine}"));
        guest(sandbox, engine, "themes.sh");
        let script = guest(sandbox, engine, script);
        let mut command = sandbox.command(bundle);
        command.arg(format!("--coracle-engine={engine}")).args(options).current_dir(&dir);
        command.arg("/bin/sh").arg(script);
        let output = Output::of(command);
        let (well, others): (Vec<&str>, Vec<&str>) = output.stdout.lines().partition(|line| line.starts_with("ok "));
        let lacks: BTreeSet<&str> = others.iter().filter_map(|line| line.strip_prefix("lacks ")).collect();
        let fails = others.iter().filter_map(|line| line.strip_prefix("fails "));
        let fails: Vec<&str> = fails.filter(|theme| name != "preload" || !NOT_PRELOADED.contains(theme)).collect();
        assert!(fails.is_empty(), "{engine}: {output}");
        assert_eq!(lacks, lacking.iter().copied().collect(), "{engine}: {output}");
        assert!(well.len() > 4, "{engine}: {output}");
        output.ok();
        fs::remove_dir_all(dir).unwrap();
    }
}

/// A folder with numpy's wheel for the Python of the bundle, by the host's pip; nothing where that reaches no registry.
fn wheels(sandbox: &Sandbox, bundle: &Path) -> Option<PathBuf> {
    let version = "import sys; print('%d.%d' % sys.version_info[:2])";
    let said = sandbox.run(bundle, ["--coracle-engine=namespaces", "python3", "-c", version]);
    let dir = sandbox.make_dir("work/wheels");
    let mut pip = Command::new("pip3");
    pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation=cp"]);
    pip.args(["--python-version", said.ok(), "numpy", "--dest"]).arg(&dir);
    if !pip.status().is_ok_and(|status| status.success()) {
        skip::because("numpy from a registry: pip3 gets none here (not installed, or no network?)");
        return None;
    }
    for file in fs::read_dir(&dir).unwrap() {
        fs::set_permissions(file.unwrap().path(), PermissionsExt::from_mode(0o644)).unwrap();
    }
    Some(dir)
}

fn computing(release: &str, lacking: &[&str]) {
    let Some(tar) = images::debian_with(release, "computing", "apt", COMPUTING) else { return };
    let mut sandbox = Sandbox::new();
    let bundle = bundle(&sandbox, &tar);
    if let Some(wheels) = wheels(&sandbox, &bundle) {
        sandbox.set("WHEELS", wheels);
    }
    all_right(&sandbox, &bundle, "computing.sh", &[], lacking);
}

/// Packages that a root of the run's own installs in its own view.
fn alpine(archive: &str) {
    let Some(tar) = images::find(archive) else { return };
    let mut sandbox = Sandbox::new();
    let bundle = bundle(&sandbox, &tar);
    let make = guest(&sandbox, "packages", "packages.sh");
    let mut packages = sandbox.command("sh");
    packages.arg(&make).current_dir(make.parent().unwrap());
    Output::of(packages).ok();
    sandbox.set("REPOSITORY", make.with_file_name("repo"));
    all_right(&sandbox, &bundle, "alpine.sh", &["--coracle-user=root", "--coracle-writable"], &[]);
}

#[test]
fn packages_in_alpine_of_today() {
    alpine(images::ALPINE);
}

#[test]
fn packages_in_alpine_of_2019() {
    alpine(images::ALPINE_OLD);
}

#[test]
fn tools_in_bookworm() {
    let Some(tar) = images::debian_with("bookworm", "tools", "apt", TOOLS) else { return };
    let sandbox = Sandbox::new();
    let bundle = bundle(&sandbox, &tar);
    all_right(&sandbox, &bundle, "tools.sh", &[], &[]);
}

#[test]
fn computing_in_bullseye() {
    computing("bullseye", &[]);
}

#[test]
fn computing_in_bookworm() {
    computing("bookworm", &[]);
}

#[test]
fn computing_in_trixie() {
    computing("trixie", &[]);
}

#[test]
fn computing_in_sid() {
    computing("sid", &[]);
}
