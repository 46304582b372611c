//! A client or a server in memory: one TCP connection of a stack of its own.

use anyhow::{Result, anyhow};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The longest IP packet.
pub const MTU: usize = 1_500;
/// Bytes of each of a peer's buffers.
const BUFFER: usize = 1 << 20;

/// An IP packet in memory that is used again.
pub type Packet = Vec<u8>;

/// See the module.
pub struct Peer {
    /// Where it is.
    pub address: Ipv4Addr,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: Link,
}

/// Packets to it and from it.
#[derive(Default)]
struct Link {
    inbound: VecDeque<Packet>,
    outbound: Vec<Packet>,
    spare: Vec<Packet>,
}

impl Peer {
    /// One without a connection.
    pub fn new(address: Ipv4Addr, seed: u64) -> Self {
        let mut link = Link::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let pushed = addresses.push(IpCidr::new(address.into(), 32));
            pushed.expect("there is room for one address");
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        Peer {
            address,
            interface,
            sockets,
            handle,
            link,
        }
    }

    /// Waits for a connection.
    pub fn listen(&mut self, port: u16) -> Result<()> {
        let listened = self.socket().listen(port);
        listened.map_err(|error| anyhow!("cannot listen: {error}"))
    }

    /// Opens a connection.
    pub fn connect(&mut self, to: SocketAddrV4) -> Result<()> {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        let connected = socket.connect(self.interface.context(), to, 40_000);
        connected.map_err(|error| anyhow!("cannot connect: {error}"))
    }

    /// Its connection.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Gives it a packet.
    pub fn deliver(&mut self, packet: &[u8]) {
        let mut buffer = self.link.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.link.inbound.push_back(buffer);
    }

    /// Lets it do what it can; `sent` gets its packets.
    pub fn turn(&mut self, microseconds: u64, mut sent: impl FnMut(&[u8])) {
        let now = Instant::from_micros(i64::try_from(microseconds).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let Link {
            outbound, spare, ..
        } = &mut self.link;
        for packet in outbound.drain(..) {
            sent(&packet);
            spare.push(packet);
        }
    }
}

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Incoming(packet), Outgoing(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Incoming(Packet);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Link);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = self.0.spare.pop().unwrap_or_default();
        packet.clear();
        packet.resize(length, 0);
        let result = f(&mut packet);
        self.0.outbound.push(packet);
        result
    }
}
