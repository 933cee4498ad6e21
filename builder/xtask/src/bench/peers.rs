//! Whoever can show a tree to a program: each with a command of its own, and only those that really do.

use std::{env, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use anyhow::ensure;
use harness::{Sandbox, user};

/// Way of running a program in the tree.
pub(crate) struct Way<'a> {
    pub(crate) name: &'static str,
    /// The command, but for the program and its arguments.
    pub(crate) prefix: Box<dyn Fn() -> Command + 'a>,
}

/// Variable that names a tree with PRoot 5.4 in it (Debian sid's), which runs there: its tree, mount points and account.
const PROOT_TREE: &str = "CORACLE_BENCH_PROOT_TREE";

/// Runs a command in that tree, where the tree that is measured is `/tree`.
const IN_ITS_TREE: &str = "place=$1 tree=$2 person=$3; shift 3
mkdir -p $place/tree $place/dev $place/proc && mount --bind $tree $place/tree && mount --rbind /dev $place/dev &&
mount --bind /proc $place/proc && exec chroot --userspec=$person $place \"$@\"";

/// All ways that work here; the others are named, with the reason.
pub(crate) fn working<'a>(sandbox: &'a Sandbox, tree: &'a Path, bundle: &'a Path) -> anyhow::Result<Vec<Way<'a>>> {
    let inode = fs::metadata(tree.join("bench/probe"))?.ino();
    let mut ways = Vec::new();
    for way in all(sandbox, tree, bundle) {
        let output = (way.prefix)().args(["/usr/bin/stat", "-c", "%i", "/bench/probe"]).output();
        let answer = output.map(|output| {
            let shown = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok();
            (output.status.success(), shown, String::from_utf8_lossy(&output.stderr).trim().to_owned())
        });
        // A bundle unpacks a copy of the tree.
        let own = way.name.starts_with("coracle");
        match answer {
            Ok((true, Some(shown), _)) if own || shown == inode => ways.push(way),
            Ok((true, _, _)) => println!("left out: {}: it runs the program, but does not show it the tree", way.name),
            Ok((false, _, said)) => println!("left out: {}: {}", way.name, said.lines().last().unwrap_or("it failed")),
            Err(error) => println!("left out: {}: {error}", way.name),
        }
    }
    ensure!(ways.iter().any(|way| way.name == "native"), "there is nothing to compare with: run as root, for chroot");
    Ok(ways)
}

fn all<'a>(sandbox: &'a Sandbox, tree: &'a Path, bundle: &'a Path) -> Vec<Way<'a>> {
    fn way<'a>(name: &'static str, prefix: impl Fn() -> Command + 'a) -> Way<'a> {
        Way { name, prefix: Box::new(prefix) }
    }
    let engine = move |option: &'static str| {
        move || {
            let mut command = sandbox.command(bundle);
            command.arg(option);
            command
        }
    };
    let proot = move |no_seccomp: bool| {
        move || {
            let mut command = sandbox.command("proot");
            command.envs(no_seccomp.then_some(("PROOT_NO_SECCOMP", "1")));
            command.arg("-r").arg(tree).args(["-b", "/dev", "-b", "/proc", "-w", "/"]);
            command
        }
    };
    let newer = move |no_seccomp: bool| {
        move || {
            let place = env::var_os(PROOT_TREE).unwrap_or_else(|| format!("no-tree-in-{PROOT_TREE}").into());
            let person = user::ordinary();
            let mut command = Command::new("unshare");
            command.envs(no_seccomp.then_some(("PROOT_NO_SECCOMP", "1")));
            command.args(["--mount", "sh", "-c", IN_ITS_TREE, "sh"]).arg(place).arg(tree);
            command.arg(format!("{}:{}", person.uid, person.gid));
            command.args(["/usr/bin/proot", "-r", "/tree", "-b", "/dev", "-b", "/proc", "-w", "/"]);
            command
        }
    };
    vec![
        way("native", move || {
            let person = user::ordinary();
            let mut command = Command::new("chroot");
            command.arg(format!("--userspec={}:{}", person.uid, person.gid)).arg(tree);
            command
        }),
        way("coracle preload", engine("--coracle-engine=preload")),
        way("coracle F1", engine("--coracle-engine=F1")),
        way("coracle P1", engine("--coracle-engine=P1")),
        way("coracle P2", engine("--coracle-engine=P2")),
        way("coracle namespaces", engine("--coracle-engine=namespaces")),
        way("bwrap", move || {
            let mut command = sandbox.command("bwrap");
            command.arg("--bind").arg(tree).args(["/", "--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc"]);
            command
        }),
        way("proot 5.1", proot(false)),
        way("proot 5.4", newer(false)),
        way("proot 5.4, no seccomp", newer(true)),
        way("fakechroot", move || {
            let mut command = sandbox.command("fakechroot");
            command.arg("chroot").arg(tree);
            command
        }),
    ]
}
