//! Ports that the host knows by another number than the guest.
//!
//! Binding takes the host's number, whatever the address. Reaching does so on this machine's loopback only: elsewhere the
//! same number is somebody else's. What the kernel tells is turned back by the same rule, so that a reply seems to come
//! from where the request went.

use super::{AF_INET, AF_INET6, Address, Gives, Whose};
use crate::{Guest, Rules};

/// A port with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The host's number.
    pub host: u16,
    /// The guest's number.
    pub guest: u16,
    /// Of which kind of socket.
    pub kind: Kind,
}

/// Kinds of sockets with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Where the port is in `struct sockaddr_in` and `struct sockaddr_in6`.
const PORT_AT: usize = 2;

/// An address that the guest gives, with the host's port; `None`: it stays.
pub(super) fn to_host<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    socket: i32,
    mut given: Address,
    gives: Gives,
) -> Option<Address> {
    if rules.ports.is_empty() || given.len < 16 || (gives == Gives::Peer && !is_loopback(given.bytes())) {
        return None;
    }
    let port = find(rules, guest, socket, |known| known.guest == port_of(&given.bytes))?;
    given.bytes[PORT_AT..PORT_AT + 2].copy_from_slice(&port.host.to_be_bytes());
    Some(given)
}

/// The guest's port for an address that the kernel told; `None`: it stays.
pub(super) fn to_guest<G: Guest>(rules: &Rules<'_>, guest: &G, whose: Whose, told: &[u8]) -> Option<u16> {
    if rules.ports.is_empty() || told.len() < 8 {
        return None;
    }
    let socket = match whose {
        Whose::Own(socket) => socket,
        Whose::Peer(_) if !is_loopback(told) => return None,
        Whose::Peer(socket) => socket,
    };
    find(rules, guest, socket, |known| known.host == port_of(told)).map(|port| port.guest)
}

/// The mapping that `fits`, if the socket is of its kind.
fn find<'r, G: Guest>(rules: &Rules<'r>, guest: &G, socket: i32, fits: impl Fn(&Port) -> bool) -> Option<&'r Port> {
    let mut fitting = rules.ports.iter().filter(|port| fits(port)).peekable();
    fitting.peek()?;
    // A kernel that cannot tell leaves the number to decide.
    let kind = guest.socket_kind(socket);
    fitting.rfind(|port| kind.is_none_or(|kind| kind == port.kind))
}

fn port_of(address: &[u8]) -> u16 {
    u16::from_be_bytes([address[PORT_AT], address[PORT_AT + 1]])
}

/// 127.0.0.0/8, ::1, the one in the other; and what means "any", which reaches this machine too.
fn is_loopback(address: &[u8]) -> bool {
    let v4 = |host: &[u8]| host[0] == 127 || host == [0; 4];
    match u16::from_ne_bytes([address[0], address[1]]) {
        AF_INET => address.get(4..8).is_some_and(v4),
        AF_INET6 => address.get(8..24).is_some_and(|host| match host {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, rest @ ..] => v4(rest),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] => *last < 2,
            _ => false,
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn what_reaches_this_machine() {
        let v4 = |a, b, c, d| is_loopback(&[2, 0, 0, 80, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(v4(127, 0, 0, 1) && v4(127, 9, 9, 9) && v4(0, 0, 0, 0));
        assert!(!v4(10, 0, 0, 1) && !v4(0, 0, 0, 1));
        let v6 = |host: [u8; 16]| {
            let mut address = [0; 28];
            address[0] = 10;
            address[8..24].copy_from_slice(&host);
            is_loopback(&address)
        };
        assert!(v6([0; 16]) && v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]));
        assert!(!v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]));
        assert!(!v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(!is_loopback(&[2, 0, 0, 80, 127]), "too short");
    }
}
