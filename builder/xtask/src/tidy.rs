//! `cargo xtask tidy`: formatting, lints, house rules, licences.

use std::process::Command;

use crate::cargo::{self, cargo};

/// Runs the checks; all of `cargo deny`'s that need no network, where it is installed.
pub(crate) fn run() -> anyhow::Result<()> {
    cargo::run(cargo().args(["fmt", "--all", "--check"]))?;
    cargo::run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))?;
    cargo::run(cargo().args(["test", "--quiet", "--package", "coracle-tests", "tidy"]))?;
    let deny = Command::new("cargo-deny").arg("--version").output();
    if deny.is_ok_and(|output| output.status.success()) {
        cargo::run(cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
    } else {
        eprintln!("xtask: cargo-deny is not installed: licences and sources were not checked");
        Ok(())
    }
}
