//! Packing a Debian tree: `coracle build` against mksquashfs with zstd, and tar piped into zstd.

use std::fs;

use harness::Sandbox;

use super::{
    stats::{Peer, compare},
    tree,
};

/// Goal: at most 0.25 of mksquashfs's time at no more than its size.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let tree = tree::debian()?;
    let sandbox = Sandbox::new();
    let (bundle, squashfs, archive) = (sandbox.work("p.run"), sandbox.work("p.squashfs"), sandbox.work("p.tar.zst"));
    let source = format!("rootfs:{}", tree.display());
    let peers = [
        Peer::new("coracle build", || {
            let mut command = sandbox.command(harness::coracle());
            command.args(["build", "--quiet", &source, "-o"]).arg(&bundle);
            command
        }),
        Peer::new("mksquashfs -comp zstd", || {
            let mut command = sandbox.command("mksquashfs");
            command.arg(&tree).arg(&squashfs).args(["-comp", "zstd", "-noappend", "-no-progress", "-quiet"]);
            command
        }),
        Peer::new("tar | zstd -3 -T0", || {
            let mut command = sandbox.command("sh");
            command.args(["-c", r#"tar -C "$0" -cf - . | zstd -q -3 -T0 -f -o "$1""#]).arg(&tree).arg(&archive);
            command
        }),
    ];
    compare("packing a Debian tree", rounds.clamp(3, 5), &["mksquashfs -comp zstd"], &peers)?;
    for (name, path) in [("coracle build", &bundle), ("mksquashfs -comp zstd", &squashfs), ("tar | zstd -3", &archive)]
    {
        println!("{name:<24} {:>11} bytes", fs::metadata(path)?.len());
    }
    Ok(())
}
