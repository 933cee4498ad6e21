//! The trees that are measured on: a Debian with a compiler and Python, about 300 MB, made once.

use std::{fs, path::PathBuf, process::Command};

use anyhow::ensure;
use harness::{images::workspace, user};

use crate::cargo::run;

/// The tree that packing and unpacking are measured on.
pub(crate) fn debian() -> anyhow::Result<PathBuf> {
    made("tree", "trixie")
}

/// One of the host's own release, if that is a Debian: fakechroot brings the host's library into it, which only fits there.
pub(crate) fn like_host() -> anyhow::Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|found| found == line);
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).filter(|_| has("ID=debian"));
    match name {
        Some(name) => made(&format!("tree-{name}"), name),
        None => debian(),
    }
}

/// Makes the tree in `target/bench` if it is not there, readable by everybody.
fn made(name: &str, release: &str) -> anyhow::Result<PathBuf> {
    let tree = workspace().join("target/bench").join(name);
    if !tree.join("etc/debian_version").exists() {
        ensure!(user::is_root(), "the tree is made by mmdebstrap, which needs root here: run once as root");
        fs::create_dir_all(tree.parent().unwrap_or(&tree))?;
        let include = "--include=gcc,libc6-dev,make,python3";
        // An old snapshot of the archive is as good as a new one.
        let old = r#"--aptopt=Acquire::Check-Valid-Until "false""#;
        // Beside its place, so that nobody takes half of it for the whole.
        let half = tree.with_extension(format!("half-{}", std::process::id()));
        run(Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", include, old, release]).arg(&half))?;
        // What only root reads, an ordinary user cannot pack; device nodes are in no bundle.
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&half))?;
        run(Command::new("rm").arg("-rf").args([half.join("dev"), half.join("proc"), half.join("sys")]))?;
        fs::rename(&half, &tree)?;
    }
    Ok(tree)
}
