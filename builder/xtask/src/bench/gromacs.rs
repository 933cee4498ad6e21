//! Molecular dynamics: a small box of water by GROMACS's own tools, native (chroot) against Coracle's engines and
//! others of the kind.
//!
//! A program that computes should run as fast as without any of them, so what is asked is whether a difference can be told
//! from noise, by ratios of pairs (`pairs.rs`).

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use harness::{Sandbox, images::workspace, user};

use super::{pairs, peers::working};
use crate::cargo::run;

/// Variable that names a Debian tree with GROMACS, as a tar archive; without it mmdebstrap makes one.
const TREE: &str = "CORACLE_BENCH_GROMACS_TREE";

/// With what comes before, that is six minutes.
const LIMIT: Duration = Duration::from_secs(270);

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
    let built = sandbox.coracle(["build", "--quiet", "--compression=1", &from, "-o", &bundle.display().to_string()]);
    ensure!(built.code == Some(0), "{built}");
    let ways = working(&sandbox, &tree, &bundle)?;
    let title = "GROMACS, a box of water, one thread";
    pairs::compare(title, rounds, LIMIT, &pairs::named(&ways, &WAYS), &["/bin/sh", "-c", COMPUTE])
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
