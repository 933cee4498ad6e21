//! Ports that the host knows by another number than the guest, or at one of its addresses only.
//!
//! Binding takes the host's number, whatever the address. Reaching does so on this machine's loopback only: elsewhere the
//! same number is somebody else's. What the kernel tells is turned back by the same rule, so that a reply seems to come
//! from where the request went. Who binds all addresses gets the one that the port has on the host, and never more than
//! that: a socket of the other family, which cannot have it, gets its own family's loopback.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AF_INET, AF_INET6, Address, Gives, Whose};
use crate::{Guest, Rules};

/// A port with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The address of the host's where it is; otherwise all.
    pub address: Option<IpAddr>,
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

/// Where the address is in `struct sockaddr_in`.
const V4_AT: core::ops::Range<usize> = 4..8;

/// Where it is in `struct sockaddr_in6`.
const V6_AT: core::ops::Range<usize> = 8..24;

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
    let number = port_of(&given.bytes);
    let of_family =
        |port: &Port| port.guest == number && port.address.is_none_or(|it| it.is_ipv6() == is_v6(&given.bytes));
    let port =
        find(rules, guest, socket, of_family).or_else(|| find(rules, guest, socket, |port| port.guest == number))?;
    given.bytes[PORT_AT..PORT_AT + 2].copy_from_slice(&port.host.to_be_bytes());
    if let Some(address) = port.address
        && (gives == Gives::Peer || is_any(given.bytes()))
    {
        place(&mut given, address, || guest.is_v6_only(socket));
    }
    Some(given)
}

/// Puts an address of the host's where the guest gave one of its own.
fn place(given: &mut Address, address: IpAddr, v6_only: impl Fn() -> bool) {
    if !is_v6(&given.bytes) {
        let IpAddr::V4(address) = address else {
            given.bytes[V4_AT].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
            return;
        };
        given.bytes[V4_AT].copy_from_slice(&address.octets());
    } else if given.len >= V6_AT.end {
        let address = match address {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) if v6_only() => Ipv6Addr::LOCALHOST,
            IpAddr::V4(address) => address.to_ipv6_mapped(),
        };
        given.bytes[V6_AT].copy_from_slice(&address.octets());
    }
}

/// The guest's port for an address that the kernel told; `None`: it stays.
pub(super) fn to_guest<G: Guest>(rules: &Rules<'_>, guest: &G, whose: Whose, told: &[u8]) -> Option<u16> {
    if rules.ports.is_empty() || told.len() < 8 {
        return None;
    }
    let number = port_of(told);
    match whose {
        Whose::Own(socket) => find(rules, guest, socket, |port| port.host == number),
        Whose::Peer(socket) => {
            let near = is_loopback(told);
            let here = |port: &Port| near || port.address.is_some_and(|address| address_of(told) == Some(address));
            find(rules, guest, socket, |port| port.host == number && here(port))
        }
    }
    .map(|port| port.guest)
}

/// The mapping that `fits`, if the socket is of its kind.
fn find<'r, G: Guest>(rules: &Rules<'r>, guest: &G, socket: i32, fits: impl Fn(&Port) -> bool) -> Option<&'r Port> {
    let mut fitting = rules.ports.iter().filter(|port| fits(port)).peekable();
    fitting.peek()?;
    // A kernel that cannot tell leaves the number to decide.
    let kind = guest.socket_kind(socket);
    fitting.rfind(|port| kind.is_none_or(|kind| kind == port.kind))
}

fn is_v6(address: &[u8]) -> bool {
    u16::from_ne_bytes([address[0], address[1]]) == AF_INET6
}

/// The address of a `struct sockaddr_in` or `sockaddr_in6`; one of IPv4 in the other is itself.
fn address_of(address: &[u8]) -> Option<IpAddr> {
    if is_v6(address) {
        let bytes: [u8; 16] = address.get(V6_AT)?.try_into().ok()?;
        return Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical());
    }
    let bytes: [u8; 4] = address.get(V4_AT)?.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(bytes)))
}

/// Whether it means all addresses of this machine.
fn is_any(address: &[u8]) -> bool {
    address_of(address).is_some_and(|address| address.is_unspecified())
}

fn port_of(address: &[u8]) -> u16 {
    u16::from_be_bytes([address[PORT_AT], address[PORT_AT + 1]])
}

/// 127.0.0.0/8, ::1, the one in the other; and what means "any", which reaches this machine too.
fn is_loopback(address: &[u8]) -> bool {
    let is_inet = [AF_INET, AF_INET6].contains(&u16::from_ne_bytes([address[0], address[1]]));
    is_inet && address_of(address).is_some_and(|address| address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::{AF_INET, AF_INET6, Address, is_any, is_loopback, place};

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

    #[test]
    fn who_wants_all_addresses_gets_the_one_and_never_more() {
        let socket = |family: u16, len| {
            let mut address = Address { bytes: [0; super::super::UNIX_SIZE], len };
            address.bytes[..2].copy_from_slice(&family.to_ne_bytes());
            address
        };
        let placed = |mut given: Address, address: &str, v6_only: bool| {
            assert!(is_any(given.bytes()));
            place(&mut given, address.parse::<IpAddr>().expect("an address"), || v6_only);
            super::address_of(given.bytes())
        };
        let (v4, v6) = (|| socket(AF_INET, 16), || socket(AF_INET6, 28));
        assert_eq!(placed(v4(), "10.0.0.5", false), "10.0.0.5".parse().ok());
        assert_eq!(placed(v4(), "fd00::1", false), "127.0.0.1".parse().ok());
        assert_eq!(placed(v6(), "fd00::1", false), "fd00::1".parse().ok());
        assert_eq!(placed(v6(), "10.0.0.5", false), "10.0.0.5".parse().ok());
        assert_eq!(placed(v6(), "10.0.0.5", true), "::1".parse().ok());
        let mut given = v6();
        given.bytes[23] = 1;
        assert!(!is_any(given.bytes()));
    }
}
