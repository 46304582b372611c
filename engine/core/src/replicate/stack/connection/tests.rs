use super::*;
use crate::replicate::leg::{Leg, Phase};
use crate::replicate::stack::peer::{Peer, Wiretap, frame, scratch, way};
use crate::replicate::stack::pool::Pool;
use smoltcp::iface::SocketHandle;
use std::vec::Vec;

const HERE4: &str = "203.0.113.10";
const THERE4: &str = "198.51.100.7";
const HERE6: &str = "2001:db8::10";
const THERE6: &str = "2001:db8:1::7";

fn options() -> Options {
    Options {
        mtu: 1_500,
        keepalive: Duration::from_secs(15),
        patience: Duration::from_secs(3),
        seed: 42,
    }
}

fn connection() -> Connection {
    *Pool::new(1, 16_384).take().unwrap()
}

/// A connection of ours and its peer, on a wire without loss.
struct Pair {
    ours: Connection,
    peer: Peer,
    socket: SocketHandle,
    now: Micros,
    out: Wiretap,
    scratch: Scratch,
}

impl Pair {
    /// Accepted by us.
    fn accepted(here: &str, there: &str) -> Pair {
        let here = SocketAddr::new(here.parse().unwrap(), 80);
        let mut ours = connection();
        assert!(ours.listen(Micros::ZERO, here, &options()));
        let mut peer = Peer::new(there, 7);
        let socket = peer.connect(4_000, here, 65_536);
        Pair::of(ours, peer, socket)
    }

    /// Opened by us.
    fn connected(here: &str, there: &str) -> Pair {
        let here = SocketAddr::new(here.parse().unwrap(), 20_000);
        let remote = SocketAddr::new(there.parse().unwrap(), 80);
        let mut ours = connection();
        assert!(ours.connect(Micros::ZERO, here, remote, &options()));
        let mut peer = Peer::new(there, 7);
        let socket = peer.listen(80, 65_536);
        Pair::of(ours, peer, socket)
    }

    fn of(ours: Connection, peer: Peer, socket: SocketHandle) -> Pair {
        Pair {
            ours,
            peer,
            socket,
            now: Micros::new(1_000),
            out: Wiretap::default(),
            scratch: scratch(),
        }
    }

    fn receive(&mut self, packet: &[u8]) {
        let mut frame = frame(packet);
        let headers = lockstep_wire::parse(&frame).unwrap();
        let network = usize::from(headers.network);
        let packet = &mut frame[network..];
        let segment = Segment::read(&headers, packet).expect("a good checksum");
        self.ours
            .receive(self.now, &segment, packet, &mut self.out, &mut self.scratch);
    }

    fn send(&mut self) {
        self.ours
            .send(self.now, Some(way()), &mut self.out, &mut self.scratch);
    }

    /// One trip both ways; how many packets went.
    fn round(&mut self) -> usize {
        let packets = self.peer.poll(self.now);
        let mut count = packets.len();
        for packet in packets {
            self.receive(&packet);
        }
        self.ours.expire(self.now);
        self.send();
        for packet in self.out.packets.drain(..) {
            self.peer.deliver(packet);
            count += 1;
        }
        self.now = self.now + Duration::from_millis(1);
        count
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.round();
        }
    }

    fn open(mut self) -> Pair {
        self.round();
        if self.ours.role == Role::Client {
            self.ours.answer();
        }
        self.settle();
        assert_eq!(self.ours.phase(), Phase::Open);
        assert_eq!(self.peer.state(self.socket), State::Established);
        self
    }

    fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.ours.readable() > 0 {
            let piece = self.ours.front().to_vec();
            self.ours.consume(piece.len());
            bytes.extend(piece);
        }
        bytes
    }
}

