//! A view (the tree beside the tree in which programs name the tree's own loader, F3): what making it costs, against
//! unpacking the tree, in processor time.
//!
//! In memory (`/dev/shm`) where it can be had, and said where: on a disk both wait for it. Each round has a fresh
//! cache, a first start that only unpacks (F1), one that makes the view of that tree (F3), and one that finds it; then
//! another fresh cache and a first start that does both at once. What a warm start costs is taken off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use harness::{Sandbox, usage::processor_time};

use super::{stats::quantile, tree};

/// Goal: at most 0.15 of unpacking, and nothing on a warm start. `CORACLE_BENCH_TREE` names another tree.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let tree = std::env::var_os("CORACLE_BENCH_TREE").map_or_else(tree::debian, |tree| Ok(PathBuf::from(tree)))?;
    let sandbox = Sandbox::new();
    let bundle = sandbox.work("v.run");
    let built = sandbox.coracle(["build", "--quiet", &format!("rootfs:{}", tree.display()), "-o", "v.run"]);
    ensure!(built.code == Some(0), "{built}");
    let memory = tempfile::Builder::new().prefix("coracle-bench-").tempdir_in("/dev/shm").ok();
    let place = memory.as_ref().map_or_else(|| sandbox.work("place"), |dir| dir.path().to_owned());
    fs::create_dir_all(&place)?;
    sandbox.own(&place);
    let cache = place.join("cache");
    let start = |engine: &str| -> anyhow::Result<Duration> {
        let mut command = sandbox.command(&bundle);
        command.env("CORACLE_CACHE", &cache).arg(format!("--coracle-engine={engine}")).arg("/bin/true");
        Ok(processor_time(command.stdin(Stdio::null()).stdout(Stdio::null()))?)
    };
    let fresh = || -> anyhow::Result<()> {
        if cache.exists() {
            fs::remove_dir_all(&cache)?;
        }
        fs::create_dir(&cache)?;
        sandbox.own(&cache);
        Ok(())
    };
    let mut rows: [(&str, Vec<Duration>); 4] = [
        ("unpacking", vec![]),
        ("the view, made later", vec![]),
        ("the view, first start", vec![]),
        ("warm start", vec![]),
    ];
    for round in 0..=rounds.max(3) {
        fresh()?;
        let (unpacked, made, warm) = (start("F1")?, start("F3")?, start("F3")?);
        let view = links(&cache)?;
        fresh()?;
        let both = start("F3")?;
        if round == 0 {
            println!("\nin {}: {} files, of which {} are copies with edits", place.display(), view.0, view.1);
            continue;
        }
        let times = [unpacked - warm.min(unpacked), made.saturating_sub(warm), both.saturating_sub(unpacked), warm];
        rows.iter_mut().zip(times).for_each(|((_, all), time)| all.push(time));
    }
    println!("\nprocessor time ({} rounds, warm start taken off)", rounds.max(3));
    println!("{:<24} {:>11} {:>23} {:>8}", "", "median", "quartiles", "ratio");
    rows.iter_mut().for_each(|(_, all)| all.sort());
    let milliseconds = |all: &[Duration], q| quantile(all, q).as_secs_f64() * 1e3;
    let base = milliseconds(&rows[0].1, 0.5);
    for (name, all) in &rows {
        let [first, median, third] = [0.25, 0.5, 0.75].map(|q| milliseconds(all, q));
        println!("{name:<24} {median:>8.2} ms {first:>9.2} – {third:>8.2} ms {:>8.3}", median / base);
    }
    Ok(())
}

/// Regular files of the view in a cache, and those that are not the tree's own.
fn links(cache: &Path) -> anyhow::Result<(usize, usize)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut counts = (0, 0);
    let mut left = vec![view(cache).context("there is no view")?];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, data) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if data.is_dir() {
                left.push(path);
            } else if data.is_file() {
                counts = (counts.0 + 1, counts.1 + usize::from(data.nlink() == 1));
            }
        }
    }
    Ok(counts)
}

/// Where the one view in a cache lies.
fn view(cache: &Path) -> Option<PathBuf> {
    let inside = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
    let trees = inside(cache.to_owned()).flat_map(|own| inside(own.path())).filter(|tree| tree.file_name().len() == 64);
    let mut views = trees.flat_map(|tree| inside(tree.path()));
    views.find_map(|view| {
        let is_view = view.file_name().to_string_lossy().starts_with("view-preload-");
        view.path().join("root").canonicalize().ok().filter(|_| is_view)
    })
}
