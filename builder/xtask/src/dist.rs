//! `cargo xtask dist`: the static release binary and its checksum, in `target/dist`.

use std::{fs, process::Command};

use anyhow::{Context as _, bail};
use harness::images::workspace;
use sha2::{Digest as _, Sha256};

use crate::cargo::release;

/// Builds, checks that the binary asks for no loader, and writes it with its SHA-256.
pub(crate) fn run() -> anyhow::Result<()> {
    let built = release()?;
    let dir = workspace().join("target/dist");
    fs::create_dir_all(&dir)?;
    let path = dir.join("coracle");
    fs::copy(&built, &path).with_context(|| format!("copy {}", built.display()))?;
    let bytes = fs::read(&path)?;
    if bytes.windows(15).any(|window| window == b"/lib64/ld-linux") {
        let file = Command::new("file").arg(&path).output().map(|output| output.stdout).unwrap_or_default();
        bail!("the binary is not static: {}", String::from_utf8_lossy(&file).trim());
    }
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(dir.join("coracle.sha256"), format!("{digest}  coracle\n"))?;
    println!("{} ({} bytes, sha256 {digest})", path.display(), bytes.len());
    Ok(())
}
