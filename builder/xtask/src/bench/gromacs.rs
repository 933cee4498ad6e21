//! Molecular dynamics: a small box of water by GROMACS's own tools, native (chroot) against Coracle's engines and others of the
//! kind.
//!
//! A program that computes should run as fast as without any of them, so what is asked is whether a difference can be told
//! from noise: in each round all take their turn, in another order, and each time is divided by the native one of its round.
//! Shown are the median of these ratios and the interval in which it lies with a confidence of 95 %; a second native run
//! says what the machine's own noise is.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use harness::{Sandbox, images::workspace, user};

use super::peers::{Way, working};
use crate::cargo::run;

/// Variable that names a Debian tree with GROMACS, as a tar archive; without it mmdebstrap makes one.
const TREE: &str = "CORACLE_BENCH_GROMACS_TREE";

/// Fewer rounds say nothing.
const LEAST_ROUNDS: usize = 20;

/// Who is compared.
const WAYS: [&str; 7] =
    ["native", "coracle preload", "coracle F1", "coracle P1", "coracle namespaces", "bwrap", "fakechroot"];

/// Makes the box of water and what is to be computed. Molecules that were cut at the box's edges lie too near to each other,
/// and would fly apart: first they are let find their places.
const PREPARE: &str = "cd /bench && gmx -quiet solvate -cs spc216.gro -box 3 3 3 -o conf.gro -p topol.top &&
gmx -quiet grompp -f min.mdp -c conf.gro -p topol.top -o min.tpr -po used.mdp &&
gmx -quiet mdrun -s min.tpr -deffnm min -ntmpi 1 -ntomp 1 &&
gmx -quiet grompp -f md.mdp -c min.gro -p topol.top -o topol.tpr -po used.mdp";

/// Computes; what is written goes to a directory that nobody has seen before.
const COMPUTE: &str = "dir=$(mktemp -d /tmp/coracle-bench-XXXXXX) && cd $dir &&
gmx -quiet mdrun -s /bench/topol.tpr -ntmpi 1 -ntomp 1 -pin off -cpt -1 >log 2>&1 && grep -q Performance md.log &&
cd / && rm -rf $dir";

const TOPOLOGY: &str = r#"#include "oplsaa.ff/forcefield.itp"
#include "oplsaa.ff/spc.itp"
[ system ]
water
[ molecules ]
"#;

const NEAREST: &str = "integrator = steep
nsteps = 100
cutoff-scheme = Verlet
coulombtype = PME
rcoulomb = 0.9
rvdw = 0.9
";

const PARAMETERS: &str = "integrator = md
dt = 0.002
nsteps = 600
nstenergy = 100
nstlog = 100
nstxout-compressed = 100
cutoff-scheme = Verlet
coulombtype = PME
rcoulomb = 0.9
rvdw = 0.9
tcoupl = v-rescale
tc-grps = System
tau-t = 0.1
ref-t = 300
gen-vel = yes
gen-seed = 1
ld-seed = 1
";

/// Goal: the interval of preload holds 1, or differs from it by no more than that of the second native run.
pub(crate) fn gromacs(rounds: usize) -> anyhow::Result<()> {
    let rounds = rounds.max(LEAST_ROUNDS);
    let tree = tree()?;
    let place = tree.join("bench");
    fs::create_dir_all(&place)?;
    fs::write(place.join("topol.top"), TOPOLOGY)?;
    fs::write(place.join("min.mdp"), NEAREST)?;
    fs::write(place.join("md.mdp"), PARAMETERS)?;
    fs::write(place.join("probe"), "")?;
    run(Command::new("chroot").arg(&tree).args(["/bin/sh", "-c", PREPARE]).stderr(Stdio::null()))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&place))?;
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let sandbox = Sandbox::new();
    let bundle = sandbox.work("gromacs.run");
    let from = format!("rootfs:{}", tree.display());
    let built = sandbox.coracle(["build", "--quiet", &from, "-o", &bundle.display().to_string()]);
    ensure!(built.code == Some(0), "{built}");
    let ways = working(&sandbox, &tree, &bundle)?;
    let ways: Vec<&Way<'_>> = ways.iter().filter(|way| WAYS.contains(&way.name)).collect();
    // The first native run of a round is what the others, and the second, are divided by.
    let native = ways.iter().position(|way| way.name == "native").context("there is nothing to compare with")?;
    let mut turns: Vec<(&str, &Way<'_>)> = vec![("native", ways[native]), ("native again", ways[native])];
    turns.extend(ways.iter().filter(|way| way.name != "native").map(|way| (way.name, *way)));
    // Not all that show the tree can do this much with it.
    turns.retain(|(name, way)| match time(name, way) {
        Err(error) if *name != "native" => {
            println!("left out: {error:#}");
            false
        }
        _ => true,
    });
    let mut ratios = vec![Vec::new(); turns.len()];
    let mut natives = Vec::new();
    for round in 0..=rounds {
        let mut times = vec![0.0; turns.len()];
        for turn in 0..turns.len() {
            let who = (turn + round) % turns.len();
            times[who] = time(turns[who].0, turns[who].1)?;
        }
        // The first round reads files for the others.
        if round > 0 {
            natives.push(times[0]);
            ratios.iter_mut().zip(&times).for_each(|(ratios, time)| ratios.push(time / times[0]));
        }
    }
    print(&turns, ratios, natives)
}

