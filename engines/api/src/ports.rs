//! Ports of the guest's that the host knows by another number: `HOST[:GUEST][/tcp|udp]`, as Docker and udocker write it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port that the guest binds or connects to by one number, and that the host knows by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// The host's number.
    pub host: u16,
    /// The guest's number.
    pub guest: u16,
    /// Of this protocol only.
    #[serde(default)]
    pub protocol: Protocol,
}

impl PortMap {
    /// Whether host and guest call the port differently; otherwise there is nothing to do where the network is shared.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.host != self.guest
    }
}

impl FromStr for PortMap {
    type Err = &'static str;

    /// Reads `HOST[:GUEST][/tcp|udp]`; a port alone is the same on both sides.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err("a protocol is tcp or udp"),
        };
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err("a port is a number from 1 to 65535"),
            Ok(port) => Ok(port),
        };
        let (host, guest) = ports.split_once(':').unwrap_or((ports, ports));
        if guest.contains(':') {
            return Err("an address cannot be chosen, only ports");
        }
        Ok(Self { host: port(host)?, guest: port(guest)?, protocol })
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}:{}/{protocol}", self.host, self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::{PortMap, Protocol};

    #[test]
    fn every_form_is_read_and_nonsense_is_not() {
        let map = |host, guest, protocol| Ok(PortMap { host, guest, protocol });
        assert_eq!("8080:80".parse(), map(8080, 80, Protocol::Tcp));
        assert_eq!("8080:80/tcp".parse(), map(8080, 80, Protocol::Tcp));
        assert_eq!("5353:53/udp".parse(), map(5353, 53, Protocol::Udp));
        assert_eq!("8080".parse(), map(8080, 8080, Protocol::Tcp));
        for wrong in ["", "0:80", "80:0", "70000:1", "80:", ":80", "a:b", "80:80/sctp", "127.0.0.1:80:80", "-1:5"] {
            assert!(wrong.parse::<PortMap>().is_err(), "{wrong}");
        }
        assert_eq!(map(5353, 53, Protocol::Udp).map(|map| map.to_string()).as_deref(), Ok("5353:53/udp"));
    }
}
