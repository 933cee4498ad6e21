//! Unpacking a Debian tree: a bundle's first start against tar with zstd, and unsquashfs.
//!
//! All write to memory (`/dev/shm`) where it can be had: a disk that is behind with its writing would be all that shows.

use std::{fs, path::Path, process::Command};

use anyhow::ensure;
use harness::Sandbox;

use super::{
    stats::{Peer, compare},
    tree,
};

/// Goal: at most 0.6 of the faster peer.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let tree = tree::debian()?;
    let sandbox = Sandbox::new();
    let (bundle, squashfs, archive) = (sandbox.work("p.run"), sandbox.work("p.squashfs"), sandbox.work("p.tar.zst"));
    let script = r#"set -e
        "$0" build --quiet "rootfs:$1" -o p.run
        mksquashfs "$1" p.squashfs -comp zstd -noappend -no-progress -quiet >/dev/null
        tar -C "$1" -cf - . | zstd -q -3 -T0 -f -o p.tar.zst"#;
    let made = sandbox.run("sh", ["-c".as_ref(), script.as_ref(), harness::coracle().as_os_str(), tree.as_os_str()]);
    ensure!(made.code == Some(0), "{made}");
    let memory = tempfile::Builder::new().prefix("coracle-bench-").tempdir_in("/dev/shm").ok();
    let place = memory.as_ref().map_or_else(|| sandbox.work("place"), |dir| dir.path().to_owned());
    let target = place.join("out");
    println!("\nunpacking to {}", place.display());
    let clean = |target: &Path| {
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(target).stderr(std::process::Stdio::null()).status();
        let _ = Command::new("rm").arg("-rf").arg(target).status();
    };
    let cache = place.join("cold");
    sandbox.own(&place);
    let peers = [
        Peer::new("coracle, cold start", || {
            let mut command = sandbox.command(&bundle);
            command.env("CORACLE_CACHE", &cache).arg("/bin/true");
            command
        })
        .before(|| {
            clean(&cache);
            let _ = fs::create_dir(&cache);
            sandbox.own(&cache);
        }),
        Peer::new("tar -I zstd -x", || {
            let mut command = sandbox.command("sh");
            command.args(["-c", r#"mkdir "$0"; exec tar -I zstd -xf "$1" -C "$0""#]).arg(&target).arg(&archive);
            command
        })
        .before(|| clean(&target)),
        Peer::new("unsquashfs", || {
            let mut command = sandbox.command("unsquashfs");
            command.args(["-quiet", "-no-progress", "-dest"]).arg(&target).arg(&squashfs);
            command
        })
        .before(|| clean(&target)),
    ];
    compare("unpacking a Debian tree", rounds, &["tar -I zstd -x", "unsquashfs"], &peers)
}