#[test]
fn bytes_go_both_ways_over_both_ip_versions_whoever_opens() {
    for (here, there) in [(HERE4, THERE4), (HERE6, THERE6)] {
        for pair in [Pair::accepted(here, there), Pair::connected(here, there)] {
            let mut pair = pair.open();
            let sent: Vec<u8> = (0..100_000u32).map(|n| (n * 7) as u8).collect();
            let (mut to_us, mut to_peer) = (Vec::new(), Vec::new());
            let (mut theirs, mut ours) = (0, 0);
            for _ in 0..400 {
                theirs += pair.peer.write(pair.socket, &sent[theirs..]);
                ours += pair.ours.write(&sent[ours..]);
                pair.round();
                to_us.extend(pair.take());
                to_peer.extend(pair.peer.read(pair.socket));
            }
            assert_eq!(to_us.len(), sent.len());
            assert!(to_us == sent && to_peer == sent);
            assert_eq!(pair.ours.unacknowledged(), 0);
        }
    }
}

#[test]
fn the_syn_ack_waits_for_the_answer() {
    let mut pair = Pair::accepted(HERE4, THERE4);
    for _ in 0..5 {
        pair.round();
    }
    assert_eq!(pair.peer.state(pair.socket), State::SynSent);
    assert_eq!(pair.ours.phase(), Phase::Opening);
    assert_eq!(pair.ours.deadline(), None);
    pair.ours.answer();
    pair.settle();
    assert_eq!(pair.peer.state(pair.socket), State::Established);
}

#[test]
fn closing_from_either_side_ends_closed_and_only_ours_first_leaves_remains() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.ours.finish();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Open);
    pair.peer.get(pair.socket).close();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Closed);
    assert!(pair.ours.is_finished());
    assert!(pair.ours.remains().is_some());

    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.peer.write(pair.socket, b"last words");
    pair.peer.get(pair.socket).close();
    pair.settle();
    assert!(!pair.ours.is_finished());
    assert_eq!(pair.take(), b"last words");
    assert!(pair.ours.is_finished());
    assert_eq!(pair.ours.phase(), Phase::Open);
    pair.ours.finish();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Closed);
    assert_eq!(pair.ours.remains(), None);
}

#[test]
fn a_reset_leaves_what_had_arrived() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.peer.write(pair.socket, b"half a");
    pair.settle();
    pair.peer.get(pair.socket).abort();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Lost(Loss::Reset));
    assert_eq!(pair.take(), b"half a");
    assert!(!pair.ours.is_finished());
    assert_eq!(pair.ours.room(), 0);
}

#[test]
fn a_client_that_resets_before_it_is_answered_is_lost() {
    let mut pair = Pair::accepted(HERE4, THERE4);
    pair.round();
    pair.ours.answer();
    pair.round();
    pair.peer.get(pair.socket).abort();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Lost(Loss::Reset));
}

#[test]
fn a_closed_port_refuses() {
    let mut pair = Pair::connected(HERE4, THERE4);
    pair.peer.get(pair.socket).close();
    pair.settle();
    assert_eq!(pair.ours.phase(), Phase::Lost(Loss::Refused));
}

#[test]
fn an_abort_resets_the_peer() {
    for mut pair in [
        Pair::connected(HERE4, THERE4).open(),
        Pair::accepted(HERE6, THERE6).open(),
    ] {
        pair.ours.abort();
        assert_eq!(pair.ours.phase(), Phase::Lost(Loss::Aborted));
        pair.settle();
        assert_eq!(pair.peer.state(pair.socket), State::Closed);
    }
}

#[test]
fn refusing_an_unanswered_client_resets_it() {
    let mut pair = Pair::accepted(HERE4, THERE4);
    pair.round();
    pair.ours.abort();
    pair.settle();
    assert_eq!(pair.peer.state(pair.socket), State::Closed);
}

/// Runs our side alone until it gives up.
fn runs_into(mut pair: Pair) -> Duration {
    pair.out.packets.clear();
    let start = pair.now;
    while !pair.ours.expire(pair.now) {
        pair.send();
        let packets = pair.out.packets.len();
        assert!(packets < 50, "{packets} packets");
        let next = pair.ours.deadline().expect("it waits for something");
        assert!(next > pair.now);
        pair.now = next;
    }
    assert_eq!(pair.ours.phase(), Phase::Lost(Loss::TimedOut));
    pair.now.since(start)
}

