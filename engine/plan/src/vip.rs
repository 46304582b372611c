//! Virtual addresses: what a client connects to.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// A transport protocol that can be balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, protocol number 6 (RFC 9293).
    Tcp,
    /// UDP, protocol number 17 (RFC 768).
    Udp,
}

impl Protocol {
    /// The protocol number of the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// The protocol of an IP header's number, when it is one that is balanced.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A virtual IP with its port or ports and its protocol, written `203.0.113.10:80/tcp`,
/// `[2001:db8::1]:53/udp` or `203.0.113.10:30000-30999/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    address: IpAddr,
    port: u16,
    /// The same as `port`, or the end of a range.
    last: u16,
    protocol: Protocol,
}

impl Vip {
    /// A VIP. `port` 0 stands for every port of the address.
    ///
    /// Refused: unspecified, multicast, loopback and broadcast addresses, and IPv4 addresses
    /// mapped into IPv6: no client reaches those across a network.
    pub fn new(address: IpAddr, port: u16, protocol: Protocol) -> Result<Self, ParseVipError> {
        Self::with_ports(address, port, port, protocol)
    }

    /// A VIP of all ports from `first` to `last`, which are from 1 on where they differ.
    pub fn with_ports(
        address: IpAddr,
        first: u16,
        last: u16,
        protocol: Protocol,
    ) -> Result<Self, ParseVipError> {
        if !is_unicast(address) {
            return Err(ParseVipError::NotUnicast(address));
        }
        if first > last || (first == 0 && last != 0) {
            return Err(ParseVipError::Range { first, last });
        }
        Ok(Vip {
            address,
            port: first,
            last,
            protocol,
        })
    }

    /// The address clients connect to.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The port, 0 for every port; the first one of a range.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The last port of a range; else the same as [`Vip::port`].
    pub const fn last_port(&self) -> u16 {
        self.last
    }

    /// Whether it has a port of its own: neither every port nor several.
    pub const fn has_one_port(&self) -> bool {
        self.port != 0 && self.port == self.last
    }

    /// Whether packets to this port are for it.
    pub const fn has_port(&self, port: u16) -> bool {
        self.port == 0 || (self.port <= port && port <= self.last)
    }

    /// The transport protocol.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }
}

/// Whether an address can be that of a VIP or a backend: a unicast address off this host.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    let refused = match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::BROADCAST || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6 == Ipv6Addr::UNSPECIFIED || v6.to_ipv4_mapped().is_some(),
    };
    !(refused || address.is_multicast() || address.is_loopback())
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(v4) => write!(f, "{v4}:{}", self.port)?,
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.port)?,
        }
        if self.last != self.port {
            write!(f, "-{}", self.last)?;
        }
        write!(f, "/{}", self.protocol)
    }
}

/// Why a VIP cannot be: what it looks like when it is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseVipError {
    /// Not of the form `ADDRESS:PORT/PROTOCOL`.
    #[error(
        "a VIP is written ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets; PORT is 0 \
         for every port, 1 to 65535, or a range such as 8000-8099"
    )]
    Form,
    /// The address is not one that a client can reach.
    #[error("{0} is not a unicast address that clients can reach")]
    NotUnicast(IpAddr),
    /// The ports are no range.
    #[error(
        "{first}-{last} is no range of ports: it goes from a lower one, at least 1, to a higher one{}",
        meant(*first, *last)
    )]
    Range {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
}

/// What whoever wrote these ports may have meant.
fn meant(first: u16, last: u16) -> alloc::string::String {
    match (first, last) {
        (0, u16::MAX) => "; for every port write 0".into(),
        (0, _) => alloc::format!("; did you mean 1-{last}?"),
        _ if first > last => alloc::format!("; did you mean {last}-{first}?"),
        _ => alloc::format!("; did you mean {first}?"),
    }
}

impl FromStr for Vip {
    type Err = ParseVipError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (socket, protocol) = text.rsplit_once('/').ok_or(ParseVipError::Form)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(ParseVipError::Form),
        };
        // Only the port can have a dash: addresses do not.
        let (socket, last) = match socket.rsplit_once('-') {
            Some((first, last)) => (first, Some(last)),
            None => (socket, None),
        };
        let socket: core::net::SocketAddr = socket.parse().map_err(|_| ParseVipError::Form)?;
        let last = match last {
            Some(last) => last.parse().map_err(|_| ParseVipError::Form)?,
            None => socket.port(),
        };
        Vip::with_ports(socket.ip(), socket.port(), last, protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_vip_reads_back_what_it_prints() {
        for text in [
            "203.0.113.10:80/tcp",
            "[2001:db8::1]:53/udp",
            "198.51.100.1:0/udp",
            "198.51.100.1:30000-30999/udp",
            "[2001:db8::1]:1-65535/tcp",
        ] {
            assert_eq!(text.parse::<Vip>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn addresses_no_client_can_reach_are_refused() {
        for text in [
            "0.0.0.0:80/tcp",
            "127.0.0.1:80/tcp",
            "255.255.255.255:80/tcp",
            "224.0.0.1:80/udp",
            "[::]:80/tcp",
            "[::1]:80/tcp",
            "[ff02::1]:80/udp",
            "[::ffff:192.0.2.1]:80/tcp",
        ] {
            assert!(
                matches!(text.parse::<Vip>(), Err(ParseVipError::NotUnicast(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_range_goes_upwards_and_has_its_ports() {
        let vip: Vip = "198.51.100.1:100-200/udp".parse().unwrap();
        assert!(vip.has_port(100) && vip.has_port(200));
        assert!(!vip.has_port(99) && !vip.has_port(201) && !vip.has_one_port());
        for text in ["198.51.100.1:200-100/udp", "198.51.100.1:0-100/udp"] {
            let error = text.parse::<Vip>();
            assert!(matches!(error, Err(ParseVipError::Range { .. })), "{text}");
        }
        for (text, meant) in [
            ("203.0.113.10:90-80/tcp", "did you mean 80-90?"),
            ("203.0.113.10:0-80/tcp", "did you mean 1-80?"),
            ("203.0.113.10:0-65535/tcp", "for every port write 0"),
        ] {
            let error = text.parse::<Vip>().unwrap_err().to_string();
            assert!(error.ends_with(meant), "{error}");
        }
    }

    #[test]
    fn other_spellings_are_refused_with_the_right_one() {
        for text in [
            "203.0.113.10",
            "203.0.113.10:80",
            "203.0.113.10:80/sctp",
            "2001:db8::1:80/tcp",
            "203.0.113.10:80-/tcp",
            "203.0.113.10:80-90-100/tcp",
        ] {
            assert_eq!(text.parse::<Vip>(), Err(ParseVipError::Form), "{text}");
        }
    }
}
