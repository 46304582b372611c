//! The way to a VIP through the tunnel to one backend, as clients' packets take it.
//!
//! Sockets of such checks carry a mark. A rule and a routing table of their own send marked
//! packets to a TUN device; from there they are put into the tunnel to the backend that their
//! source port belongs to. Answers come straight to the check's address, as a client's do. The
//! kernel's TCP is the checks' on this way too, and no tunnel driver is needed.

use super::ask::Trouble;
use crate::daemon::privileges;
use lockstep_plan::Encapsulation;
use netlink_packet_route::rule::RuleAction;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::RouteMessageBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tun::Tun;

/// The device.
const DEVICE: &str = "lockstep-check";
/// Room for the longest header of a tunnel, and for a network that has less than Ethernet's 1,500.
const MTU: i32 = 1_280;
/// The mark, table and priority of the rule: "LS" and 5.
const MARK: u32 = 0x4c53_0005;
const TABLE: u32 = 0x4c53;
const PRIORITY: u32 = 5_000;
/// How long packets of a check that has ended still find their way: its RST is one of them.
const AFTER: Duration = Duration::from_secs(5);
/// How long a way that could not be made is not tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The way, made with the first check that needs it.
#[derive(Default)]
pub struct Tunnels {
    made: AsyncMutex<Option<Result<Arc<Tunnel>, Failed>>>,
}

/// Why there is no way, and since when.
type Failed = (Instant, String);

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").finish_non_exhaustive()
    }
}

impl Tunnels {
    /// The way, or why there is none.
    pub async fn get(&self) -> Result<Arc<Tunnel>, Trouble> {
        let mut made = self.made.lock().await;
        match &*made {
            Some(Ok(tunnel)) if !tunnel.reader.is_finished() => return Ok(Arc::clone(tunnel)),
            Some(Err((at, why))) if at.elapsed() < RETRY => return Err(Trouble::Here(why.clone())),
            Some(_) | None => {}
        }
        // The device of one that has ended has to go first.
        *made = None;
        let tunnel = Tunnel::make().await.map(Arc::new);
        let answer = tunnel.clone();
        *made = Some(tunnel.map_err(|why| (Instant::now(), why)));
        answer.map_err(Trouble::Here)
    }
}

/// Where packets of a check go.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The backend.
    pub backend: IpAddr,
    /// Its tunnel.
    pub encapsulation: Encapsulation,
}

/// The checks under way, by protocol and source.
type Sources = Mutex<Known>;
/// Each with the end of its time, once it has ended.
type Known = HashMap<(u8, SocketAddr), (End, Option<Instant>)>;

/// See the module.
pub struct Tunnel {
    sources: Arc<Sources>,
    reader: JoinHandle<()>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Tunnel {
    async fn make() -> Result<Self, String> {
        let made = || privileges::with(privileges::NETWORK | privileges::RAW, open);
        let made = tokio::task::spawn_blocking(made).await;
        let (tun, raw) = made.map_err(io::Error::other).flatten().map_err(|error| {
            format!(
                "cannot check through tunnels ({error}): give lockstepd CAP_NET_ADMIN, \
                 CAP_NET_RAW and /dev/net/tun, or leave out via = \"tunnel\""
            )
        })?;
        let sources = Arc::<Sources>::default();
        let reader = tokio::spawn(carry(tun, raw, Arc::clone(&sources)));
        Ok(Tunnel { sources, reader })
    }

    /// Marks a socket, so that its packets go this way.
    pub fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        privileges::with(privileges::NETWORK | privileges::RAW, move || {
            setsockopt(&socket, sockopt::Mark, &MARK).map_err(io::Error::from)
        })
    }

    /// The address that a check asks from: the one that this host has towards the backend, or,
    /// where the VIP is of another IP version, towards that.
    pub fn source(&self, end: &End, vip: IpAddr) -> io::Result<IpAddr> {
        let towards = match end.backend.is_ipv4() == vip.is_ipv4() {
            true => end.backend,
            false => vip,
        };
        let any: IpAddr = match towards {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent by it.
        socket.connect((towards, 9))?;
        socket.local_addr().map(|address| address.ip())
    }

    /// Lets packets from this source through, until a while after the pass is dropped.
    pub fn admit(&self, protocol: u8, source: SocketAddr, end: End) -> Pass {
        let key = (protocol, source);
        let mut sources = locked(&self.sources);
        let now = Instant::now();
        sources.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        sources.insert(key, (end, None));
        Pass {
            sources: Arc::clone(&self.sources),
            key,
        }
    }
}

/// Leave for the packets of one check.
#[derive(Debug)]
pub struct Pass {
    sources: Arc<Sources>,
    key: (u8, SocketAddr),
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((_, until)) = locked(&self.sources).get_mut(&self.key) {
            *until = Some(Instant::now() + AFTER);
        }
    }
}

fn locked(sources: &Sources) -> MutexGuard<'_, Known> {
    sources.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device, with the way to it, and what packets leave by.
