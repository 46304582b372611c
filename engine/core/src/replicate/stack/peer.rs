//! The other end in tests: a smoltcp stack of its own, with smoltcp's own checksums.

use super::{Scratch, Transmit, Way};
use crate::Micros;
use crate::tables::PortId;
use core::net::{IpAddr, SocketAddr};
use lockstep_wire::LinkHeader;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub fn way() -> Way {
    Way {
        port: PortId(0),
        link: LinkHeader {
            destination: PEER_MAC,
            source: OUR_MAC,
            vlan: None,
        },
    }
}

/// An Ethernet frame around an IP packet.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(OUR_MAC);
    frame.extend(PEER_MAC);
    frame.extend(if packet[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame
}

/// Packets that were sent.
#[derive(Default)]
pub struct Wiretap {
    pub packets: VecDeque<Vec<u8>>,
    /// The link header of the last one with a VLAN tag.
    pub tagged: Option<LinkHeader>,
    /// Packets whose memory is used again.
    pub spare: Vec<Vec<u8>>,
    /// Refuse everything.
    pub full: bool,
}

impl Transmit for Wiretap {
    fn transmit(
        &mut self,
        _: PortId,
        link: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        if self.full {
            return false;
        }
        // What a frame has in it before is anybody's guess.
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.resize(length, 0xa5);
        write(&mut packet);
        self.packets.push_back(packet);
        self.tagged = link.vlan.map(|_| *link).or(self.tagged);
        true
    }

    fn has_room(&mut self, _: PortId) -> bool {
        !self.full
    }
}

#[derive(Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1_500;
        capabilities
    }
}

/// A host with any number of sockets.
pub struct Peer {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
    address: IpAddr,
}

impl Peer {
    pub fn new(address: &str, seed: u64) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, Instant::ZERO);
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::from(address), prefix))
                .unwrap();
        });
        Peer {
            interface,
            sockets: SocketSet::new(vec![]),
            queues,
            address,
        }
    }

    fn add(&mut self, buffer: usize) -> SocketHandle {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; buffer]),
            SocketBuffer::new(vec![0; buffer]),
        );
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let handle = self.add(buffer);
        self.get(handle).listen(port).unwrap();
        handle
    }

    pub fn connect(&mut self, port: u16, to: SocketAddr, buffer: usize) -> SocketHandle {
        let handle = self.add(buffer);
        let socket = self.sockets.get_mut::<Socket>(handle);
        let from = SocketAddr::new(self.address, port);
        socket.connect(self.interface.context(), to, from).unwrap();
        handle
    }

    pub fn get(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn state(&mut self, handle: SocketHandle) -> State {
        self.get(handle).state()
    }

    pub fn write(&mut self, handle: SocketHandle, bytes: &[u8]) -> usize {
        self.get(handle).send_slice(bytes).unwrap_or(0)
    }

    /// Everything that has arrived.
    pub fn read(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut bytes = Vec::new();
        let socket = self.get(handle);
        while socket.can_recv() {
            socket
                .recv(|piece| {
                    bytes.extend_from_slice(piece);
                    (piece.len(), ())
                })
                .unwrap();
        }
        bytes
    }

    pub fn deliver(&mut self, packet: Vec<u8>) {
        self.queues.incoming.push_back(packet);
    }

    /// Lets the stack work; returns the packets it sends.
    pub fn poll(&mut self, now: Micros) -> Vec<Vec<u8>> {
        let now = Instant::from_micros(now.get() as i64);
        while !self.queues.incoming.is_empty() {
            self.interface
                .poll_ingress_single(now, &mut self.queues, &mut self.sockets);
        }
        self.interface
            .poll(now, &mut self.queues, &mut self.sockets);
        self.queues.outgoing.drain(..).collect()
    }
}

/// For tests that only need some.
pub fn scratch() -> Scratch {
    Scratch::new()
}
