//! Batch jobs: tasks of an array under Slurm, as a bundle, native and under bubblewrap; and sixty-four starts at once
//! on a node.
//!
//! Slurm is a controller and two nodes on this machine, and all of it shares the processors with the tasks; so what
//! counts is the difference to the same tasks run natively, in the same round.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use harness::{Sandbox, Slurm, images};

use super::{
    stats::{Peer, compare, quantile, take_turns},
    tree,
};

/// Tasks of an array: as many as both nodes run at once, twice.
const TASKS: u32 = 128;

/// Submits an array of tasks and waits until all of them have ended.
const ARRAY: &str = r#"id=$(printf '#!/bin/sh\nexec %s\n' "$1" | sbatch --parsable --array=1-"$0" -o /dev/null --mem=20M) || exit
while squeue -h -j "$id" | grep -q .; do sleep 0.1; done"#;

/// Goal: at most 5 ms more a task than native.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    arrays(rounds)?;
    at_once(rounds)
}

fn arrays(rounds: usize) -> anyhow::Result<()> {
    let (Some(image), mut sandbox) = (images::find(images::ALPINE), Sandbox::new()) else { return Ok(()) };
    let Some(slurm) = Slurm::start(&mut sandbox) else { return Ok(()) };
    let (tree, bundle) = (sandbox.make_dir("tree"), sandbox.work("app.run"));
    let untar = sandbox.run("tar", ["-xzf".as_ref(), image.as_os_str(), "-C".as_ref(), tree.as_os_str()]);
    ensure!(untar.code == Some(0), "{untar}");
    let source = format!("rootfs:{}", image.display());
    let built = sandbox.coracle(["build", "--quiet", &source, "-o", &bundle.display().to_string()]);
    ensure!(built.code == Some(0), "{built}");
    sandbox.set("CORACLE_CACHE", slurm.local()).set("TMPDIR", slurm.local());
    let first = sandbox.run("srun", ["-N2", "-n2", &bundle.display().to_string(), "true"]);
    ensure!(first.code == Some(0), "{first}");

    let array = |task: String| {
        let sandbox = &sandbox;
        move || {
            let mut command = sandbox.command("sh");
            command.args(["-c", ARRAY, &TASKS.to_string(), &task]);
            command
        }
    };
    let bwrap = format!("bwrap --ro-bind {} / --dev-bind /dev /dev --bind /proc /proc true", tree.display());
    let peers = [
        Peer::new("native", array("/bin/true".to_owned())),
        Peer::new("coracle", array(format!("{} true", bundle.display()))),
        Peer::new("coracle, with records", array(format!("{} --coracle-report=records true", bundle.display()))),
        Peer::new("coracle, preload", array(format!("{} --coracle-engine=preload true", bundle.display()))),
        Peer::new("coracle, ptrace", array(format!("{} --coracle-engine=ptrace true", bundle.display()))),
        Peer::new("bwrap", array(bwrap)),
    ];
    let times = take_turns(rounds.max(3), &peers)?;
    println!("\narrays of {TASKS} tasks on two nodes of Slurm ({} rounds, interleaved)", rounds.max(3));
    println!("{:<24} {:>15} {:>12} {:>33}", "", "tasks a minute", "a task", "more than native (quartiles)");
    for (peer, own) in peers.iter().zip(&times) {
        // Of each round the difference to the native array of that round, for what else the machine does changes.
        let mut more: Vec<f64> =
            own.iter().zip(&times[0]).map(|(own, native)| (a_task(*own) - a_task(*native)) * 1e3).collect();
        more.sort_by(f64::total_cmp);
        let mut own: Vec<f64> = own.iter().map(|time| a_task(*time)).collect();
        own.sort_by(f64::total_cmp);
        println!(
            "{:<24} {:>15.0} {:>9.2} ms {:>9.2} ms ({:>6.2} – {:>6.2} ms)",
            peer.name,
            60.0 / quantile(&own, 0.5),
            quantile(&own, 0.5) * 1e3,
            quantile(&more, 0.5),
            quantile(&more, 0.25),
            quantile(&more, 0.75),
        );
    }
    Ok(())
}

/// Seconds of an array that one task stands for.
fn a_task(array: Duration) -> f64 {
    array.as_secs_f64() / f64::from(TASKS)
}

/// One start and sixty-four at once, with nothing in the cache and with the tree there.
fn at_once(rounds: usize) -> anyhow::Result<()> {
    const MANY: &str = r#"for i in $(seq "$0"); do "$@" & done; wait"#;
    let tree = tree::debian()?;
    let sandbox = Sandbox::new();
    let bundle = sandbox.work("debian.run");
    let source = format!("rootfs:{}", tree.display());
    let built = sandbox.coracle(["build", "--quiet", &source, "-o", &bundle.display().to_string()]);
    ensure!(built.code == Some(0), "{built}");
    let starts = |number: &'static str, program: Vec<String>| {
        let sandbox = &sandbox;
        move || {
            let mut command = sandbox.command("sh");
            command.args(["-c", MANY, number]).args(&program);
            // Whoever waits for the one that unpacks says so after a second.
            command.env("CORACLE_QUIET", "1").stderr(std::process::Stdio::null());
            command
        }
    };
    let ours = || vec![bundle.display().to_string(), "/bin/true".to_owned()];
    let bwrap = || {
        let words =
            ["bwrap", "--ro-bind", &tree.display().to_string(), "/", "--dev-bind", "/dev", "/dev"].map(str::to_owned);
        words.into_iter().chain(["--bind", "/proc", "/proc", "/bin/true"].map(str::to_owned)).collect::<Vec<_>>()
    };
    let forget = || forget(&sandbox, &bundle);
    compare(
        "starts at once on a node, Debian tree",
        (rounds / 2).max(3),
        &["one, cold"],
        &[
            Peer::new("one, cold", starts("1", ours())).before(forget),
            Peer::new("64 at once, cold", starts("64", ours())).before(forget),
            Peer::new("one, warm", starts("1", ours())),
            Peer::new("64 at once, warm", starts("64", ours())),
            Peer::new("64 at once, native", starts("64", vec!["/bin/true".to_owned()])),
            Peer::new("64 at once, bwrap", starts("64", bwrap())),
        ],
    )
}

fn forget(sandbox: &Sandbox, bundle: &Path) {
    let cleaned = sandbox.run(bundle, ["--coracle-cleanup"]);
    assert_eq!(cleaned.code, Some(0), "{cleaned}");
}