fn open() -> io::Result<(Tun, Raw)> {
    let raw = Raw::open().map_err(|e| failed("raw sockets", &e))?;
    let made = Tun::builder().name(DEVICE).mtu(MTU).up().build();
    let tun = made.map_err(|e| failed("a TUN device", &e))?;
    let no_device = || failed("a TUN device", &"there is none");
    let tun = tun.into_iter().next().ok_or_else(no_device)?;
    let index = tun.index().map_err(|e| failed("the TUN device", &e))?;
    // The kernel looks at the capabilities of the thread that asks: it must be this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let routed = runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| failed("netlink", &e))?;
        tokio::spawn(connection);
        let routed = route(&handle, index).await;
        routed.map_err(|e| failed("its route", &e))
    });
    routed.map(|()| (tun, raw))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

/// Sends what carries the mark to the device. Rules of an earlier daemon are the same.
async fn route(handle: &rtnetlink::Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new();
    let v4 = v4.table_id(TABLE).output_interface(index).build();
    handle.route().add(v4).replace().execute().await?;
    let rule = handle.rule().add().v4().fw_mark(MARK).table_id(TABLE);
    let rule = rule.priority(PRIORITY).action(RuleAction::ToTable);
    there_already(rule.execute().await)?;
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new();
    let v6 = v6.table_id(TABLE).output_interface(index).build();
    // A host without IPv6 has no VIPs of it to ask.
    if let Err(error) = handle.route().add(v6).replace().execute().await {
        tracing::debug!("no checks through tunnels to IPv6 VIPs: {error}");
        return Ok(());
    }
    let rule = handle.rule().add().v6().fw_mark(MARK).table_id(TABLE);
    let rule = rule.priority(PRIORITY).action(RuleAction::ToTable);
    there_already(rule.execute().await)
}

fn there_already(added: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match added {
        Err(rtnetlink::Error::NetlinkError(error))
            if error.to_io().kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Puts what comes out of the device into tunnels.
async fn carry(mut tun: Tun, raw: Raw, sources: Arc<Sources>) {
    let mut packet = [0; 2_048];
    loop {
        let length = match tun.read(&mut packet).await {
            Ok(length) => length,
            Err(error) => return tracing::warn!("no checks through tunnels any more: {error}"),
        };
        let packet = &packet[..length];
        // What is none of ours (neighbor discovery, router solicitations) goes nowhere.
        let Some(key) = source_of(packet) else {
            continue;
        };
        let end = locked(&sources).get(&key).map(|&(end, _)| end);
        if let Some(end) = end
            && let Err(error) = raw.send(packet, &end)
        {
            // As if it were lost on the way: the check says that there was no answer.
            tracing::debug!(backend = %end.backend, "a check's packet: {error}");
        }
    }
}

/// Protocol and source of a packet that we made: TCP or UDP, without options and fragments.
fn source_of(packet: &[u8]) -> Option<(u8, SocketAddr)> {
    let (protocol, address, at): (u8, IpAddr, usize) = match packet.first()? >> 4 {
        4 => {
            let address: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let header = usize::from(packet[0] & 0xf) * 4;
            (*packet.get(9)?, address.into(), header)
        }
        6 => {
            let address: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (*packet.get(6)?, address.into(), 40)
        }
        _ => return None,
    };
    let port: [u8; 2] = packet.get(at..at + 2)?.try_into().ok()?;
    let is_ours = [TCP, UDP].contains(&protocol);
    is_ours.then(|| (protocol, SocketAddr::new(address, u16::from_be_bytes(port))))
}

/// IANA's numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
const IPV4_IN_IP: i32 = 4;
const IPV6_IN_IP: i32 = 41;

/// What packets leave by: one raw socket for each IP version outside and inside, and one for
/// each that UDP is outside of (GUE, variant 1).
struct Raw {
    v4: Outside,
    /// `None` on a host without IPv6.
    v6: Option<Outside>,
}

struct Outside {
    with_v4: Socket,
    with_v6: Socket,
    udp: UdpSocket,
}

impl Raw {
    fn open() -> io::Result<Self> {
        Ok(Raw {
            v4: Outside::open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())?,
            v6: Outside::open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()).ok(),
        })
    }

    fn send(&self, packet: &[u8], end: &End) -> io::Result<usize> {
        let outside = match end.backend {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => {
                let none = || io::Error::from(io::ErrorKind::AddrNotAvailable);
                self.v6.as_ref().ok_or_else(none)?
            }
        };
        match end.encapsulation {
            Encapsulation::Gue { port } => outside.udp.send_to(packet, (end.backend, port.get())),
            Encapsulation::Ipip => {
                let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
                let socket = if is_v4 {
                    &outside.with_v4
                } else {
                    &outside.with_v6
                };
                socket.send_to(packet, &SocketAddr::new(end.backend, 0).into())
            }
        }
    }
}

impl Outside {
    fn open(domain: Domain, any: IpAddr) -> io::Result<Self> {
        let raw = |inside| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(inside)))?;
            socket.set_nonblocking(true)?;
            // It gets a copy of every tunnel's packet to this host, which nobody reads.
            socket.set_recv_buffer_size(1)?;
            Ok::<_, io::Error>(socket)
        };
        let udp = UdpSocket::bind((any, 0))?;
        udp.set_nonblocking(true)?;
        Ok(Outside {
            with_v4: raw(IPV4_IN_IP)?,
            with_v6: raw(IPV6_IN_IP)?,
            udp,
        })
    }
}
