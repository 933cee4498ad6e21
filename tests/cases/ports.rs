//! Published ports: other numbers, and one address of the host's only; by the engines that can, and refused where it is
//! nonsense.

use std::net::TcpListener;

use harness::skip;

use super::runs::World;

/// A port that nobody has, as good as one can know.
fn free() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_port_is_at_the_address_that_was_named_and_no_other() {
    let Some(world) = World::new() else { return };
    for mode in ["P1", "P2", "F1", "F3"] {
        let mode = format!("--execmode={mode}");
        let port = free();
        let publish = format!("-p=127.0.0.2:{port}:80");
        let script = format!(
            "nc -ll -p 80 -e echo served & i=0; \
             until nc 127.0.0.2 {port} </dev/null 2>/dev/null || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done; \
             nc 127.0.0.1 {port} </dev/null 2>/dev/null || echo closed; nc 127.0.0.1 80 </dev/null; kill %1"
        );
        let said = world.run(&[&mode, &publish], &script);
        if said.stderr.contains("refuse") {
            skip::because(&format!("this node refuses {mode}"));
            continue;
        }
        assert_eq!(said.ok().trim_end(), "served\nclosed\nserved", "{mode}: {said}");
    }
    // What takes one address alone takes an engine that can do so.
    let port = format!("127.0.0.1:{0}:{0}", free());
    world.run(&["--execmode=R1", "-p", &port], "true").fails_with(&["the network is the host's", "ptrace"]);
}

#[test]
fn ports_as_docker_writes_them_and_nonsense() {
    let Some(world) = World::new() else { return };
    let create = |name: &str, ports: &[&str]| {
        let mut args = vec!["create", "--name", name];
        ports.iter().for_each(|port| args.extend(["-p", port]));
        args.extend([world.image.as_str(), "true"]);
        world.sandbox.coracle(args)
    };
    create("many", &["127.0.0.1:8080:80", "[::1]:5353:53/udp", "9000-9001:90-91", "443"]).ok();
    let listed = world.sandbox.coracle(["ps", "--filter", "name=many", "--format", "{{.Ports}}"]);
    assert_eq!(
        listed.ok(),
        "127.0.0.1:8080->80/tcp, [::1]:5353->53/udp, 0.0.0.0:9000->90/tcp, 0.0.0.0:9001->91/tcp, 0.0.0.0:443->443/tcp"
    );
    for (port, why) in [
        ("host:80:80", "an address is one of IPv4"),
        ("127.0.0.1:80", "a port is a number"),
        ("80:80/sctp", "a protocol is tcp or udp"),
        ("80-82:80-81", "of different lengths"),
        ("82-80", "begins with its lowest"),
        ("0", "from 1 to 65535"),
        ("", "from 1 to 65535"),
    ] {
        create("wrong", &[port]).fails_with(&["--publish", why]);
    }
    create("wrong", &["8080:80", "8081:80"]).fails_with(&["8080->80/tcp is there already"]);
    // The same number at two addresses is one of each family's.
    create("both", &["127.0.0.1:8080:80", "[::1]:8080:80"]).ok();
}
