//! One end of a TCP connection in the world outside: a smoltcp stack of its own, with its own
//! checksums and timers. It shares nothing with the engine's connections.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use lockstep_core::Micros;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

#[derive(Default)]
struct Queues {
    incoming: Option<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
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

/// How long something may be unacknowledged before the last acknowledgment is heard again.
const PATIENCE: Duration = Duration::from_secs(5);

/// An end of a connection.
pub struct Peer {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: Option<SocketHandle>,
    queues: Queues,
    /// The other side's FIN has come.
    finished: bool,
    /// What was unread at the end: smoltcp forgets it with the connection, a kernel does not.
    kept: Vec<u8>,
    /// What is unacknowledged, its FIN included, and since when.
    waits: Option<(usize, Micros)>,
    /// The last segment sent that had its FIN.
    farewell: Vec<u8>,
    /// The last segment without payload.
    heard: Vec<u8>,
    /// The first sequence number behind the window it has told of last.
    edge: u32,
    /// An RST has ended it while something was still to be said.
    reset: bool,
}

fn instant(now: Micros) -> Instant {
    Instant::from_micros(now.get() as i64)
}

impl Peer {
    /// A host's answer where nobody listens: RST.
    pub fn deaf(address: IpAddr, seed: u64) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, Instant::ZERO);
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            let own = IpCidr::new(IpAddress::from(address), prefix);
            addresses.push(own).unwrap();
        });
        Peer {
            interface,
            sockets: SocketSet::new(vec![]),
            handle: None,
            queues,
            finished: false,
            kept: Vec::new(),
            edge: 0,
            waits: None,
            farewell: Vec::new(),
            heard: Vec::new(),
            reset: false,
        }
    }

    fn with_socket(address: IpAddr, seed: u64, buffer: usize) -> Self {
        let mut peer = Peer::deaf(address, seed);
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; buffer]),
            SocketBuffer::new(vec![0; buffer]),
        );
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        peer.handle = Some(peer.sockets.add(socket));
        peer
    }

    pub fn listen(local: SocketAddr, seed: u64, buffer: usize) -> Self {
        let mut peer = Peer::with_socket(local.ip(), seed, buffer);
        peer.socket().listen(local).unwrap();
        peer
    }

    pub fn connect(
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        seed: u64,
        buffer: usize,
    ) -> Self {
        let mut peer = Peer::with_socket(local.ip(), seed, buffer);
        let handle = peer.handle.unwrap();
        peer.interface.poll_maintenance(instant(now));
        let socket = peer.sockets.get_mut::<Socket>(handle);
        let context = peer.interface.context();
        socket.connect(context, remote, local).unwrap();
        peer
    }

    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle.unwrap())
    }

    pub fn state(&mut self) -> State {
        self.socket().state()
    }

    /// Whether the other side's FIN has come, and all before it was read.
    pub fn has_ended(&mut self) -> bool {
        self.finished && self.kept.is_empty() && !self.socket().can_recv()
    }

    /// Whether it was reset before both sides had said everything.
    pub fn was_reset(&self) -> bool {
        self.reset
    }

    pub fn deliver(&mut self, now: Micros, mut packet: Vec<u8>) {
        self.hide_fin_outside(&mut packet);
        if packet.len() == transport(&packet) + 20 {
            self.heard.clone_from(&packet);
        }
        let before = self.handle.map(|_| self.state());
        self.queues.incoming = Some(packet);
        self.interface
            .poll_ingress_single(instant(now), &mut self.queues, &mut self.sockets);
        self.queues.incoming = None;
        let Some(before) = before else { return };
        self.finished |= matches!(
            self.state(),
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
        );
        self.reset |= self.state() == State::Closed
            && !matches!(before, State::LastAck | State::TimeWait | State::Closed);
        if self.state() == State::TimeWait && self.socket().can_recv() {
            let mut kept = std::mem::take(&mut self.kept);
            self.read(&mut kept, usize::MAX / 2);
            self.kept = kept;
        }
    }

    /// What it has to send.
    pub fn send(&mut self, now: Micros) -> Vec<Vec<u8>> {
        self.knock(now);
        self.interface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
        let sent = std::mem::take(&mut self.queues.outgoing);
        if let Some(last) = sent.iter().rfind(|packet| has_fin(packet)) {
            self.farewell.clone_from(last);
        }
        if let Some(last) = sent.last() {
            let tcp = &last[transport(last)..];
            let acknowledged = u32::from_be_bytes(tcp[8..12].try_into().unwrap());
            let window = u16::from_be_bytes([tcp[14], tcp[15]]);
            self.edge = acknowledged.wrapping_add(u32::from(window));
        }
        sent
    }

    /// smoltcp forgets to retransmit where a window was closed in front of what is in flight. A
    /// kernel does not: here it hears the last acknowledgment again until it does. That does nothing
    /// for a FIN alone: it is sent again.
    fn knock(&mut self, now: Micros) {
        if self.handle.is_none() {
            return;
        }
        let (queue, state) = (self.socket().send_queue(), self.state());
        let fin = matches!(state, State::FinWait1 | State::Closing | State::LastAck);
        let waits = queue + usize::from(fin);
        match self.waits {
            _ if waits == 0 => self.waits = None,
            Some((before, since)) if before == waits => {
                if now < since + PATIENCE {
                    return;
                }
                self.waits = Some((waits, now));
                if queue == 0 && !self.farewell.is_empty() {
                    self.queues.outgoing.push(alone(&self.farewell));
                    return;
                }
                if self.heard.is_empty() {
                    return;
                }
                let (heard, mut other) = (self.heard.clone(), self.heard.clone());
                let at = transport(&heard);
                let window = u16::from_be_bytes([heard[at + 14], heard[at + 15]]);
                if window == 0 {
                    return;
                }
                let sum = u16::from_be_bytes([heard[at + 16], heard[at + 17]]);
                other[at + 14..at + 16].copy_from_slice(&(window ^ 1).to_be_bytes());
                let sum = replaced(sum, window, window ^ 1);
                other[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
                self.deliver(now, other);
                for _ in 0..4 {
                    self.deliver(now, heard.clone());
                }
            }
            _ => self.waits = Some((waits, now)),
        }
    }

    /// smoltcp takes a FIN at the end of a segment whose last bytes are outside its window, and
    /// with it for granted that they were there. A kernel waits for them: so does this.
    fn hide_fin_outside(&self, packet: &mut [u8]) {
        let at = transport(packet);
        let Some(tcp) = packet.get_mut(at..).filter(|tcp| tcp.len() >= 20) else {
            return;
        };
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let length = tcp.len().saturating_sub(usize::from(tcp[12] >> 4) * 4);
        let end = sequence.wrapping_add(length as u32);
        if tcp[13] & FIN != 0 && length > 0 && (self.edge.wrapping_sub(end) as i32) < 0 {
            tcp[13] &= !FIN;
            // RFC 1624: a word less by one makes the checksum more by one.
            let sum = u16::from_be_bytes([tcp[16], tcp[17]]);
            let sum = sum.checked_add(1).unwrap_or(1);
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// When it has to send again, if nothing happens before.
    pub fn due(&mut self, now: Micros) -> Option<Micros> {
        let at = self.interface.poll_at(instant(now), &self.sockets);
        let at = at.map(|at| Micros::new(at.total_micros().max(0) as u64));
        let waits = self.waits.map(|(_, since)| since + PATIENCE);
        at.into_iter().chain(waits).min()
    }

    /// Reads at most that many bytes.
    pub fn read(&mut self, out: &mut Vec<u8>, most: usize) {
        let kept = self.kept.len().min(most);
        out.extend(self.kept.drain(..kept));
        let most = most - kept;
        let socket = self.socket();
        let end = out.len() + most;
        while out.len() < end && socket.can_recv() {
            let left = end - out.len();
            let read = socket.recv(|piece| {
                let piece = &piece[..piece.len().min(left)];
                out.extend_from_slice(piece);
                (piece.len(), ())
            });
            read.unwrap();
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.socket().send_slice(bytes).unwrap_or(0)
    }
}

/// A checksum after one word was replaced (RFC 1624).
fn replaced(sum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!sum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

const FIN: u8 = 1;

fn has_fin(packet: &[u8]) -> bool {
    let flags = packet.get(transport(packet) + 13);
    flags.is_some_and(|flags| flags & FIN != 0)
}

/// The FIN of a packet, without its data: that was acknowledged.
fn alone(packet: &[u8]) -> Vec<u8> {
    let parsed = SlicedPacket::from_ip(packet).unwrap();
    let (Some(net), Some(TransportSlice::Tcp(tcp))) = (parsed.net, parsed.transport) else {
        unreachable!("it was sent as a FIN");
    };
    let builder = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            PacketBuilder::ipv4(header.source(), header.destination(), 64)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            PacketBuilder::ipv6(header.source(), header.destination(), 64)
        }
        NetSlice::Arp(_) => unreachable!("it is TCP"),
    };
    let sequence = tcp.sequence_number();
    let sequence = sequence.wrapping_add(tcp.payload().len() as u32);
    let (from, to) = (tcp.source_port(), tcp.destination_port());
    let mut fin = Vec::new();
    let builder = builder.tcp(from, to, sequence, tcp.window_size());
    let builder = builder.ack(tcp.acknowledgment_number()).fin();
    builder.write(&mut fin, &[]).unwrap();
    fin
}

/// Where the TCP header begins; nothing here has IP options.
fn transport(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}
