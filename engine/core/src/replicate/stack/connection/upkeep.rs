//! What smoltcp's timers must not do, or leave undone.
//!
//! Its keep-alive carries a made-up byte in front of the next one to be sent. While something is in
//! flight that is a place the peer may not have received yet, and it would take the byte for ours.
//! So probes are ours: without a byte, and only where everything was acknowledged.
//!
//! It also stops its retransmission timer where a peer closes its window in front of what is in
//! flight (a fast retransmission can be longer than the window), and does not start it again when
//! the window opens. Three duplicate acknowledgments then make it retransmit.
//!
//! At the end of TIME-WAIT it forgets what was received and not read. That may be most of a
//! replica's answer, waiting for a client that rests: so that end never comes.

use super::super::device::{Scratch, Transmit, Way, Wire};
use super::super::segment::{Bare, LONGEST_BARE, Segment, SynOptions, transport_of};
use super::{Connection, Sink, instant};
use crate::Micros;
use core::net::SocketAddr;
use core::time::Duration;
use lockstep_wire::TcpFlags;
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpEndpoint;

/// How long something may be in flight without any timer: as long as the first retransmission waits.
const STUCK: Duration = Duration::from_secs(1);

/// How long smoltcp may send in TIME-WAIT: less than the ten seconds after which it forgets.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub keepalive: Duration,
    /// When the peer is probed, if nothing is heard or sent before.
    probe_at: Option<Micros>,
    /// Since when something is in flight without a timer.
    stuck: Option<Micros>,
    /// Bytes written in all.
    pub written: u32,
    /// What the window fields heard are shifted by.
    pub shift: u8,
    /// The window field heard last.
    pub window: u16,
    /// When the last FIN came.
    closed_at: Option<Micros>,
}

impl Upkeep {
    /// Of a connection that is opened.
    pub fn new(keepalive: Duration) -> Self {
        Upkeep {
            keepalive,
            ..Upkeep::default()
        }
    }

    /// A segment has come.
    pub fn hear(&mut self, window: u16) {
        self.window = window;
        self.probe_at = None;
    }

    /// Both FINs were exchanged.
    pub fn close(&mut self, now: Micros) {
        self.closed_at.get_or_insert(now);
    }

    /// Whether smoltcp must not be asked to send any more.
    pub fn is_over(&self, now: Micros) -> bool {
        self.closed_at.is_some_and(|at| now >= at + LAST_WORDS)
    }

    /// When to look again.
    pub fn due(&self) -> Option<Micros> {
        let stuck = self.stuck.map(|since| since + STUCK);
        stuck.into_iter().chain(self.probe_at).min()
    }
}

impl Connection {
    /// Whether a segment may be the peer's: its numbers are near those that were exchanged. An old
    /// one may be, too: it is sent again when our acknowledgments are lost.
    pub fn is_plausible(&self, segment: &Segment) -> bool {
        let socket = self.socket();
        let ahead = segment.sequence.wrapping_sub(self.sent.acknowledged) as i32;
        let unacknowledged = self.sent.next.wrapping_sub(segment.acknowledgment);
        segment.flags.contains(TcpFlags::ACK)
            && ahead.unsigned_abs() as usize <= socket.recv_capacity() + 1
            && unacknowledged as usize <= socket.send_capacity() + 1
    }

    /// After smoltcp has sent what it had to. True when it has to be asked again.
    pub(super) fn tend(
        &mut self,
        now: Micros,
        out: &mut impl Transmit,
        scratch: &mut Scratch,
    ) -> bool {
        let fin_is_out = match self.state() {
            State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait | State::FinWait2 => false,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::TimeWait => {
                self.upkeep.probe_at = None;
                self.upkeep.stuck = None;
                return false;
            }
        };
        if !fin_is_out && self.socket().send_queue() == 0 {
            self.upkeep.stuck = None;
            self.probe(now, out);
            return false;
        }
        self.upkeep.probe_at = None;
        if self
            .interface
            .poll_at(instant(now), &self.sockets)
            .is_some()
        {
            self.upkeep.stuck = None;
            return false;
        }
        let since = *self.upkeep.stuck.get_or_insert(now);
        let due = now >= since + STUCK;
        if !due {
            return false;
        }
        self.upkeep.stuck = None;
        if self.socket().send_queue() == 0 {
            // Its fast retransmission is of data: a FIN alone would stay without a timer.
            self.bare(now, TcpFlags::FIN | TcpFlags::ACK, out);
            self.upkeep.stuck = Some(now);
            return false;
        }
        self.knock(now, scratch);
        true
    }

    /// Asks an idle peer whether it is there: an old sequence number calls for an acknowledgment
    /// (RFC 9293 section 3.8.4).
    fn probe(&mut self, now: Micros, out: &mut impl Transmit) {
        let at = *self
            .upkeep
            .probe_at
            .get_or_insert(now + self.upkeep.keepalive);
        if now >= at {
            self.upkeep.probe_at = Some(now + self.upkeep.keepalive);
            self.bare(now, TcpFlags::ACK, out);
        }
    }

    /// Sends a segment with the last sequence number there was, so that the peer answers.
    fn bare(&mut self, now: Micros, flags: TcpFlags, out: &mut impl Transmit) {
        let (Some((local, remote)), Some(way)) = (self.ends(), self.way) else {
            return;
        };
        self.unanswered.get_or_insert(now);
        let bare = Bare {
            source: local,
            destination: remote,
            sequence: self.sent.next.wrapping_sub(1),
            acknowledgment: self.sent.acknowledged,
            flags,
            window: self.sent.window,
            options: SynOptions::default(),
        };
        let Way { port, link } = way;
        if !out.transmit(port, &link, bare.length(), |packet| bare.write(packet)) {
            self.sent.refused += 1;
        }
    }

    /// Has smoltcp hear the last acknowledgment again, often enough to retransmit what is behind
    /// it. Another window first: that begins a new count of duplicates.
    fn knock(&mut self, now: Micros, scratch: &mut Scratch) {
        let Some((local, remote)) = self.ends() else {
            return;
        };
        let queued = self.socket().send_queue() as u32;
        let behind = self.sent.first.wrapping_add(1);
        let acknowledged = behind
            .wrapping_add(self.upkeep.written)
            .wrapping_sub(queued);
        let window = self.upkeep.window;
        for window in [window ^ 1, window, window, window, window] {
            let again = Bare {
                source: remote,
                destination: local,
                sequence: self.sent.acknowledged,
                acknowledgment: acknowledged,
                flags: TcpFlags::ACK,
                window,
                options: SynOptions::default(),
            };
            let mut bytes = [0; LONGEST_BARE];
            let packet = &mut bytes[..again.length()];
            again.write(packet);
            debug_assert!(transport_of(packet) < packet.len());
            let mut sink = Sink;
            let mut wire = Wire {
                packet: Some(packet),
                out: &mut sink,
                way: None,
                mtu: self.mtu,
                sent: &mut self.sent,
                scratch,
            };
            self.interface
                .poll_ingress_single(instant(now), &mut wire, &mut self.sockets);
        }
    }

    /// Our address and port, and the peer's.
    fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let socket = self.socket();
        let address = |end: IpEndpoint| SocketAddr::new(end.addr.into(), end.port);
        let (local, remote) = (socket.local_endpoint()?, socket.remote_endpoint()?);
        Some((address(local), address(remote)))
    }
}
