//! One TCP connection: a smoltcp interface with one socket, seen by the machine as a `Leg`.

mod leg;
mod upkeep;

use super::device::{Scratch, Sent, Transmit, Way, Wire};
use super::segment::{Segment, SynOptions};
use crate::Micros;
use crate::replicate::leg::Loss;
use alloc::vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use lockstep_wire::{LinkHeader, TcpFlags};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use upkeep::Upkeep;

/// How long a client may take to acknowledge the SYN-ACK: three of its retransmissions.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Segments sent in one go, so that one connection does not hold up the others.
const SEND_BURST: usize = 64;

/// How long an acknowledgment of less than two segments waits for data to ride on.
const ACK_DELAY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(5);

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client did.
    Client,
    /// We did, to a replica.
    Replica,
}

/// What a connection is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The longest IP packet on its way, in bytes.
    pub mtu: u16,
    /// Silence after which the peer is probed.
    pub keepalive: Duration,
    /// How long what was sent may go unanswered, before the connection counts as lost.
    pub patience: Duration,
    /// Where sequence numbers start from: a fresh secret number for each connection (RFC 6528).
    pub seed: u64,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Lost(Loss),
}

/// What TIME-WAIT has to remember of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// The sequence number we would send next.
    pub next: u32,
    /// The one we expect next.
    pub expected: u32,
    /// The peer's FIN was not acknowledged yet.
    pub owed: bool,
}

/// A TCP connection with its buffers. Made once, opened and closed any number of times.
pub struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    role: Role,
    sent: Sent,
    end: Option<End>,
    /// The peer's FIN has arrived.
    finished: bool,
    /// The sequence number behind the FIN.
    behind_fin: u32,
    /// Something may be there to send.
    dirty: bool,
    /// The SYN-ACK waits for [`Connection::answer`].
    paused: bool,
    /// Nothing is sent any more, not even RST.
    mute: bool,
    /// When the first segment went out that nothing came back for.
    unanswered: Option<Micros>,
    patience: Duration,
    /// What the window fields sent are shifted by.
    shift: u8,
    opened: Micros,
    rtt: Option<Duration>,
    mtu: u16,
    way: Option<Way>,
    deadline: Option<Micros>,
    upkeep: Upkeep,
}

impl Connection {
    /// A closed connection that receives and sends through these buffers.
    pub fn new(receive: &'static mut [u8], send: &'static mut [u8]) -> Self {
        let mut socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
        // Nothing waits for more to come: whoever writes has already gathered what there is.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(ACK_DELAY));
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        Connection {
            interface: interface(0, 1_500, Micros::ZERO),
            sockets,
            handle,
            role: Role::Client,
            sent: Sent::default(),
            end: Some(End::Closed),
            finished: false,
            behind_fin: 0,
            dirty: false,
            paused: false,
            mute: false,
            unanswered: None,
            patience: Duration::ZERO,
            shift: 0,
            opened: Micros::ZERO,
            rtt: None,
            mtu: 1_500,
            way: None,
            deadline: None,
            upkeep: Upkeep::default(),
        }
    }

    /// Opens it to a replica.
    pub fn connect(
        &mut self,
        now: Micros,
        local: SocketAddr,
        remote: SocketAddr,
        options: &Options,
    ) -> bool {
        self.renew(now, Role::Replica, local, options);
        let Connection {
            interface,
            sockets,
            handle,
            ..
        } = self;
        let socket = sockets.get_mut::<Socket>(*handle);
        socket.pause_synack(false);
        let connected = socket.connect(interface.context(), remote, local).is_ok();
        self.settle(options, connected)
    }

    /// Makes it wait for the SYN of a client, which it will answer at [`Connection::answer`].
    pub fn listen(&mut self, now: Micros, local: SocketAddr, options: &Options) -> bool {
        self.renew(now, Role::Client, local, options);
        self.paused = true;
        let socket = self.socket_mut();
        socket.pause_synack(true);
        let listening = socket.listen(local).is_ok();
        self.settle(options, listening)
    }

