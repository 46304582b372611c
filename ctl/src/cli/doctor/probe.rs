//! Pings of the longest packets that backends may be sent, never fragmented: neither here nor on
//! the way (RFC 792, RFC 4443; `IP_PMTUDISC_PROBE` of ip(7)).

use super::facts::{Probe, Reached};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Backends that are pinged at most.
const MOST: usize = 1_024;
/// Whoever has not answered is asked again, so that one lost packet says nothing.
const ROUNDS: usize = 3;
/// How long answers are waited for, each time.
const PATIENCE: Duration = Duration::from_millis(400);
/// Bytes of a short ping's packet, and of the header of each.
const SHORT: u32 = 64;
const ECHO: usize = 8;

/// What `send` says when this host's own interface takes no packet that long.
const TOO_LONG: Errno = Errno::MSGSIZE;

const V4_REQUEST: u8 = 8;
const V4_REPLY: u8 = 0;
const V4_UNREACHABLE: u8 = 3;
const V6_REQUEST: u8 = 128;
const V6_REPLY: u8 = 129;
const V6_TOO_BIG: u8 = 2;

/// Pings every backend, each with as many bytes as it may get.
pub fn ping(longest: &BTreeMap<IpAddr, u32>) -> io::Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for v4 in [true, false] {
        let backends = longest
            .iter()
            .filter(|(address, _)| address.is_ipv4() == v4);
        let mut of_version: Vec<Probe> = backends
            .take(MOST)
            .map(|(&backend, &bytes)| Probe {
                backend,
                bytes,
                short: false,
                long: Reached::No,
            })
            .collect();
        if !of_version.is_empty() {
            Pinger::open(v4)?.ping(&mut of_version)?;
        }
        probes.extend(of_version);
    }
    Ok(probes)
}

/// A socket for pings over one IP version.
struct Pinger {
    /// Of type `SOCK_RAW`; what the type offers is the same.
    socket: UdpSocket,
    v4: bool,
    /// Tells our pings from others' on this host.
    id: u16,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The reply to the ping with this number.
    Reply(u16),
    /// Somebody takes no packets that long.
    TooLong(u16, u32),
}

impl Pinger {
    fn open(v4: bool) -> io::Result<Self> {
        let (family, protocol) = match v4 {
            true => (AddressFamily::INET, ipproto::ICMP),
            false => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = socket_with(
            family,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        match v4 {
            true => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
            false => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
        }
        Ok(Pinger {
            socket: UdpSocket::from(socket),
            v4,
            id: std::process::id() as u16,
        })
    }

    fn ping(&self, probes: &mut [Probe]) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let mut waiting = 0;
            for (at, probe) in probes.iter_mut().enumerate() {
                // There are less than half as many as numbers.
                let number = (at * 2) as u16;
                if !probe.short {
                    waiting += usize::from(self.send(probe.backend, number, SHORT).is_ok());
                }
                if probe.long == Reached::No {
                    match self.send(probe.backend, number + 1, probe.bytes) {
                        Ok(()) => waiting += 1,
                        Err(error) if error.raw_os_error() == Some(TOO_LONG.raw_os_error()) => {
                            probe.long = Reached::TooLong(None);
                        }
                        Err(_) => {}
                    }
                }
            }
            self.gather(probes, waiting)?;
        }
        Ok(())
    }

    /// Takes answers until there is one to each ping, or for as long as is reasonable.
    fn gather(&self, probes: &mut [Probe], mut waiting: usize) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 65_535];
        while waiting > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(got) => got,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(answer) = answer(self.v4, self.id, &buffer[..length]) else {
                continue;
            };
            let (number, reached) = match answer {
                Answer::Reply(number) => (number, Reached::Yes),
                Answer::TooLong(number, mtu) => (number, Reached::TooLong(Some(mtu))),
            };
            let Some(probe) = probes.get_mut(usize::from(number / 2)) else {
                continue;
            };
            // An error comes from whoever is on the way.
            if reached == Reached::Yes && from.ip() != probe.backend {
                continue;
            }
            match number % 2 {
                0 => probe.short |= reached == Reached::Yes,
                _ => probe.long = reached,
            }
            waiting -= 1;
        }
        Ok(())
    }

    fn send(&self, to: IpAddr, number: u16, bytes: u32) -> io::Result<()> {
        let header = if self.v4 { 20 } else { 40 };
        let mut message = vec![0; (bytes as usize).saturating_sub(header).max(ECHO)];
        message[0] = if self.v4 { V4_REQUEST } else { V6_REQUEST };
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&number.to_be_bytes());
        if self.v4 {
            // Over IPv6 the kernel writes it (RFC 3542 section 3.1).
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.socket
            .send_to(&message, SocketAddr::new(to, 0))
            .map(|_| ())
    }
}

