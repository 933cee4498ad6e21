//! Containers of a Debian image: made, and made and run, against udocker (from PyPI), podman and crun.
//!
//! All have the image in their stores already, and all run as the ordinary user. Whoever cannot do it here is named with
//! what it said (udocker's engines come from a server of their own, and are often not to be had; to make a container it
//! needs none).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::ensure;
use harness::Sandbox;

use super::{
    stats::{Peer, compare},
    tree,
};

const IMAGE: &str = "bench/debian:1";

/// Goals: `create` at most 0.3 of udocker's time; a second `run IMAGE` in at most 30 ms.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let tree = tree::debian()?;
    let sandbox = Sandbox::new();
    let udocker = sandbox.make_dir("work/udocker");
    prepare(&sandbox, &tree, &udocker)?;
    let store = sandbox.path().join("home/.coracle");
    let coracle = |args: &'static [&'static str]| {
        let sandbox = &sandbox;
        move || {
            let mut command = sandbox.command(harness::coracle());
            command.args(args);
            command
        }
    };
    let podman = |args: &'static [&'static str]| {
        let sandbox = &sandbox;
        move || {
            let mut command = sandbox.command("podman");
            command.arg("--root").arg(sandbox.work("podman")).arg("--runroot").arg(sandbox.work("podman-run"));
            command.args(args);
            command
        }
    };
    let python = |args: &'static [&'static str]| {
        let (sandbox, udocker) = (&sandbox, &udocker);
        move || udocker_command(sandbox, udocker, args)
    };
    let forget = || {
        sandbox.coracle(["prune", "--containers", "-f", "-q"]);
    };
    let peers = working(vec![
        Peer::new("udocker create", python(&["create", IMAGE])).before(|| remove(&udocker.join("home/containers"))),
        Peer::new("coracle create, first", coracle(&["create", "-q", IMAGE])).before(|| {
            forget();
            remove(&store.join("trees"));
        }),
        Peer::new("coracle create, second", coracle(&["create", "-q", IMAGE])),
        Peer::new("podman create", podman(&["create", IMAGE, "true"])),
    ]);
    let has = |name: &str| peers.iter().any(|peer| peer.name == name);
    let base = if has("udocker create") { "udocker create" } else { "podman create" };
    compare("a container of a Debian image", rounds.max(3), &[base], &peers)?;
    forget();
    let bundle = sandbox.work("crun");
    let peers = working(vec![
        Peer::new("coracle run IMAGE", coracle(&["run", "-q", "--rm", "--execmode=R1", IMAGE, "true"])),
        Peer::new("coracle run IMAGE, P1", coracle(&["run", "-q", "--rm", "--execmode=P1", IMAGE, "true"])),
        Peer::new("podman run IMAGE", podman(&["run", "--rm", "--network=host", IMAGE, "true"])),
        Peer::new("crun run, a tree", || {
            let mut command = sandbox.command("crun");
            command.arg("--root").arg(sandbox.work("crun-run")).args(["run", "-b"]).arg(&bundle).arg("bench");
            command
        }),
        Peer::new("udocker run IMAGE", python(&["run", "--rm", IMAGE, "true"])),
    ]);
    compare("a new container runs /bin/true", rounds.max(3), &["podman run IMAGE", "crun run, a tree"], &peers)
}

/// The image in everybody's store.
fn prepare(sandbox: &Sandbox, tree: &Path, udocker: &Path) -> anyhow::Result<()> {
    let script = r#"set -e
        tar -C "$1" -czf layer.tar.gz .
        "$0" import -q layer.tar.gz bench/debian:1
        "$0" save -q -o ours.tar bench/debian:1
        skopeo --insecure-policy copy -q docker-archive:ours.tar docker-archive:old.tar:bench/debian:1
        mkdir -p crun/rootfs; tar -C crun/rootfs -xzf layer.tar.gz --no-same-owner"#;
    let made = sandbox.run("sh", ["-c".as_ref(), script.as_ref(), harness::coracle().as_os_str(), tree.as_os_str()]);
    ensure!(made.code == Some(0), "{made}");
    // Left out below, with the reason, if any of these fails.
    let script = r#"podman --root podman --runroot podman-run load -q -i ours.tar
        cd crun && crun spec --rootless && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"\/bin\/true"/' config.json"#;
    sandbox.run("sh", ["-c", script]);
    let packages = udocker.join("packages");
    let installed = Command::new("pip3").args(["install", "-q", "--target"]).arg(&packages).arg("udocker").status();
    if installed.is_ok_and(|status| status.success()) {
        let _ = udocker_command(sandbox, udocker, &["load", "-i", "old.tar"]).stdout(Stdio::null()).status();
    }
    Ok(())
}

fn udocker_command(sandbox: &Sandbox, udocker: &Path, args: &[&str]) -> Command {
    let mut command = sandbox.command("/usr/bin/python3");
    let packages = udocker.join("packages");
    command.env("PYTHONPATH", &packages).env("UDOCKER_DIR", udocker.join("home"));
    // Its engines are looked for on every start otherwise, on a server that may not answer.
    command.env("UDOCKER_TARBALL", "/nowhere").arg(packages.join("bin/udocker")).args(args);
    command
}

/// Those that can do it here; the others are named.
fn working(peers: Vec<Peer<'_>>) -> Vec<Peer<'_>> {
    let works = |peer: &Peer<'_>| {
        (peer.before)();
        let output = (peer.command)().stdin(Stdio::null()).output();
        let why = match output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned(),
            Err(error) => error.to_string(),
        };
        println!("left out: {}: {why}", peer.name);
        false
    };
    peers.into_iter().filter(works).collect()
}

fn remove(path: &PathBuf) {
    let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(path).stderr(Stdio::null()).status();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
}