    /// Everything but the socket's own state. Its last packet has been sent, or never will be.
    fn renew(&mut self, now: Micros, role: Role, local: SocketAddr, options: &Options) {
        self.interface = interface(options.seed, options.mtu, now);
        let address = IpAddress::from(local.ip());
        let prefix = if local.is_ipv4() { 32 } else { 128 };
        self.interface.update_ip_addrs(|addresses| {
            // There is room for two, and none is there yet.
            let _ = addresses.push(IpCidr::new(address, prefix));
        });
        self.role = role;
        self.sent = Sent::default();
        self.end = None;
        self.finished = false;
        self.dirty = true;
        self.paused = false;
        self.mute = false;
        self.unanswered = None;
        self.patience = options.patience;
        self.shift = scale_of(self.socket().recv_capacity());
        self.opened = now;
        self.rtt = None;
        self.mtu = options.mtu;
        self.way = None;
        self.deadline = None;
        self.socket_mut().abort();
    }

    fn settle(&mut self, options: &Options, opened: bool) -> bool {
        self.upkeep = Upkeep::new(options.keepalive);
        let socket = self.socket_mut();
        socket.set_congestion_control(congestion_control());
        // It would count any silence, also where nothing was asked: see `expire`.
        socket.set_timeout(None);
        if !opened {
            self.end = Some(End::Lost(Loss::Aborted));
        }
        opened
    }

    /// Lets the SYN-ACK go.
    pub fn answer(&mut self) {
        self.paused = false;
        self.dirty = true;
        self.socket_mut().pause_synack(false);
    }

    /// Takes a segment in; `packet` is its IP packet. Sends at most one packet, an immediate
    /// acknowledgment of what is out of order.
    pub fn receive(
        &mut self,
        now: Micros,
        segment: &Segment,
        packet: &mut [u8],
        out: &mut impl Transmit,
        scratch: &mut Scratch,
    ) {
        if self.end.is_some() {
            return;
        }
        let before = self.state();
        if segment.flags.contains(TcpFlags::SYN) {
            let options = SynOptions::read(packet.get(segment.transport..).unwrap_or(&[]));
            if options.scale.is_none() && matches!(before, State::Listen | State::SynSent) {
                self.shift = 0;
            }
            self.upkeep.shift = options.scale.unwrap_or(0);
        }
        if segment.flags.contains(TcpFlags::ACK) {
            // RFC 7323 section 2.2: the window of a SYN is never scaled.
            let scaled = !segment.flags.contains(TcpFlags::SYN);
            let shift = if scaled { self.upkeep.shift } else { 0 };
            let window = u32::from(segment.window) << shift;
            self.sent.open(segment.acknowledgment, window);
        }
        // Whoever only knows the addresses is no sign of life of the peer.
        let heard = matches!(before, State::Listen | State::SynSent) || self.is_plausible(segment);
        self.translate(segment, packet);
        let Connection {
            interface,
            sockets,
            sent,
            way,
            mtu,
            ..
        } = self;
        let mut wire = Wire {
            packet: Some(packet),
            out,
            way: *way,
            mtu: *mtu,
            sent,
            scratch,
        };
        interface.poll_ingress_single(instant(now), &mut wire, sockets);
        self.dirty = true;
        if heard {
            self.upkeep.hear(segment.window);
        }
        self.follow(now, before, segment, heard);
    }

    /// Brings a segment into the form smoltcp must see.
    fn translate(&self, segment: &Segment, packet: &mut [u8]) {
        let Some((header, _)) = packet
            .get_mut(segment.transport..)
            .and_then(<[u8]>::split_first_chunk_mut::<20>)
        else {
            return;
        };
        if self.sent.offset != 0 {
            let number = segment.acknowledgment.wrapping_sub(self.sent.offset);
            header[8..12].copy_from_slice(&number.to_be_bytes());
        }
        // A window whose size was rounded down may end within a segment that the peer was
        // allowed to send before. smoltcp takes the part inside and, with it, a FIN behind the
        // part outside: the bytes between would be lost. Without the FIN both come again.
        if segment.flags.contains(TcpFlags::FIN) && segment.payload > 0 {
            let edge = self
                .sent
                .acknowledged
                .wrapping_add(u32::from(self.sent.window) << self.shift);
            let end = segment.sequence.wrapping_add(segment.payload);
            if (edge.wrapping_sub(end) as i32) < 0 {
                header[13] &= !TcpFlags::FIN.bits();
            }
        }
    }

