//! Warm start: a bundle whose tree is unpacked, against bubblewrap on the same tree, and the host's own `true`.

use std::{path::PathBuf, process::Command};

use anyhow::ensure;
use harness::{Sandbox, images};

use super::stats::{Peer, compare};

/// Goal: at most 0.8 of bubblewrap.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new();
    let Some(image) = images::find(images::ALPINE) else { return Ok(()) };
    let tree = sandbox.make_dir("tree");
    let untar = sandbox.run("tar", ["-xzf".as_ref(), image.as_os_str(), "-C".as_ref(), tree.as_os_str()]);
    ensure!(untar.code == Some(0), "{untar}");
    let bundle = sandbox.work("alpine.run");
    let source = format!("rootfs:{}", image.display());
    let built = sandbox.coracle(["build", "--quiet", &source, "-o", &bundle.display().to_string()]);
    ensure!(built.code == Some(0), "{built}");
    let first = sandbox.run(&bundle, ["true"]);
    ensure!(first.code == Some(0), "{first}");
    sandbox.set("PATH", "/usr/bin:/bin");

    let ours = |options: &'static [&'static str]| {
        let (sandbox, bundle) = (&sandbox, &bundle);
        move || {
            let mut command = sandbox.command(bundle);
            command.args(options).arg("/bin/true");
            command
        }
    };
    let bwrap = |binds: &'static [&'static str]| {
        let (sandbox, tree) = (&sandbox, &tree);
        move || bubblewrap(sandbox, tree, binds)
    };
    compare(
        "warm start of /bin/true in Alpine",
        rounds,
        &["bwrap"],
        &[
            Peer::new("the host's /bin/true", || sandbox.command("/bin/true")),
            Peer::new("coracle", ours(&["--coracle-engine=namespaces"])),
            Peer::new("coracle, isolated", ours(&["--coracle-engine=namespaces", "--coracle-isolated"])),
            Peer::new("coracle, preload", ours(&["--coracle-engine=preload"])),
            Peer::new("coracle, ptrace", ours(&["--coracle-engine=ptrace"])),
            Peer::new("bwrap", bwrap(&[])),
            Peer::new(
                "bwrap, as many binds",
                bwrap(&["/tmp", "/var/tmp", "/sys", "/etc/hosts", "/etc/passwd", "/etc/group"]),
            ),
        ],
    )
}

fn bubblewrap(sandbox: &Sandbox, tree: &PathBuf, binds: &[&str]) -> Command {
    let mut command = sandbox.command("bwrap");
    command.arg("--ro-bind").arg(tree).arg("/").args(["--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc"]);
    for bind in binds {
        command.args(["--bind", bind, bind]);
    }
    command.arg("/bin/true");
    command
}