#[test]
fn a_silent_peer_is_lost_after_our_patience_and_an_idle_one_is_not() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.ours.write(b"hello?");
    assert_eq!(runs_into(pair), Duration::from_secs(3));
    let pair = Pair::connected(HERE4, THERE4);
    assert_eq!(runs_into(pair), Duration::from_secs(3));
    // Probed after 15 s.
    let pair = Pair::connected(HERE4, THERE4).open();
    let took = runs_into(pair);
    assert!(
        took > Duration::from_secs(17) && took <= Duration::from_secs(18),
        "{took:?}"
    );
}

#[test]
fn a_peer_with_a_closed_window_answers_probes_and_stays() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    let start = pair.now;
    let mut written = 0;
    while pair.now.since(start) < Duration::from_secs(100) {
        written += pair.ours.write(&[7; 10_000]);
        pair.round();
        let idle = Duration::from_millis(9);
        pair.now = pair.now + idle;
    }
    assert_eq!(pair.ours.phase(), Phase::Open);
    assert_eq!(written, 65_536 + 16_384);
    pair.peer.read(pair.socket);
    for _ in 0..12_000 {
        pair.round();
        pair.now = pair.now + Duration::from_millis(9);
        pair.peer.read(pair.socket);
    }
    assert_eq!(pair.ours.unacknowledged(), 0);
}

#[test]
fn a_half_open_client_is_given_up_in_silence() {
    let mut pair = Pair::accepted(HERE4, THERE4);
    for packet in pair.peer.poll(pair.now) {
        pair.receive(&packet);
    }
    pair.ours.answer();
    pair.send();
    pair.out.packets.clear();
    while !pair.ours.expire(pair.now) {
        pair.send();
        pair.now = pair.ours.deadline().unwrap();
    }
    // SYN-ACKs after 1, 3 and 7 s.
    assert_eq!(pair.out.packets.len(), 3);
    assert!(
        !pair
            .ours
            .send(pair.now, Some(way()), &mut pair.out, &mut pair.scratch)
    );
    assert_eq!(pair.out.packets.len(), 3);
}

/// An ACK with the peer's addresses and numbers that are not its own.
fn forged() -> Vec<u8> {
    use crate::replicate::stack::segment::{Bare, fill_checksums};
    let bare = Bare {
        source: SocketAddr::new(THERE4.parse().unwrap(), 4_000),
        destination: SocketAddr::new(HERE4.parse().unwrap(), 80),
        sequence: 0x7000_0000,
        acknowledgment: 77,
        flags: TcpFlags::ACK,
        window: 500,
        options: SynOptions::default(),
    };
    let mut packet = std::vec![0; bare.length()];
    bare.write(&mut packet);
    let checksums = [10..12, 36..38];
    checksums.into_iter().for_each(|at| packet[at].fill(0));
    fill_checksums(&mut packet);
    packet
}

#[test]
fn segments_in_the_peer_s_name_with_wrong_numbers_are_no_sign_of_life() {
    // A client that was answered and does not acknowledge; then one that was lost later.
    for open in [false, true] {
        let mut pair = Pair::accepted(HERE4, THERE4);
        if open {
            pair = pair.open();
            pair.ours.write(b"are you there?");
        } else {
            for packet in pair.peer.poll(pair.now) {
                pair.receive(&packet);
            }
            pair.ours.answer();
        }
        pair.send();
        let start = pair.now;
        while !pair.ours.expire(pair.now) {
            assert!(pair.now.since(start) < Duration::from_secs(12), "{open}");
            pair.now = pair.now + Duration::from_millis(500);
            pair.receive(&forged());
            pair.send();
        }
    }
}

#[test]
fn a_burst_is_acknowledged_once() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    // Open the peer's congestion window.
    for _ in 0..20 {
        pair.peer.write(pair.socket, &[1; 8_000]);
        pair.settle();
        pair.take();
    }
    pair.peer.write(pair.socket, &[1; 8_000]);
    let packets = pair.peer.poll(pair.now);
    assert!(packets.len() >= 5, "{}", packets.len());
    for packet in packets {
        pair.receive(&packet);
    }
    assert_eq!(pair.take().len(), 8_000);
    assert_eq!(pair.out.packets.len(), 0);
    pair.send();
    assert_eq!(pair.out.packets.len(), 1);
}