    /// What a segment has done to the connection.
    fn follow(&mut self, now: Micros, before: State, segment: &Segment, heard: bool) {
        let after = self.state();
        let reset = segment.flags.contains(TcpFlags::RST);
        // Half-open is half-open, whatever comes but the acknowledgment.
        if heard && !(reset && after == before) && after != State::SynReceived {
            self.unanswered = None;
        }
        if self.rtt.is_none() && after == State::Established {
            let handshake = if self.role == Role::Replica {
                self.opened
            } else {
                now
            };
            self.rtt = Some(now.since(handshake));
        }
        let finished = matches!(
            after,
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
        );
        if finished && !self.finished {
            // It was in order, or it would not have been taken.
            self.behind_fin = segment.sequence.wrapping_add(segment.length());
            self.finished = true;
        }
        if self.end.is_some() {
            return;
        }
        self.end = match (before, after) {
            (State::SynReceived, State::Listen) => Some(End::Lost(Loss::Reset)),
            (_, State::TimeWait) => Some(End::Closed),
            (State::LastAck, State::Closed) if !reset => Some(End::Closed),
            (State::SynSent, State::Closed) => Some(End::Lost(Loss::Refused)),
            (State::Closed, State::Closed) => None,
            (_, State::Closed) => Some(End::Lost(Loss::Reset)),
            (_, _) => None,
        };
        if self.end == Some(End::Closed) {
            self.upkeep.close(now);
        }
    }

    /// Sends what there is to send, one acknowledgment at most. True when it has not sent all.
    pub fn send(
        &mut self,
        now: Micros,
        way: Option<Way>,
        out: &mut impl Transmit,
        scratch: &mut Scratch,
    ) -> bool {
        self.way = way;
        if self.mute {
            self.dirty = false;
            return false;
        }
        self.sent.asked = false;
        let mut rest = self.emit(now, out, scratch);
        if !rest && self.tend(now, out, scratch) {
            rest = self.emit(now, out, scratch);
        }
        if self.sent.asked {
            self.unanswered.get_or_insert(now);
        }
        let due = if self.paused || self.state() == State::TimeWait {
            // It would like to send the SYN-ACK at once; and to forget what is unread.
            None
        } else {
            self.interface.poll_at(instant(now), &self.sockets)
        };
        let due = due.map(|at| Micros::new(u64::try_from(at.total_micros()).unwrap_or(0)));
        // No way out, or no room on it: it counts as asked, so that a lost route ends in time.
        let stuck = !rest && due.is_some_and(|at| at <= now);
        if stuck && way.is_none() {
            self.unanswered.get_or_insert(now);
        }
        self.dirty = rest || (stuck && way.is_some());
        let lost = self.lost_at();
        let upkeep = self.upkeep.due();
        self.deadline = due.into_iter().chain(lost).chain(upkeep).min();
        self.dirty
    }

    /// Lets smoltcp send. True when it has not sent all.
    fn emit(&mut self, now: Micros, out: &mut impl Transmit, scratch: &mut Scratch) -> bool {
        if self.upkeep.is_over(now) {
            return false;
        }
        for _ in 0..SEND_BURST {
            let mut wire = Wire {
                packet: None,
                out,
                way: self.way,
                mtu: self.mtu,
                sent: &mut self.sent,
                scratch,
            };
            let polled = self
                .interface
                .poll_egress(instant(now), &mut wire, &mut self.sockets);
            if polled == PollResult::None {
                return false;
            }
        }
        true
    }

    fn lost_at(&self) -> Option<Micros> {
        if self.end.is_some() {
            return None;
        }
        let patience = if self.state() == State::SynReceived {
            HALF_OPEN_TIMEOUT
        } else {
            self.patience
        };
        self.unanswered.map(|since| since + patience)
    }

    /// Gives up on a peer that has not answered for too long. True when that is so.
    pub fn expire(&mut self, now: Micros) -> bool {
        if self.lost_at().is_none_or(|at| now < at) {
            return false;
        }
        // A SYN from a made-up address: an RST would hit somebody else.
        self.mute = self.state() == State::SynReceived;
        self.finish_with(End::Lost(Loss::TimedOut));
        true
    }

