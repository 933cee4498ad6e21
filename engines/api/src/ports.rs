//! Ports of the guest's that the host knows by another number, or at one of its addresses only:
//! `[[ADDRESS:]HOST:]GUEST[/tcp|udp]`, as Docker and udocker write it, ranges too.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

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
    /// The address of the host's where the guest is to be reached, if it would take all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The host's number.
    pub host: u16,
    /// The guest's number.
    pub guest: u16,
    /// Of this protocol only.
    #[serde(default)]
    pub protocol: Protocol,
}

impl PortMap {
    /// A port of all the host's addresses.
    #[must_use]
    pub fn new(host: u16, guest: u16, protocol: Protocol) -> Self {
        Self { address: None, host, guest, protocol }
    }

    /// Whether host and guest see the port differently; otherwise there is nothing to do where the network is shared.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.host != self.guest || self.address.is_some()
    }

    /// Reads `[[ADDRESS:]HOST:]GUEST[/tcp|udp]`, where both ports may be ranges of one length. Without the host's
    /// number it is the guest's; 0.0.0.0 and [::] are all addresses.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Vec<Self>, &'static str> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, protocol)) if protocol.eq_ignore_ascii_case("tcp") => (ports, Protocol::Tcp),
            Some((ports, protocol)) if protocol.eq_ignore_ascii_case("udp") => (ports, Protocol::Udp),
            Some(_) => return Err("a protocol is tcp or udp"),
        };
        let (before, guest) = ports.rsplit_once(':').unwrap_or(("", ports));
        let (address, host) = match before.rsplit_once(':') {
            Some((address, host)) => (Some(parse_address(address)?), host),
            None => (None, before),
        };
        let guest = range(guest)?;
        let host = if host.is_empty() { guest } else { range(host)? };
        if host.1 - host.0 != guest.1 - guest.0 {
            return Err("the ranges are of different lengths");
        }
        let address = address.filter(|address| !address.is_unspecified());
        Ok((0..=host.1 - host.0).map(|at| Self { address, host: host.0 + at, guest: guest.0 + at, protocol }).collect())
    }
}

fn parse_address(text: &str) -> Result<IpAddr, &'static str> {
    let wrong = "an address is one of IPv4, or one of IPv6 in brackets; names are not looked up";
    match text.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']').ok_or(wrong)?;
            inner.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| wrong)
        }
        None => text.parse().map_err(|_| wrong),
    }
}

/// `80` or `80-82`.
fn range(text: &str) -> Result<(u16, u16), &'static str> {
    let port = |text: &str| match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err("a port is a number from 1 to 65535"),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err("a range begins with its lowest port");
    }
    Ok((first, last))
}

impl fmt::Display for PortMap {
    /// As Docker shows it: `127.0.0.1:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match self.address {
            None => write!(f, "0.0.0.0:")?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}->{}/{protocol}", self.host, self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::{PortMap, Protocol};

    #[test]
    fn every_form_is_read_and_nonsense_is_not() {
        let shown =
            |text: &str| PortMap::parse(text).map(|all| all.iter().map(|map| format!("{map} ")).collect::<String>());
        for (text, expected) in [
            ("8080", "0.0.0.0:8080->8080/tcp "),
            ("8080:80", "0.0.0.0:8080->80/tcp "),
            (":80", "0.0.0.0:80->80/tcp "),
            ("8080:80/tcp", "0.0.0.0:8080->80/tcp "),
            ("5353:53/UDP", "0.0.0.0:5353->53/udp "),
            ("0.0.0.0:8080:80", "0.0.0.0:8080->80/tcp "),
            ("[::]:8080:80", "0.0.0.0:8080->80/tcp "),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp "),
            ("127.0.0.1::80", "127.0.0.1:80->80/tcp "),
            ("[::1]:8080:80", "[::1]:8080->80/tcp "),
            ("::1:8080:80", "[::1]:8080->80/tcp "),
            ("8000-8002:80-82/udp", "0.0.0.0:8000->80/udp 0.0.0.0:8001->81/udp 0.0.0.0:8002->82/udp "),
            ("10.0.0.1:90-91:80-81", "10.0.0.1:90->80/tcp 10.0.0.1:91->81/tcp "),
            ("65535-65535", "0.0.0.0:65535->65535/tcp "),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            ":",
            "/tcp",
            "0:80",
            "80:0",
            "70000:1",
            "80:",
            "a:b",
            "80:80/sctp",
            "-1:5",
            "+1:5",
            "1-2:1",
            "2-1:2-1",
            "localhost:80:80",
            "1.2.3:80:80",
            "[127.0.0.1]:80:80",
            "[::1:80:80",
            "[::1]80:80",
            "1:2:3:80:80",
            "80:80/",
        ] {
            assert!(PortMap::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_the_same_on_both_sides() {
        let differs = |text: &str| PortMap::parse(text).is_ok_and(|maps| maps.iter().any(PortMap::differs));
        assert!(!differs("80") && !differs("0.0.0.0:80:80") && !differs("80:80/udp"));
        assert!(differs("81:80") && differs("127.0.0.1:80:80"));
        assert_eq!(PortMap::new(5353, 53, Protocol::Udp).to_string(), "0.0.0.0:5353->53/udp");
    }
}
