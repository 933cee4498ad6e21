//! One store and one cache on NFS, under two nodes. Server and clients are in a guest kernel, each client with a network,
//! caches, process ids and a boot of its own.

use std::fs;

use harness::{Guest, Sandbox, images};

/// Locks of both protocols, no locks, and a mount that gives up.
const MOUNTS: [&str; 4] = ["vers=4.2", "vers=3", "vers=3,nolock", "vers=4.1,soft,actimeo=60"];

fn day(mounts: &str, seconds: u32) {
    let Some(guest) = Guest::find() else { return };
    // A name costs several questions to the server, and each takes long in here.
    let sandbox = Sandbox::new();
    if !images::small(&sandbox) {
        return;
    }
    let payload = sandbox.make_dir("payload");
    for name in ["init.sh", "nodes.sh", "day.sh", "hammer.sh"] {
        fs::copy(images::workspace().join("tests/guests/nfs").join(name), payload.join(name)).unwrap();
    }
    let to = |name: &str| payload.join(name).display().to_string();
    fs::copy(sandbox.work("tree.tar"), to("busybox.tar")).unwrap();
    sandbox.coracle(["build", "-q", &to("busybox.tar"), "-o", &to("busybox.run")]).ok();
    // Without what debuggers want, which a guest without hardware's help reads slowly.
    sandbox.run("strip", ["-o", &to("coracle"), harness::coracle().to_str().unwrap()]).ok();
    fs::write(payload.join("settings"), format!("MOUNTS='{mounts}' SECONDS_OF_HAMMER={seconds}\n")).unwrap();
    let day = guest.boot(&payload, 900);
    let said = format!("{day}");
    println!("{said}");
    assert!(said.lines().any(|line| line.trim() == "DONE"), "{said}");
    assert!(!said.contains("FAIL"), "{said}");
}

#[test]
fn two_nodes_share_a_store_by_nfs_4() {
    day(MOUNTS[0], 60);
}

#[test]
fn two_nodes_share_a_store_by_nfs_3() {
    day(MOUNTS[1], 60);
}

#[test]
fn two_nodes_share_a_store_without_locks_or_with_long_memory() {
    day(&MOUNTS[2..].join(" "), 20);
}