fn time(name: &str, way: &Way<'_>) -> anyhow::Result<f64> {
    let mut command = (way.prefix)();
    command.args(["/bin/sh", "-c", COMPUTE]).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("{name} cannot be started"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(begin.elapsed().as_secs_f64())
}

fn print(turns: &[(&str, &Way<'_>)], ratios: Vec<Vec<f64>>, mut natives: Vec<f64>) -> anyhow::Result<()> {
    natives.sort_by(f64::total_cmp);
    let (_, seconds, _) = median(&natives).context("no rounds")?;
    println!("\nGROMACS, a box of water, one thread ({} interleaved rounds, native {seconds:.2} s)", natives.len());
    println!("{:<24} {:>8} {:>23}", "", "ratio", "95 % of its median");
    for ((name, _), mut ratios) in turns.iter().zip(ratios).skip(1) {
        ratios.sort_by(f64::total_cmp);
        let (low, middle, high) = median(&ratios).context("no rounds")?;
        println!("{name:<24} {middle:>8.3} {low:>10.3} – {high:>10.3}");
    }
    Ok(())
}

/// The median of what is sorted, between the two values that hold the true one with a confidence of at least 95 %: how many
/// of n values lie below the true median is a matter of n tosses of a coin.
fn median(sorted: &[f64]) -> Option<(f64, f64, f64)> {
    let count = sorted.len();
    let middle = *sorted.get(count / 2)?;
    let middle = if count.is_multiple_of(2) { f64::midpoint(middle, sorted[count / 2 - 1]) } else { middle };
    // The chance that at most so many tosses of `count` are heads, for more and more of them.
    let (mut chance, mut all, mut outside) = (0.5_f64.powi(i32::try_from(count).ok()?), 0.0, 0);
    for heads in 0..count {
        all += chance;
        if all > 0.025 {
            break;
        }
        outside = heads + 1;
        #[expect(clippy::cast_precision_loss, reason = "as many rounds as anybody waits for")]
        let next = (count - heads) as f64 / (heads + 1) as f64;
        chance *= next;
    }
    let low = outside.saturating_sub(1);
    Some((sorted[low], middle, sorted[count - 1 - low]))
}

/// A Debian tree with GROMACS in `target/bench/gromacs`, made if it is not there.
fn tree() -> anyhow::Result<PathBuf> {
    let tree = workspace().join("target/bench/gromacs");
    if !tree.join("etc/debian_version").exists() {
        ensure!(user::is_root(), "the tree is made by mmdebstrap, which needs root here: run once as root");
        fs::create_dir_all(&tree)?;
        match env::var_os(TREE) {
            Some(archive) => {
                run(Command::new("tar").arg("-C").arg(&tree).args(["--exclude=./dev", "-xf"]).arg(archive))?;
            }
            None => {
                let old = r#"--aptopt=Acquire::Check-Valid-Until "false""#;
                let include = "--include=gromacs,gromacs-data";
                run(Command::new("mmdebstrap")
                    .args(["--quiet", "--variant=apt", include, old, "bookworm"])
                    .arg(&tree))?;
            }
        }
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&tree))?;
        empty(&tree)?;
    }
    Ok(tree)
}

/// What mounts and binds need, and the one device without which no shell works in a chroot.
fn empty(tree: &Path) -> anyhow::Result<()> {
    run(Command::new("rm").arg("-rf").args(["dev", "proc", "sys"].map(|dir| tree.join(dir))))?;
    for dir in ["dev", "proc", "sys"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    run(Command::new("mknod").args(["-m", "666"]).arg(tree.join("dev/null")).args(["c", "1", "3"]))
}

#[cfg(test)]
mod tests {
    use super::median;

    /// As tables of the sign test have it.
    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        for (count, low) in [(6, 1), (10, 2), (20, 6), (25, 8), (30, 10)] {
            let sorted: Vec<f64> = (1..=count).map(f64::from).collect();
            let expected = (f64::from(low), f64::from(count + 1) / 2.0, f64::from(count + 1 - low));
            assert_eq!(median(&sorted), Some(expected), "{count}");
        }
        assert_eq!(median(&[]), None);
    }
}
