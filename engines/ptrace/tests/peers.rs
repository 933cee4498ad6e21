//! Who a socket's peer is, as a guest that takes itself for root is told.

mod common;

use std::{fs, process::Command};

use common::{bind, extract, run, spec, volume};

const SOURCE: &str = r#"
    #define _GNU_SOURCE
    #include <stdio.h>
    #include <sys/socket.h>
    #include <unistd.h>
    int main(void) {
        int ends[2], type;
        struct ucred peer;
        socklen_t size = sizeof peer, small = 4;
        socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
        int told = getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &peer, &size);
        printf("%d %d %d %d\n", told, peer.pid == getpid(), peer.uid, peer.gid);
        size = 4;
        getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &type, &small);
        printf("%d\n", type);
    }
"#;

#[test]
fn peers_are_who_they_take_themselves_for() {
    if harness::skip::lacks(&["gcc"]) {
        return;
    }
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let dir = volume();
    fs::write(dir.path().join("peer.c"), SOURCE).expect("write");
    for word in ["-m64", "-m32"] {
        let mut gcc = Command::new("gcc");
        gcc.args([word, "-static", "-w", "-o", "peer", "peer.c"]).current_dir(dir.path());
        if !gcc.output().is_ok_and(|output| output.status.success()) {
            harness::skip::because(&format!("gcc {word} -static does not work here"));
            continue;
        }
        for variant in ["P1", "P2"] {
            let mut spec = spec(&tree, &["/v/peer"]);
            spec.variant = Some(variant.to_owned());
            spec.binds.push(bind(dir.path(), "/v", true));
            let (uid, gid) = (spec.identity.uid, spec.identity.gid);
            assert_eq!(run(&spec).text, format!("0 1 {uid} {gid}\n1\n"), "{word} {variant}");
            (spec.identity.uid, spec.identity.gid) = (0, 0);
            assert_eq!(run(&spec).text, "0 1 0 0\n1\n", "{word} {variant}");
        }
    }
}