#[test]
fn nothing_is_lost_while_there_is_no_room_to_send() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.ours.write(b"wait for me");
    pair.out.full = true;
    pair.send();
    assert!(pair.ours.is_dirty());
    pair.out.full = false;
    let before = pair.now;
    pair.settle();
    assert_eq!(pair.peer.read(pair.socket), b"wait for me");
    assert!(pair.now.since(before) < Duration::from_millis(100));
}

#[test]
fn without_a_way_a_peer_is_lost_as_if_it_were_silent() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.ours.write(b"anybody?");
    let start = pair.now;
    while matches!(pair.ours.phase(), Phase::Open) {
        pair.ours.expire(pair.now);
        pair.ours
            .send(pair.now, None, &mut pair.out, &mut pair.scratch);
        pair.now = pair.now + Duration::from_millis(1);
        assert!(pair.now.since(start) < Duration::from_secs(4));
    }
    assert_eq!(pair.ours.phase(), Phase::Lost(Loss::TimedOut));
}

#[test]
fn a_connection_is_as_new_after_any_end() {
    let mut pair = Pair::connected(HERE4, THERE4).open();
    pair.ours.write(&[1; 5_000]);
    pair.peer.write(pair.socket, &[2; 5_000]);
    pair.settle();
    pair.ours.abort();
    for round in 0..20u64 {
        let mut ours = pair.ours;
        let here = SocketAddr::new(HERE6.parse().unwrap(), 81);
        let fresh = Options {
            seed: round,
            ..options()
        };
        assert!(ours.listen(pair.now, here, &fresh));
        assert_eq!((ours.readable(), ours.unacknowledged()), (0, 0));
        let mut peer = Peer::new(THERE6, round);
        let socket = peer.connect(4_000, here, 65_536);
        let now = pair.now;
        pair = Pair::of(ours, peer, socket);
        pair.now = now;
        pair = pair.open();
        pair.peer.write(pair.socket, b"again");
        pair.settle();
        assert_eq!(pair.take(), b"again");
        match round % 3 {
            0 => pair.ours.abort(),
            1 => pair.peer.get(pair.socket).abort(),
            _ => pair.ours.finish(),
        }
        pair.settle();
    }
}

#[test]
fn a_cookie_becomes_a_connection_with_other_numbers() {
    for (here, there) in [(HERE4, THERE4), (HERE6, THERE6)] {
        let here = SocketAddr::new(here.parse().unwrap(), 80);
        let mut peer = Peer::new(there, 9);
        let socket = peer.connect(4_000, here, 65_536);
        let mut pair = Pair::of(connection(), peer, socket);
        let syn = pair.peer.poll(pair.now).remove(0);
        let mut frame = frame(&syn);
        let headers = lockstep_wire::parse(&frame).unwrap();
        let packet = &mut frame[usize::from(headers.network)..];
        let segment = Segment::read(&headers, packet).unwrap();
        assert!(segment.is_opening());
        let said = SynOptions::read(&packet[segment.transport..]);
        let isn = 0xffff_fff0;
        let answer = super::super::segment::Bare {
            source: here,
            destination: segment.source(),
            sequence: isn,
            acknowledgment: segment.sequence.wrapping_add(1),
            flags: TcpFlags::SYN | TcpFlags::ACK,
            window: 16_384,
            options: SynOptions {
                mss: Some(1_440),
                scale: said.scale.map(|_| pair.ours.scale()),
                sack: said.sack,
            },
        };
        let mut bytes = std::vec![0; answer.length()];
        answer.write(&mut bytes);
        pair.peer.deliver(bytes);
        // The cookie comes back, and only now is there a connection.
        assert!(pair.ours.listen(pair.now, here, &options()));
        let mut syn = syn.clone();
        pair.ours
            .restore(pair.now, &segment, &mut syn, isn, &mut pair.scratch);
        pair.settle();
        assert_eq!(pair.ours.phase(), Phase::Open);
        let sent: Vec<u8> = (0..60_000u32).map(|n| (n * 13) as u8).collect();
        let (mut to_us, mut to_peer) = (Vec::new(), Vec::new());
        let (mut theirs, mut ours) = (0, 0);
        for _ in 0..300 {
            theirs += pair.peer.write(pair.socket, &sent[theirs..]);
            ours += pair.ours.write(&sent[ours..]);
            pair.round();
            to_us.extend(pair.take());
            to_peer.extend(pair.peer.read(pair.socket));
        }
        assert!(to_us == sent && to_peer == sent);
        pair.ours.finish();
        pair.peer.get(pair.socket).close();
        pair.settle();
        assert_eq!(pair.ours.phase(), Phase::Closed);
        assert_eq!(pair.peer.state(pair.socket), State::TimeWait);
    }
}

