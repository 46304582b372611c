//! The sockets of BFD: what is sent and taken with a TTL of 255 only (RFC 5881 section 5, RFC
//! 5082). No router lets such a packet through: who sent it is on the link.

use lockstep_ctl_core::bfd::Packet;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where packets go (RFC 5881 section 4).
pub const PORT: u16 = 3_784;

/// Where they come from, one port a session (RFC 5881 section 4).
const SOURCES: std::ops::RangeInclusive<u16> = 49_152..=u16::MAX;

/// Random ports that may be taken before the next packet's turn tries more.
const TRIES: usize = 16;

const TTL: u32 = 255;

/// Network control, as routers send their own (RFC 4594 section 3.1).
const CLASS: u32 = 0xc0;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    const fn domain(self) -> Domain {
        match self {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        }
    }

    const fn any(self) -> IpAddr {
        match self {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Where the TTL or hop limit stands in the header.
    const fn ttl_offset(self) -> u32 {
        match self {
            Family::V4 => 8,
            Family::V6 => 7,
        }
    }
}

fn open(family: Family) -> io::Result<Socket> {
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(CLASS)?;
        }
        Family::V6 => {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(CLASS)?;
        }
    }
    Ok(socket)
}

/// The socket that every neighbor of a family sends to. The kernel drops what comes with another
/// TTL before it takes room in the queue, so that nobody behind a router can fill it. (`IP_MINTTL`
/// would be the option for this; Linux looks at it for TCP only.)
pub fn listen(family: Family) -> io::Result<tokio::net::UdpSocket> {
    let socket = open(family)?;
    socket.attach_filter(&only_ttl(family))?;
    socket.bind(&SocketAddr::new(family.any(), PORT).into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// A filter that takes packets with a TTL of 255: load the byte, compare, take all or nothing.
fn only_ttl(family: Family) -> [SockFilter; 4] {
    /// The offset of the network header to a filter, from linux/filter.h (`SKF_NET_OFF`).
    const NETWORK_HEADER: u32 = 0xfff0_0000;
    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK_HEADER + family.ttl_offset()),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, TTL),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The way to one neighbor. It has a socket as soon as there is a route.
#[derive(Debug)]
pub struct Speaker {
    peer: IpAddr,
    local: Option<IpAddr>,
    socket: Option<UdpSocket>,
}

impl Speaker {
    /// For a neighbor, from an address of ours or from the one that the routes say.
    pub const fn new(peer: IpAddr, local: Option<IpAddr>) -> Self {
        Speaker {
            peer,
            local,
            socket: None,
        }
    }

    /// Sends a packet. One that cannot be sent is one that is lost: the next is soon due.
    pub fn send(&mut self, packet: &Packet) {
        let sent = self
            .connected()
            .and_then(|socket| socket.send(&packet.emit()));
        match sent {
            Ok(_) => {}
            // The neighbor has no BFD yet. The socket's source port stays the session's.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                // Addresses and routes of this host may have changed: the next packet gets a
                // socket that knows them.
                tracing::debug!(peer = %self.peer, "bfd: cannot send: {error}");
                self.socket = None;
            }
        }
    }

    fn connected(&mut self) -> io::Result<&UdpSocket> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            none => {
                let socket = connect(self.peer, self.local)?;
                Ok(none.insert(socket))
            }
        }
    }
}

fn connect(peer: IpAddr, local: Option<IpAddr>) -> io::Result<UdpSocket> {
    let family = Family::of(peer);
    let socket = open(family)?;
    let mut bound = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..TRIES {
        let port = rand::random_range(SOURCES);
        bound = socket.bind(&SocketAddr::new(local.unwrap_or(family.any()), port).into());
        match &bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    bound?;
    socket.connect(&SocketAddr::new(peer, PORT).into())?;
    Ok(socket.into())
}
