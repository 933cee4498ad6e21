//! `cargo xtask test`: all quick tests, and with `--all` the slow tier too.

use std::fs;

use anyhow::Context as _;
use clap::Args;
use harness::images::workspace;

use crate::{
    cargo::{self, cargo},
    setup,
};

/// The stub forks, and its children make threads, as a process may that has one thread; a test among other tests' threads
/// may fork while one of them holds a lock, which nobody opens in the child.
const STUB: &str = "coracle-stub";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also the slow tier: big programs, many distributions, schedulers.
    #[arg(long)]
    all: bool,
    /// Only tests whose name holds this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::prepare(options.all);
    let skips = workspace().join("target/skipped-tests");
    fs::create_dir_all(workspace().join("target")).context("make target")?;
    let _ = fs::remove_file(&skips);
    let test = |which: &[&str], more: &[&str]| {
        let mut command = cargo();
        command.arg("test").args(which).arg("--no-fail-fast").env("CORACLE_TEST_SKIPS", &skips);
        if options.all {
            command.env("CORACLE_TEST_ALL", "1");
        }
        cargo::run(command.args(&options.filter).args(more))
    };
    let mut done = test(&["--workspace", "--exclude", STUB], &[]);
    done = done.and(test(&["--package", STUB], &["--", "--test-threads=1"]));
    if options.all {
        done = done.and(with_glibc_stub());
    }
    let mut skipped: Vec<String> = fs::read_to_string(&skips).unwrap_or_default().lines().map(str::to_owned).collect();
    skipped.sort();
    skipped.dedup();
    println!("\nskipped tests: {}", skipped.len());
    for line in skipped {
        println!("  {line}");
    }
    done
}

/// The bundles' cases once more with a stub of static glibc, which is what a machine without the musl target builds.
fn with_glibc_stub() -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["test", "--package", "coracle-tests", "--test", "cases", "running::"]);
    command.env("CORACLE_STUB_TARGET", format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    cargo::run(&mut command)
}
