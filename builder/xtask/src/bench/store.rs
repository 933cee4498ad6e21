//! Containers of a Debian image: made, and made and run, against udocker (from PyPI), podman and crun.
//!
//! All have the image in their stores already, pulled from one registry on loopback, and all run as the ordinary user.
//! Whoever cannot do it here is named with what it said. udocker's own engines come from a server that is often not to be
//! had: to make a container it needs none, and to run one it is given the distribution's PRoot.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::ensure;
use harness::{Registry, Sandbox, user};

use super::{
    stats::{Peer, compare},
    tree,
};

const IMAGE: &str = "bench/debian:1";

/// Where podman's and crun's containers can be run although the node's control groups are not its own: as root, in a mount
/// namespace with a plain hierarchy.
const IN_OWN_GROUPS: &str = "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup
person=$1; shift; exec setpriv --reuid ${person%:*} --regid ${person#*:} --clear-groups \"$@\"";

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
        move || podman_command(sandbox, args)
    };
    let python = |args: &'static [&'static str]| {
        let (sandbox, udocker) = (&sandbox, &udocker);
        move || udocker_command(sandbox, udocker, args)
    };
    let forget = || {
        sandbox.coracle(["prune", "--containers", "-f", "-q"]);
    };
    let forget_podman = || {
        let _ = podman_command(&sandbox, &["rm", "-a", "-f"]).stdout(Stdio::null()).status();
    };
    let peers = working(vec![
        Peer::new("udocker create", python(&["create", IMAGE])).before(|| remove(&udocker.join("home/containers"))),
        Peer::new("coracle create, first", coracle(&["create", "-q", IMAGE])).before(|| {
            forget();
            remove(&store.join("trees"));
        }),
        Peer::new("coracle create, second", coracle(&["create", "-q", IMAGE])),
        Peer::new("podman create", podman(&["create", IMAGE, "true"])).before(forget_podman),
    ]);
    let has = |name: &str| peers.iter().any(|peer| peer.name == name);
    let base = if has("udocker create") { "udocker create" } else { "podman create" };
    compare("a container of a Debian image", rounds.max(3), &[base], &peers)?;
    remove(&udocker.join("home/containers"));
    forget();
    forget_podman();
    let bundle = sandbox.work("crun");
    let peers = working(vec![
        Peer::new("coracle run IMAGE", coracle(&["run", "-q", "--rm", "--execmode=R1", IMAGE, "true"])),
        Peer::new("coracle run IMAGE, P1", coracle(&["run", "-q", "--rm", "--execmode=P1", IMAGE, "true"])),
        Peer::new("coracle run IMAGE, F3", coracle(&["run", "-q", "--rm", "--execmode=F3", IMAGE, "true"])),
        Peer::new(
            "podman run IMAGE",
            podman(&[
                "run",
                "--rm",
                "--network=host",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=4096:4096",
                "--cgroups=disabled",
                IMAGE,
                "true",
            ]),
        ),
        Peer::new("crun run, a tree", || {
            let mut command = in_own_groups(&sandbox, "crun");
            command.arg("--cgroup-manager=disabled").arg("--root").arg(sandbox.work("crun-run"));
            command.args(["run", "-b"]).arg(&bundle).arg("bench");
            command
        }),
        Peer::new("udocker run IMAGE, P1", python(&["run", "--rm", "--nobanner", IMAGE, "true"])),
    ]);
    compare("a new container runs /bin/true", rounds.max(3), &["podman run IMAGE", "crun run, a tree"], &peers)
}

/// The image in everybody's store.
fn prepare(sandbox: &Sandbox, tree: &Path, udocker: &Path) -> anyhow::Result<()> {
    // Devices that another benchmark needed cannot be made by an ordinary user, and are in no image.
    let script = r#"set -e
        tar -C "$1" --exclude=./dev -czf layer.tar.gz .
        "$0" import -q layer.tar.gz bench/debian:1
        "$0" save -q -o ours.tar bench/debian:1
        mkdir -p crun/rootfs/dev; tar -C crun/rootfs -xzf layer.tar.gz --no-same-owner
        mkdir -p crun/rootfs/dev crun/rootfs/proc crun/rootfs/sys"#;
    let made = sandbox.run("sh", ["-c".as_ref(), script.as_ref(), harness::coracle().as_os_str(), tree.as_os_str()]);
    ensure!(made.code == Some(0), "{made}");
    // Left out above, with the reason, if any of these fails.
    let script = r#"cd crun && crun spec --rootless &&
        sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"\/bin\/true"/' config.json"#;
    sandbox.run("sh", ["-c", script]);
    let _ = podman_command(sandbox, &["load", "-q", "-i", "ours.tar"]).stdout(Stdio::null()).status();
    let packages = udocker.join("packages");
    let installed = Command::new("pip3").args(["install", "-q", "--target"]).arg(&packages).arg("udocker").status();
    if installed.is_ok_and(|status| status.success()) {
        // What udocker loads from a file it cannot always unpack; what it pulls it can.
        let registry = Registry::open();
        let source = format!("docker-archive:{}", sandbox.work("ours.tar").display());
        registry.push(&source, IMAGE, &["-q", "-f", "v2s2"]);
        // It looks for its engines at every start, unless it believes that it has them.
        let version = udocker.join("home/lib/VERSION");
        let _ = sandbox.make_dir("work/udocker/home/lib");
        fs::write(version, "1.2.11\n")?;
        sandbox.own(&udocker.join("home"));
        let from = format!("--registry=http://{}", registry.address());
        let _ = udocker_command(sandbox, udocker, &["pull", &from, IMAGE]).stdout(Stdio::null()).status();
    }
    Ok(())
}

fn podman_command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = in_own_groups(sandbox, "podman");
    command.arg("--root").arg(sandbox.work("podman")).arg("--runroot").arg(sandbox.work("podman-run"));
    command.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]).args(args);
    command
}

/// A program that wants control groups of one hierarchy, as the ordinary user.
fn in_own_groups(sandbox: &Sandbox, program: &str) -> Command {
    let mut command = sandbox.command(program);
    if user::is_root() {
        let as_ordinary = command;
        command = Command::new("unshare");
        command.env_clear().envs(as_ordinary.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(sandbox.work("")).args(["--mount", "sh", "-c", IN_OWN_GROUPS, "sh"]);
        let person = user::ordinary();
        command.arg(format!("{}:{}", person.uid, person.gid)).arg(program);
    }
    command.env("XDG_RUNTIME_DIR", sandbox.path().join("tmp"));
    command
}

fn udocker_command(sandbox: &Sandbox, udocker: &Path, args: &[&str]) -> Command {
    let mut command = sandbox.command("/usr/bin/python3");
    let packages = udocker.join("packages");
    command.env("PYTHONPATH", &packages).env("UDOCKER_DIR", udocker.join("home"));
    command.env("UDOCKER_TARBALL", "/nowhere").env("UDOCKER_USE_PROOT_EXECUTABLE", "/usr/bin/proot");
    command.arg(packages.join("bin/udocker")).args(args);
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