/// What a packet from the socket says of one of our pings.
fn answer(v4: bool, id: u16, bytes: &[u8]) -> Option<Answer> {
    // Over IPv4 the socket gives the IP header too.
    let message = if v4 {
        bytes.get(header_v4(bytes)?..)?
    } else {
        bytes
    };
    let echo = |echo: &[u8]| {
        let field = |at: usize| Some(u16::from_be_bytes(*echo.get(at..)?.first_chunk()?));
        (field(4)? == id).then_some(field(6)).flatten()
    };
    let quoted = message.get(ECHO..);
    match (v4, message.first()?) {
        (true, &V4_REPLY) | (false, &V6_REPLY) => Some(Answer::Reply(echo(message)?)),
        // Code 4: fragmentation needed (RFC 1191 section 4).
        (true, &V4_UNREACHABLE) if message.get(1) == Some(&4) => {
            let quoted = quoted?;
            let number = echo(quoted.get(header_v4(quoted)?..)?)?;
            let mtu = u16::from_be_bytes(*message.get(6..)?.first_chunk()?);
            Some(Answer::TooLong(number, mtu.into()))
        }
        (false, &V6_TOO_BIG) => {
            let number = echo(quoted?.get(40..)?)?;
            Some(Answer::TooLong(
                number,
                u32::from_be_bytes(*message.get(4..)?.first_chunk()?),
            ))
        }
        _ => None,
    }
}

fn header_v4(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4)
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let words = message
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded: 16 bits are left.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn this_host_answers_long_pings_and_sends_none_that_no_interface_takes() {
        let own = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for (bytes, expected) in [(1_540, Reached::Yes), (70_000, Reached::TooLong(None))] {
            let longest = own.map(|address| (address, bytes)).into();
            let probes = ping(&longest).unwrap();
            assert_eq!(probes.len(), 2);
            for probe in &probes {
                assert_eq!((probe.short, probe.long), (true, expected), "{probe:?}");
            }
        }
    }

    #[test]
    fn errors_on_the_way_are_told_from_others_by_what_they_quote() {
        let mut v4 = vec![0; 20 + 8 + 20 + 8];
        v4[0] = 0x45;
        v4[20..22].copy_from_slice(&[V4_UNREACHABLE, 4]);
        v4[26..28].copy_from_slice(&1_400u16.to_be_bytes());
        v4[28] = 0x45;
        v4[48 + 4..48 + 8].copy_from_slice(&[0x12, 0x34, 0, 9]);
        assert_eq!(answer(true, 0x1234, &v4), Some(Answer::TooLong(9, 1_400)));
        assert_eq!(answer(true, 0x1235, &v4), None);
        let mut v6 = vec![0; 8 + 40 + 8];
        v6[0] = V6_TOO_BIG;
        v6[4..8].copy_from_slice(&1_280u32.to_be_bytes());
        v6[52..56].copy_from_slice(&[0x12, 0x34, 0, 5]);
        assert_eq!(answer(false, 0x1234, &v6), Some(Answer::TooLong(5, 1_280)));
        for cut in 0..v6.len() {
            assert_eq!(answer(false, 0x1234, &v6[..cut]), None, "{cut}");
        }
        for cut in 0..v4.len() {
            assert_eq!(answer(true, 0x1234, &v4[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 1071 section 3: the sum is ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0x01]), !0x0100);
    }
}
