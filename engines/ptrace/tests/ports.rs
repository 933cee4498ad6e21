//! Ports that the host knows by other numbers: bound, reached from outside and from inside, and told.

mod common;

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use coracle_api::{Ended, PortMap, Protocol};

use common::{Output, extract, run, spec};

/// Everything here takes a moment; what takes longer has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// A port that nobody has, as good as one can know.
fn free() -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

/// What the first server on a port says.
fn hear(port: u16) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut text = String::new();
            let heard = TcpStream::connect_timeout(&address, Duration::from_secs(1))
                .and_then(|mut stream| stream.read_to_string(&mut text));
            if heard.is_ok_and(|len| len > 0) {
                return text;
            }
            thread::sleep(Duration::from_millis(20));
        }
        String::new()
    })
}

#[test]
fn servers_are_where_the_host_was_told() {
    for image in ["alpine-3.20.3-x86_64", "alpine-3.20.3-i386"] {
        let Some(tree) = extract(image) else { continue };
        // One server for the host; then one for the guest itself, which tells what it calls itself and its client.
        let script = "nc -l -p 80 -e echo from inside; (nc -v -l -p 80 -e echo once more 2>&1 &); \
                      i=0; until nc 127.0.0.1 80 </dev/null 2>/dev/null || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done";
        for variant in ["P1", "P2"] {
            let host = free();
            let outside = hear(host);
            let mut spec = spec(&tree, &["sh", "-c", script]);
            spec.variant = Some(variant.to_owned());
            spec.ports = vec![PortMap::new(host, 80, Protocol::Tcp)];
            let output = run(&spec);
            assert_eq!(output.ended, Ended::Exited(0), "{image} {variant}: {}", output.text);
            assert_eq!(outside.join().expect("the client"), "from inside\n", "{image} {variant}");
            assert!(output.text.contains("once more"), "{image} {variant}: {}", output.text);
            assert!(output.text.contains(":80 ...") && !output.text.contains(&format!(":{host}")), "{}", output.text);
        }
    }
}

#[test]
fn each_protocol_has_its_own() {
    let Some(tree) = extract("alpine-3.20.3-x86_64") else { return };
    static HEARD: AtomicBool = AtomicBool::new(false);
    let (tcp, udp) = (free(), free());
    let sender = thread::spawn(move || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        while !HEARD.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"datagram", (Ipv4Addr::LOCALHOST, udp));
            thread::sleep(Duration::from_millis(20));
        }
    });
    let outside = hear(tcp);
    let mut spec =
        spec(&tree, &["sh", "-c", "timeout 10 nc -u -l -p 53 | head -c 8; echo; nc -l -p 53 -e echo stream"]);
    spec.ports = vec![PortMap::new(tcp, 53, Protocol::Tcp), PortMap::new(udp, 53, Protocol::Udp)];
    assert_eq!(run(&spec), Output { text: "datagram\n".to_owned(), ended: Ended::Exited(0) });
    assert_eq!(outside.join().expect("the client"), "stream\n");
    HEARD.store(true, Ordering::Relaxed);
    sender.join().expect("the sender");
}
