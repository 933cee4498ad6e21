//! Calls of cargo, rustup and friends, shown before they run.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use harness::images::workspace;

/// The cargo that runs us, in the workspace.
///
/// What the outer cargo says of xtask itself (`CARGO_PKG_NAME`…) is kept from it: build scripts that look at these would
/// run again, and crates be compiled anew.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(&*name);
        }
    }
    command.current_dir(workspace());
    command
}

/// Shows a command, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("+ {}", show(command));
    let status = command.status().with_context(|| format!("{} cannot be started", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Builds the release binary and returns its path.
pub(crate) fn release() -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "coracle"]))?;
    // We were built for the same target, by the same configuration: target/<triple>/<profile>/xtask.
    let exe = env::current_exe()?;
    let target = exe.ancestors().nth(2).context("xtask lies in no target directory")?;
    let path = target.join("release/coracle");
    if !path.exists() {
        bail!("{} is not there after the build", path.display());
    }
    Ok(path)
}

fn show(command: &Command) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut words = vec![name(Path::new(command.get_program()))];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
