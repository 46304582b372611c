//! Connections that begin with a cookie, packet by packet, for both IP versions.

mod bounds;
mod streams;

use super::SCALE;
use crate::dataplane::nat::tests::{
    INSIDE, OUTSIDE, T0, at_port, config, process, rewriting, with,
};
use crate::dataplane::{Dataplane, Verdict};
use crate::fixtures::{BALANCER_MAC, CLIENT_MAC, ROUTER_MAC, compile};
use crate::tables::{PortId, Tables};
use crate::time::Micros;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use etherparse::TcpOptionElement::{
    self, MaximumSegmentSize, SelectiveAcknowledgement, SelectiveAcknowledgementPermitted,
    Timestamp, WindowScale,
};
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader,
};
use lockstep_plan::{DropReason, Mode, Service};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

/// The number of the client's SYN: the next one wraps around.
const CLIENT_ISN: u32 = 0xffff_ffff;
const BACKEND_ISN: u32 = 0xffff_fff0;

/// The ends of a row.
#[derive(Debug, Clone, Copy)]
struct Ends {
    client: &'static str,
    vip: &'static str,
    backend: &'static str,
}

const V4: Ends = Ends {
    client: "198.51.100.7:40000",
    vip: "203.0.113.10:80",
    backend: "10.0.0.1",
};
const V6: Ends = Ends {
    client: "[2001:db8:1::7]:40000",
    vip: "[2001:db8::10]:80",
    backend: "fd00::1",
};

/// A TCP segment as the tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seg {
    from: SocketAddr,
    to: SocketAddr,
    /// Any of `SAFR`.
    flags: String,
    sequence: u32,
    acknowledgment: u32,
    window: u16,
    options: Vec<TcpOptionElement>,
    payload: Vec<u8>,
}

impl Seg {
    fn new(from: &str, to: &str, flags: &str, sequence: u32, acknowledgment: u32) -> Self {
        Seg {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            flags: flags.to_string(),
            sequence,
            acknowledgment,
            window: 1_000,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    fn window(self, window: u16) -> Self {
        Seg { window, ..self }
    }

    fn options(self, options: &[TcpOptionElement]) -> Self {
        Seg {
            options: options.to_vec(),
            ..self
        }
    }

    fn payload(self, payload: &[u8]) -> Self {
        Seg {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// Its bytes by etherparse, as long as a worker makes them while cookies are out.
    fn frame(&self, from: [u8; 6]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(from, BALANCER_MAC);
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("one IP version in a packet"),
        };
        let (from, to) = (self.from.port(), self.to.port());
        let mut tcp = ip.tcp(from, to, self.sequence, self.window);
        for flag in self.flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'A' => tcp.ack(self.acknowledgment),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                other => panic!("no flag {other}"),
            };
        }
        let mut bytes = Vec::new();
        let tcp = tcp.options(&self.options).unwrap();
        tcp.write(&mut bytes, &self.payload).unwrap();
        bytes.resize(bytes.len().max(super::LONGEST), 0);
        bytes
    }

    /// Reads a frame with etherparse; its checksums have to be right.
    fn read(frame: &[u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = headers.payload.slice().to_vec();
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("not TCP");
        };
        let (from, to, sum): (IpAddr, IpAddr, _) = match headers.net.unwrap() {
            NetHeaders::Ipv4(v4, _) => {
                assert_eq!(v4.calc_header_checksum(), v4.header_checksum);
                let sum = tcp.calc_checksum_ipv4(&v4, &payload);
                (v4.source.into(), v4.destination.into(), sum)
            }
            NetHeaders::Ipv6(v6, _) => {
                let sum = tcp.calc_checksum_ipv6(&v6, &payload);
                (v6.source.into(), v6.destination.into(), sum)
            }
            NetHeaders::Arp(_) => panic!("not IP"),
        };
        assert_eq!(tcp.checksum, sum.unwrap());
        let flags = [
            (tcp.syn, 'S'),
            (tcp.ack, 'A'),
            (tcp.fin, 'F'),
            (tcp.rst, 'R'),
        ];
        let options = tcp.options_iterator().map(Result::unwrap);
        let options = options.filter(|option| *option != TcpOptionElement::Noop);
        Seg {
            from: (from, tcp.source_port).into(),
            to: (to, tcp.destination_port).into(),
            flags: flags.iter().filter(|f| f.0).map(|f| f.1).collect(),
            sequence: tcp.sequence_number,
            acknowledgment: tcp.acknowledgment_number,
            window: tcp.window_size,
            options: options.collect(),
            payload,
        }
    }
}

/// A service of one backend, whose half-open flows are as many as it may have.
struct World {
    dataplane: Dataplane,
    ends: Ends,
    now: Micros,
}

impl World {
    fn new(ends: Ends) -> Self {
        World::of(ends, service(ends))
    }