    fn finish_with(&mut self, end: End) {
        self.end = Some(end);
        self.dirty = true;
        self.socket_mut().abort();
    }

    /// When it has to be looked at again ([`Connection::expire`], then [`Connection::send`]), as
    /// of the last call of `send`.
    pub fn deadline(&self) -> Option<Micros> {
        self.deadline
    }

    /// Whether there may be something to send.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Makes [`Connection::is_dirty`] true: a timer is due.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// From the SYN to the SYN-ACK, for connections to replicas.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.filter(|_| self.role == Role::Replica)
    }

    /// Where answers that cannot wait for the next [`Connection::send`] go.
    pub fn set_way(&mut self, way: Way) {
        self.way = Some(way);
    }

    /// Whether the client has not acknowledged the SYN-ACK, or not been sent it.
    pub fn is_half_open(&self) -> bool {
        self.end.is_none() && matches!(self.state(), State::Listen | State::SynReceived)
    }

    /// What TIME-WAIT needs, if that is where it stands.
    pub fn remains(&self) -> Option<Remains> {
        (self.state() == State::TimeWait).then_some(Remains {
            next: self.sent.next,
            expected: self.behind_fin,
            owed: self.sent.acknowledged != self.behind_fin,
        })
    }

    /// Packets lost for want of a frame, since last asked.
    pub fn take_refused(&mut self) -> u32 {
        core::mem::take(&mut self.sent.refused)
    }

    /// Makes a listening connection the one that a SYN cookie has promised: feeds it `syn`, the
    /// client's SYN written anew, and swallows its SYN-ACK. From then on the client's numbers
    /// are translated: it was told `isn`.
    pub fn restore(
        &mut self,
        now: Micros,
        syn: &Segment,
        packet: &mut [u8],
        isn: u32,
        scratch: &mut Scratch,
    ) {
        let mut sink = Sink;
        self.receive(now, syn, packet, &mut sink, scratch);
        self.answer();
        let nowhere = Way {
            port: crate::tables::PortId(0),
            link: LinkHeader {
                destination: [0; 6],
                source: [0; 6],
                vlan: None,
            },
        };
        self.send(now, Some(nowhere), &mut sink, scratch);
        let ours = self.sent.next.wrapping_sub(1);
        self.sent.offset = isn.wrapping_sub(ours);
        self.sent.next = isn.wrapping_add(1);
        self.sent.refused = 0;
    }

    /// The shift of the window fields that a connection with this receive buffer sends.
    pub fn scale(&self) -> u8 {
        scale_of(self.socket().recv_capacity())
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.socket().state()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket();
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("state", &self.state())
            .field("end", &self.end)
            .field("local", &socket.local_endpoint())
            .field("remote", &socket.remote_endpoint())
            .field("readable", &socket.recv_queue())
            .field("unacknowledged", &socket.send_queue())
            .field("dirty", &self.dirty)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Takes every packet and sends none.
pub(in crate::replicate) struct Sink;

impl Transmit for Sink {
    fn transmit(
        &mut self,
        _: crate::tables::PortId,
        _: &LinkHeader,
        _: usize,
        _: impl FnOnce(&mut [u8]),
    ) -> bool {
        // What is not filled in is written to the scratch.
        true
    }
}

fn interface(seed: u64, mtu: u16, now: Micros) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut wire = Wire {
        packet: None,
        out: &mut Sink,
        way: None,
        mtu,
        sent: &mut Sent::default(),
        scratch: &mut Scratch::empty(),
    };
    Interface::new(config, &mut wire, instant(now))
}

fn congestion_control() -> CongestionControl {
    #[cfg(feature = "std")]
    {
        CongestionControl::Cubic
    }
    #[cfg(not(feature = "std"))]
    {
        CongestionControl::Reno
    }
}

/// smoltcp's choice, RFC 7323 section 2.2: the least shift that lets a field of 16 bits tell the
/// whole buffer.
pub(in crate::replicate) fn scale_of(capacity: usize) -> u8 {
    let bits = usize::BITS - capacity.leading_zeros();
    bits.saturating_sub(16) as u8
}

fn instant(now: Micros) -> Instant {
    Instant::from_micros(i64::try_from(now.get()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
