//! `cargo xtask demo`: from a two-layer image to one file, and the file under every engine.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::{Output, Sandbox, hello, user};

use crate::cargo::release;

/// Every engine there is, in the order in which `auto` asks them.
const ENGINES: [&str; 5] = ["namespaces", "trap", "preload", "ptrace", "apptainer"];

/// Builds, bundles, runs, and prints a table.
pub(crate) fn run() -> anyhow::Result<()> {
    let built = release()?;
    // SAFETY: no other thread exists yet that could read the environment at the same time.
    unsafe { env::set_var("CORACLE_BIN", built) };
    let mut sandbox = Sandbox::new();
    let user = user::ordinary();
    println!("running as uid {} ({})", user.uid, user.name.as_deref().unwrap_or("no account"));

    let layout = sandbox.work("hello.oci");
    hello::write_image(&layout);
    println!("{}: an image of two layers, from examples/hello", layout.display());

    let bundle = sandbox.work("hello.run");
    let (bundle_text, source) = (bundle.display().to_string(), format!("oci:{}", layout.display()));
    let output = sandbox.coracle(["build", "--quiet", &source, "-o", &bundle_text]);
    ensure!(output.code == Some(0), "coracle build failed: {output}");
    println!("{bundle_text}: {} bytes, one file\n", fs::metadata(&bundle).context("the bundle is missing")?.len());

    println!("{:<11} {:<9} {:>12} {:>12}", "engine", "verdict", "first start", "second start");
    let mut accepted = 0;
    for engine in ENGINES {
        let cache = sandbox.make_dir(&format!("cache-{engine}"));
        sandbox.set("CORACLE_CACHE", cache);
        let option = format!("--coracle-engine={engine}");
        let start = || {
            let begin = Instant::now();
            let output = sandbox.run(&bundle, [&option]);
            (output, begin.elapsed())
        };
        let (output, first) = start();
        if output.code == Some(125) {
            println!("{engine:<11} {:<9} {}", "refused", reason(&output));
            continue;
        }
        let (again, second) = start();
        for output in [&output, &again] {
            ensure!(output.code == Some(0) && output.stdout.starts_with("Ahoy, world"), "{engine}: {output}");
        }
        println!("{engine:<11} {:<9} {:>12} {:>12}", "accepted", milliseconds(first), milliseconds(second));
        accepted += 1;
    }
    ensure!(accepted > 0, "no engine accepts on this node");
    Ok(())
}

fn reason(output: &Output) -> &str {
    output.stderr.trim_end().lines().last().unwrap_or("no reason was given").trim_start_matches("coracle: ")
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
