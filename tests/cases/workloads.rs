//! Real programs at tasks whose results are known, as an ordinary user: what computes (`tests/guests/computing.sh`) in four
//! releases of Debian. Slow tier.
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

/// Runs a script of themes under every engine: all have to be `ok`, but for those that the tree is known to lack.
fn all_right(sandbox: &Sandbox, bundle: &Path, script: &str, options: &[String], lacking: &[&str]) {
    let explained = sandbox.run(bundle, ["--coracle-explain"]).stdout;
    for (engine, name) in ENGINES {
        if !explained.contains(&format!("{name}: accepted")) {
            skip::because(&format!("this node refuses {name}"));
            continue;
        }
        let dir = sandbox.make_dir(&format!("work/{engine}"));
        for file in ["themes.sh", script] {
            let text = fs::read(images::workspace().join("tests/guests").join(file)).unwrap();
            sandbox.write(&format!("{engine}/{file}"), text);
        }
        let mut command = sandbox.command(bundle);
        command.arg(format!("--coracle-engine={engine}")).args(options).current_dir(&dir);
        command.arg("/bin/sh").arg(dir.join(script));
        let output = Output::of(command);
        let (well, others): (Vec<&str>, Vec<&str>) = output.stdout.lines().partition(|line| line.starts_with("ok "));
        let lacks: BTreeSet<&str> = others.iter().filter_map(|line| line.strip_prefix("lacks ")).collect();
        assert_eq!(lacks.len(), others.len(), "{engine}: {output}");
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