#[test]
fn hostile_segments_break_nothing() {
    use crate::replicate::stack::segment::{Bare, fill_checksums};
    for seed in 0..300u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = move |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % sides
        };
        let mut pair = if seed % 2 == 0 {
            Pair::accepted(HERE4, THERE4)
        } else {
            Pair::connected(HERE4, THERE4)
        };
        if roll(4) > 0 {
            pair = pair.open();
        } else {
            pair.round();
        }
        let (local, remote) = if seed % 2 == 0 {
            (
                SocketAddr::new(HERE4.parse().unwrap(), 80),
                SocketAddr::new(THERE4.parse().unwrap(), 4_000),
            )
        } else {
            (
                SocketAddr::new(HERE4.parse().unwrap(), 20_000),
                SocketAddr::new(THERE4.parse().unwrap(), 80),
            )
        };
        let mut theirs = pair.ours.sent.acknowledged;
        for _ in 0..400 {
            let near = |roll: &mut dyn FnMut(u64) -> u64, base: u32| match roll(8) {
                0 => base,
                1 => base.wrapping_add(roll(20_000) as u32),
                2 => base.wrapping_sub(roll(20_000) as u32),
                3 => base.wrapping_add(1 << 31).wrapping_add(roll(3) as u32),
                4 => roll(1 << 32) as u32,
                _ => base.wrapping_add(roll(4) as u32).wrapping_sub(1),
            };
            let flags = match roll(12) {
                0 => TcpFlags::SYN,
                1 => TcpFlags::SYN | TcpFlags::ACK,
                2 => TcpFlags::FIN | TcpFlags::ACK,
                3 if roll(8) == 0 => TcpFlags::RST | TcpFlags::ACK,
                4 => TcpFlags::from_bits(roll(256) as u8 & !4),
                _ => TcpFlags::ACK,
            };
            let acked = pair.ours.sent.acknowledged;
            if roll(3) == 0 {
                theirs = acked;
            }
            let bare = Bare {
                source: remote,
                destination: local,
                sequence: near(&mut roll, theirs),
                acknowledgment: near(&mut roll, pair.ours.sent.next),
                flags,
                window: [0, 1, 500, 65_535][roll(4) as usize],
                options: SynOptions {
                    mss: Some([0, 1, 536, 1_460, 65_535][roll(5) as usize]),
                    scale: Some(roll(16) as u8),
                    sack: roll(2) == 0,
                },
            };
            let length = bare.length();
            let payload = if roll(2) == 0 {
                roll(1_400) as usize
            } else {
                0
            };
            let mut packet = std::vec![0x55; length + payload];
            bare.write(&mut packet[..length]);
            let total = (packet.len() as u16).to_be_bytes();
            packet[2..4].copy_from_slice(&total);
            packet[10..12].fill(0);
            packet[36..38].fill(0);
            fill_checksums(&mut packet);
            theirs = theirs.wrapping_add(if roll(2) == 0 { payload as u32 } else { 0 });
            pair.receive(&packet);
            match roll(8) {
                0 => {
                    pair.ours.write(&std::vec![7; roll(20_000) as usize]);
                }
                1 if roll(30) == 0 => pair.ours.finish(),
                2 => {
                    let n = pair.ours.front().len();
                    let n = roll(n as u64 + 1) as usize;
                    pair.ours.consume(n);
                }
                3 => pair.out.full = roll(4) == 0,
                4 => pair.ours.answer(),
                _ => {}
            }
            pair.now = pair.now
                + Duration::from_micros([0, 100, 6_000, 300_000, 1_500_000][roll(5) as usize]);
            if roll(2) == 0 {
                pair.ours.expire(pair.now);
                pair.send();
            }
            pair.out.packets.clear();
        }
    }
}