    fn of(ends: Ends, service: Service) -> Self {
        let tables = compile(&Tables::default(), 1, vec![service]);
        World {
            dataplane: with(config(1_024..=16_383), tables),
            ends,
            now: T0,
        }
    }

    /// As many SYNs as make cookies of those that follow, the first of them answered.
    fn pressed(ends: Ends) -> Self {
        let mut world = World::new(ends);
        world.press();
        world
    }

    fn press(&mut self) {
        for n in 0..62 {
            let syn = self.syn_of(50_000 + n);
            let out = self.at_backend(&syn);
            if n == 0 {
                let answer = self.answer(&out, 1).options(&[MaximumSegmentSize(1_400)]);
                self.forwarded(INSIDE, &answer);
            }
        }
    }

    fn syn_of(&self, port: u16) -> Seg {
        let mut syn = Seg::new(self.ends.client, self.ends.vip, "S", CLIENT_ISN, 0);
        syn.from.set_port(port);
        syn
    }

    /// The SYN-ACK for a SYN, from the backend.
    fn answer(&self, syn: &Seg, sequence: u32) -> Seg {
        Seg {
            from: syn.to,
            to: syn.from,
            flags: "SA".to_string(),
            sequence,
            acknowledgment: syn.sequence.wrapping_add(1),
            window: 64_000,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    fn client(&self, flags: &str, sequence: u32, acknowledgment: u32) -> Seg {
        Seg::new(
            self.ends.client,
            self.ends.vip,
            flags,
            sequence,
            acknowledgment,
        )
    }

    fn send(&mut self, port: PortId, seg: &Seg) -> (Verdict, Vec<u8>) {
        let mac = if port == OUTSIDE {
            CLIENT_MAC
        } else {
            ROUTER_MAC
        };
        process(&mut self.dataplane, self.now, port, &seg.frame(mac))
    }

    fn forwarded(&mut self, port: PortId, seg: &Seg) -> (PortId, [u8; 12], Seg) {
        match self.send(port, seg) {
            (Verdict::Forward { port, .. }, frame) => {
                let macs = *frame.first_chunk().unwrap();
                (port, macs, Seg::read(&frame))
            }
            (verdict, _) => panic!("{verdict:?} for {seg:?}"),
        }
    }

    fn at_backend(&mut self, seg: &Seg) -> Seg {
        let (port, macs, out) = self.forwarded(OUTSIDE, seg);
        assert_eq!(
            (port, macs),
            (
                INSIDE,
                [ROUTER_MAC, BALANCER_MAC].concat().try_into().unwrap()
            )
        );
        out
    }

    fn at_client(&mut self, seg: &Seg) -> Seg {
        let (port, macs, out) = self.forwarded(INSIDE, seg);
        assert_eq!(
            (port, macs),
            (
                OUTSIDE,
                [CLIENT_MAC, BALANCER_MAC].concat().try_into().unwrap()
            )
        );
        assert_eq!((out.from, out.to), self.outside());
        out
    }

    /// What the engine answers a client itself.
    fn back(&mut self, seg: &Seg) -> Seg {
        let (port, macs, out) = self.forwarded(OUTSIDE, seg);
        assert_eq!(
            (port, macs),
            (
                OUTSIDE,
                [CLIENT_MAC, BALANCER_MAC].concat().try_into().unwrap()
            )
        );
        out
    }

    fn dropped(&mut self, port: PortId, seg: &Seg) -> DropReason {
        match self.send(port, seg) {
            (Verdict::Drop(reason), _) => reason,
            (verdict, _) => panic!("{verdict:?} for {seg:?}"),
        }
    }

    fn outside(&self) -> (SocketAddr, SocketAddr) {
        (
            self.ends.vip.parse().unwrap(),
            self.ends.client.parse().unwrap(),
        )
    }

    fn counts(&self) -> (u64, u64) {
        let counters = self.dataplane.counters();
        (counters.cookies_sent.get(), counters.cookies_accepted.get())
    }

    fn splices(&self) -> usize {
        self.dataplane.flows_v4().splices() + self.dataplane.flows_v6().splices()
    }

    fn flows(&self) -> usize {
        self.dataplane.flows_v4().len() + self.dataplane.flows_v6().len()
    }

    /// The SYN-ACK that a SYN with these options gets.
    fn cookie(&mut self, options: &[TcpOptionElement]) -> Seg {
        let syn = self.client("S", CLIENT_ISN, 0).options(options);
        let flows = self.flows();
        let answer = self.back(&syn);
        assert_eq!(self.flows(), flows, "nothing is remembered");
        assert_eq!((answer.from, answer.to), (syn.to, syn.from));
        assert_eq!(answer.flags, "SA");
        assert_eq!(answer.acknowledgment, CLIENT_ISN.wrapping_add(1));
        answer
    }

    /// Brings a connection as far as the backend's SYN: it, and the cookie.
    fn opening(&mut self, options: &[TcpOptionElement]) -> (Seg, u32) {
        let cookie = self.cookie(options).sequence;
        let ack = self.client("A", CLIENT_ISN.wrapping_add(1), cookie.wrapping_add(1));
        (self.at_backend(&ack), cookie)
    }

    /// And until both are connected: the backend's SYN, and the cookie.
    fn open(&mut self, options: &[TcpOptionElement], answer: &[TcpOptionElement]) -> (Seg, u32) {
        let (syn, cookie) = self.opening(options);
        let answer = self.answer(&syn, BACKEND_ISN).options(answer);
        self.at_client(&answer);
        (syn, cookie)
    }
}

fn service(ends: Ends) -> Service {
    let vip = format!("{}/tcp", ends.vip);
    rewriting(Mode::FullNat, &[&vip], vec![at_port(ends.backend, 8080)])
}

/// What most clients say.
const USUAL: [TcpOptionElement; 4] = [
    MaximumSegmentSize(1_460),
    SelectiveAcknowledgementPermitted,
    Timestamp(1, 0),
    WindowScale(9),
];

#[test]
fn a_client_shows_that_it_is_there_before_its_backend_hears_of_it() {
    for ends in [V4, V6] {
        let mut w = World::pressed(ends);
        let answer = w.cookie(&USUAL);
        let promised = [
            MaximumSegmentSize(1_400),
            WindowScale(SCALE),
            SelectiveAcknowledgementPermitted,
        ];
        assert_eq!((&answer.options[..], answer.window), (&promised[..], 0));
        assert_eq!(w.counts(), (1, 0));
        let cookie = answer.sequence;

        // The ACK opens the backend's connection, with what the SYN said but for timestamps.
        let ack = w.client("A", 0, cookie.wrapping_add(1)).window(100);
        let syn = w.at_backend(&ack);
        assert_eq!((syn.flags.as_str(), syn.sequence), ("S", CLIENT_ISN));
        assert_eq!(syn.to, SocketAddr::new(ends.backend.parse().unwrap(), 8080));
        assert_eq!(syn.window, 100 << 9);
        let said = [
            MaximumSegmentSize(1_460 - if ends.vip == V6.vip { 20 } else { 0 }),
            WindowScale(9),
            SelectiveAcknowledgementPermitted,
        ];
        assert_eq!(syn.options, said);
        assert_eq!((w.counts(), w.splices()), ((1, 1), 1));

        // Its answer opens the client's window, with a byte that wants an answer.
        let options = [
            MaximumSegmentSize(1_400),
            WindowScale(SCALE),
            SelectiveAcknowledgementPermitted,
        ];
        let answer = w.answer(&syn, BACKEND_ISN).options(&options);
        let probe = w.at_client(&answer);
        assert_eq!((probe.flags.as_str(), probe.sequence), ("A", cookie));
        assert_eq!((probe.acknowledgment, probe.payload.len()), (0, 1));
        assert_eq!((probe.window, &probe.options), (64_000 >> SCALE, &vec![]));

        // The client's answer is the ACK that the backend waits for.
        let ack = w.client("A", 0, cookie.wrapping_add(1)).payload(b"GET /");
        let out = w.at_backend(&ack);
        assert_eq!((out.from, out.to), (syn.from, syn.to));
        assert_eq!(
            (out.sequence, out.acknowledgment),
            (0, BACKEND_ISN.wrapping_add(1))
        );
        assert_eq!((out.window, &out.payload[..]), (1_000, &b"GET /"[..]));

        // Data, twenty bytes on: over the end of the numbers.
        let data = Seg {
            flags: "A".to_string(),
            sequence: BACKEND_ISN.wrapping_add(21),
            acknowledgment: 5,
            options: vec![SelectiveAcknowledgement((10, 20), [None; 3])],
            ..answer.clone()
        };
        let back = w.at_client(&data.payload(b"200 OK"));
        assert_eq!(back.sequence, cookie.wrapping_add(21));
        assert_eq!((back.acknowledgment, back.window), (5, 64_000));
        // What the backend says of the client's numbers is right as it is.
        assert_eq!(
            back.options,
            [SelectiveAcknowledgement((10, 20), [None; 3])]
        );

        let blocks = |isn: u32| {
            let edges = (isn.wrapping_add(21), isn.wrapping_add(27));
            [SelectiveAcknowledgement(edges, [Some(edges), None, None])]
        };
        let sack = w
            .client("A", 5, cookie.wrapping_add(1))
            .options(&blocks(cookie));
        assert_eq!(w.at_backend(&sack).options, blocks(BACKEND_ISN));

        // Both end.
        let fin = w.client("FA", 5, cookie.wrapping_add(27));
        assert_eq!(
            w.at_backend(&fin).acknowledgment,
            BACKEND_ISN.wrapping_add(27)
        );
        let fin = Seg::new(
            "10.0.0.1:1",
            "10.0.0.1:1",
            "FA",
            BACKEND_ISN.wrapping_add(27),
            6,
        );
        let fin = Seg {
            from: syn.to,
            to: syn.from,
            ..fin
        };
        let fin = w.at_client(&fin);
        assert_eq!(
            (fin.flags.as_str(), fin.sequence),
            ("AF", cookie.wrapping_add(27))
        );
    }
}

#[test]
fn a_client_is_promised_what_it_asked_for_and_no_more() {
    let rows: [(&[TcpOptionElement], &[TcpOptionElement]); 4] = [
        (&[], &[]),
        (&[MaximumSegmentSize(536)], &[MaximumSegmentSize(1_400)]),
        (&[WindowScale(3)], &[WindowScale(SCALE)]),
        (
            &[SelectiveAcknowledgementPermitted],
            &[SelectiveAcknowledgementPermitted],
        ),
    ];
    for (said, promised) in rows {
        let mut w = World::pressed(V4);
        assert_eq!(w.cookie(said).options, promised);
        let (syn, _) = w.opening(said);
        let size = MaximumSegmentSize(536);
        let mut asked: Vec<_> = said.iter().filter(|o| **o != size).cloned().collect();
        asked.insert(0, size);
        assert_eq!(syn.options, asked, "the backend hears the same");
    }
}

#[test]
fn windows_are_told_in_the_units_that_each_end_knows() {
    let none: &[TcpOptionElement] = &[];
    let scaled = |n| vec![WindowScale(n)];
    // What the client and the backend scale by; a window of 640 from the backend and of 20 from
    // the client, as they come out.
    let rows = [
        (scaled(9), scaled(7), 640, 20),
        (scaled(9), scaled(9), 2_560, 20),
        (scaled(9), scaled(14), 65_535, 20),
        (scaled(9), scaled(0), 5, 20),
        // A backend without scaling: its window are bytes, and it takes the client's for bytes.
        (scaled(9), none.to_vec(), 5, 20 << 9),
        (none.to_vec(), none.to_vec(), 640, 20),
    ];
    for (client, backend, to_client, to_backend) in rows {
        let mut w = World::pressed(V4);
        let (syn, cookie) = w.open(&client, &backend);
        let data = w.client("A", 0, cookie.wrapping_add(1)).window(20);
        assert_eq!(
            w.at_backend(&data).window,
            to_backend,
            "{client:?} {backend:?}"
        );
        let answer = Seg {
            flags: "A".to_string(),
            sequence: BACKEND_ISN.wrapping_add(1),
            ..w.answer(&syn, 0).window(640)
        };
        assert_eq!(
            w.at_client(&answer).window,
            to_client,
            "{client:?} {backend:?}"
        );
    }
}

#[test]
fn what_is_no_answer_to_a_cookie_opens_nothing() {
    let mut w = World::pressed(V4);
    let cookie = w.cookie(&USUAL).sequence;
    let good = w.client("A", 0, cookie.wrapping_add(1));
    let rows = [
        ("another number", w.client("A", 0, cookie.wrapping_add(2))),
        ("another start", w.client("A", 1, cookie.wrapping_add(1))),
        (
            "another client",
            Seg {
                from: "198.51.100.8:40000".parse().unwrap(),
                ..good.clone()
            },
        ),
        ("a reset", w.client("RA", 0, cookie.wrapping_add(1))),
        ("an end", w.client("FA", 0, cookie.wrapping_add(1))),
    ];
    for (name, seg) in rows {
        let flows = w.flows();
        let (verdict, _) = w.send(OUTSIDE, &seg);
        assert!(
            !matches!(verdict, Verdict::Forward { port: OUTSIDE, .. }),
            "{name}"
        );
        assert_eq!((w.counts().1, w.splices()), (0, 0), "{name}");
        if seg.flags == "A" {
            assert_eq!(
                (verdict, w.flows()),
                (Verdict::Drop(DropReason::NoFlow), flows),
                "{name}"
            );
        }
    }
    // A damaged one: what is made of it would be whole.
    let mut frame = good.frame(CLIENT_MAC);
    frame[14 + 20 + 15] ^= 1;
    let (verdict, _) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
    assert_eq!(verdict, Verdict::Drop(DropReason::BadTransportChecksum));
    // An old one.
    w.now = Micros::new(T0.get() + 130_000_000);
    assert_eq!(w.dropped(OUTSIDE, &good), DropReason::NoFlow);
    w.now = T0;
    assert_eq!(w.at_backend(&good).flags, "S", "and the good one is good");
}

#[test]
fn a_backend_that_refuses_refuses_its_client() {
    for ends in [V4, V6] {
        let mut w = World::pressed(ends);
        let (syn, cookie) = w.opening(&USUAL);
        // With a number that the client has never heard of it would be nobody's.
        let reset = Seg {
            flags: "AR".to_string(),
            ..w.answer(&syn, 0)
        };
        let out = w.at_client(&reset);
        assert_eq!(out.flags, "AR");
        assert_eq!(
            (out.sequence, out.acknowledgment),
            (cookie.wrapping_add(1), 0)
        );
    }
}

#[test]
fn resets_of_an_open_connection_have_the_other_ends_numbers() {
    let mut w = World::pressed(V4);
    let (syn, cookie) = w.open(&USUAL, &[WindowScale(7)]);
    let reset = Seg {
        flags: "R".to_string(),
        sequence: BACKEND_ISN.wrapping_add(5),
        acknowledgment: 0,
        ..w.answer(&syn, 0)
    };
    assert_eq!(w.at_client(&reset).sequence, cookie.wrapping_add(5));

    let mut w = World::pressed(V4);
    let (_, cookie) = w.open(&USUAL, &[WindowScale(7)]);
    let reset = w.client("RA", 9, cookie.wrapping_add(5));
    let out = w.at_backend(&reset);
    assert_eq!(
        (out.sequence, out.acknowledgment),
        (9, BACKEND_ISN.wrapping_add(5))
    );
}

#[test]
fn what_is_lost_is_asked_for_again_by_who_misses_it() {
    let mut w = World::pressed(V4);
    let (syn, cookie) = w.opening(&USUAL);
    // The client's probe of its closed window, the SYN or its answer having been lost.
    let probe = w.client("A", CLIENT_ISN, cookie.wrapping_add(1));
    assert_eq!(
        w.at_backend(&probe),
        Seg {
            window: 65_535,
            ..syn.clone()
        }
    );
    assert_eq!(w.counts().1, 1, "it is one connection");

    // The backend's answer again, what the client was told having been lost.
    let answer = w.answer(&syn, BACKEND_ISN).options(&[WindowScale(7)]);
    let first = w.at_client(&answer);
    assert_eq!(w.at_client(&answer), first);
    // One of another number is nobody's.
    let other = w.answer(&syn, 7);
    assert_eq!(w.dropped(INSIDE, &other), DropReason::NoFlow);
}

#[test]
fn a_probe_of_the_window_stands_for_an_ack_that_was_lost() {
    for ends in [V4, V6] {
        let mut w = World::pressed(ends);
        let cookie = w.cookie(&USUAL).sequence;
        let probe = w.client("A", CLIENT_ISN, cookie.wrapping_add(1));
        // Nobody sends bytes with the number of their SYN.
        let bytes = probe.clone().payload(b"x");
        assert_eq!(w.dropped(OUTSIDE, &bytes), DropReason::NoFlow);

        let syn = w.at_backend(&probe);
        assert_eq!((syn.flags.as_str(), syn.sequence), ("S", CLIENT_ISN));
        assert_eq!((w.counts(), w.splices()), ((1, 1), 1));
        let answer = w.answer(&syn, BACKEND_ISN).options(&[WindowScale(7)]);
        let opened = w.at_client(&answer);
        assert_eq!((opened.sequence, opened.acknowledgment), (cookie, 0));
        let data = w.client("A", 0, cookie.wrapping_add(1)).payload(b"GET /");
        let out = w.at_backend(&data);
        assert_eq!(out.acknowledgment, BACKEND_ISN.wrapping_add(1));
        assert_eq!((out.sequence, &out.payload[..]), (0, &b"GET /"[..]));
    }
}

#[test]
fn a_backend_that_still_has_the_connection_before_is_told_to_forget_it() {
    let mut w = World::pressed(V4);
    let (syn, _) = w.opening(&USUAL);
    let challenge = Seg {
        flags: "A".to_string(),
        acknowledgment: 77,
        ..w.answer(&syn, 5_000)
    };
    let (port, _, out) = w.forwarded(INSIDE, &challenge);
    assert_eq!((port, out.from, out.to), (INSIDE, syn.from, syn.to));
    assert_eq!((out.flags.as_str(), out.sequence), ("R", 77));
    // A reset that does not acknowledge the SYN is not about it.
    let reset = Seg {
        flags: "R".to_string(),
        ..challenge
    };
    assert_eq!(w.dropped(INSIDE, &reset), DropReason::NoFlow);
}

#[test]
fn a_client_that_begins_anew_is_not_held_to_what_was_promised_before() {
    let mut w = World::pressed(V4);
    w.opening(&USUAL);
    let again = Seg {
        sequence: 5,
        ..w.client("S", 0, 0)
    };
    assert_eq!(w.dropped(OUTSIDE, &again), DropReason::NoFlow);
    assert_eq!(w.splices(), 0);
    assert_eq!(w.back(&again).acknowledgment, 6, "a cookie for the new one");
}

#[test]
fn errors_about_what_the_client_was_sent_have_the_backends_numbers() {
    for ends in [V4, V6] {
        let mut w = World::pressed(ends);
        let (syn, cookie) = w.open(&USUAL, &[WindowScale(7)]);
        let data = Seg {
            flags: "A".to_string(),
            sequence: BACKEND_ISN.wrapping_add(100),
            ..w.answer(&syn, 0)
        };
        let (verdict, sent) = w.send(INSIDE, &data.payload(b"too long for a router"));
        assert!(matches!(verdict, Verdict::Forward { port: OUTSIDE, .. }));
        let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, BALANCER_MAC);
        let mut frame = Vec::new();
        let vip = w.outside().0.ip();
        match vip {
            IpAddr::V4(vip) => {
                let mtu = 1_300.try_into().unwrap();
                let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
                let kind = Icmpv4Type::DestinationUnreachable(kind);
                let ip = ethernet.ipv4([198, 51, 100, 1], vip.octets(), 64);
                ip.icmpv4(kind).write(&mut frame, &sent[14..]).unwrap();
            }
            IpAddr::V6(vip) => {
                let router = "2001:db8:1::1".parse::<Ipv6Addr>().unwrap().octets();
                let ip = ethernet.ipv6(router, vip.octets(), 64);
                let kind = Icmpv6Type::PacketTooBig { mtu: 1_300 };
                ip.icmpv6(kind).write(&mut frame, &sent[14..]).unwrap();
            }
        }
        let (verdict, frame) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
        assert!(
            matches!(verdict, Verdict::Forward { port: INSIDE, .. }),
            "{verdict:?}"
        );
        let icmp = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let quote = PacketHeaders::from_ip_slice(icmp.payload.slice()).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = quote.transport else {
            panic!("no TCP is quoted");
        };
        assert_eq!(tcp.sequence_number, BACKEND_ISN.wrapping_add(100));
        assert_ne!(cookie, BACKEND_ISN);
        let ends = (tcp.source_port, tcp.destination_port);
        assert_eq!(ends, (syn.to.port(), syn.from.port()));
        let sum = match quote.net.unwrap() {
            NetHeaders::Ipv4(v4, _) => tcp.calc_checksum_ipv4(&v4, quote.payload.slice()),
            NetHeaders::Ipv6(v6, _) => tcp.calc_checksum_ipv6(&v6, quote.payload.slice()),
            NetHeaders::Arp(_) => panic!("not IP"),
        };
        assert_eq!(tcp.checksum, sum.unwrap(), "of the quoted segment");
    }
}
