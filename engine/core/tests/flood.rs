//! A flood of 1,000,000 sources against 10,000 established flows, in a table that holds neither
//! all of the flood nor much more than the flows.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use lockstep_core::dataplane::NatConfig;
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{
    BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, Seconds, Tables, Verdict,
};
use lockstep_plan::{
    Backend, BackendState, DropReason, Guard, Health, IdleTimeouts, Mode, Scheduler, Service,
    ServiceName, Snapshot, TableSize, Weight,
};
use lockstep_wire::{FlowKey4, LinkHeader, STEER_ETHERTYPE};
use std::net::Ipv4Addr;
use std::sync::Arc;

const SOURCES: u32 = 1_000_000;
const ESTABLISHED: u32 = 10_000;
/// Flows the table is for: 16,384 fit, and the flood alone is sixty times as many.
const CAPACITY: usize = 10_240;
/// Flood packets between two of an established flow's.
const BETWEEN: u32 = 64;
const ROOM: usize = 20;
const ENGINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn tables(mode: Mode) -> Tables {
    let backend = |n: u8| Backend {
        name: format!("s{n}"),
        address: [10, 0, 0, n].into(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    };
    let service = Service {
        name: ServiceName::new("web").unwrap(),
        vips: vec!["203.0.113.10:80/tcp".parse().unwrap()],
        mode,
        backends: (1..=5).map(backend).collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).unwrap();
    let addresses = EngineAddresses {
        v4: Some(ENGINE),
        v6: None,
    };
    let link = LinkHeader {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        vlan: None,
    };
    let route = Route {
        port: PortId(0),
        link,
        mtu: 1600,
    };
    Tables::compile(&Tables::default(), &snapshot, addresses, |_| {
        NextHop::Via(route)
    })
    .unwrap()
}

/// A segment as the XDP program hands it over, whose source is changed in place.
#[derive(Clone)]
struct Template(Vec<u8>);

impl Template {
    fn new(syn: bool) -> Self {
        let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([0; 4], [203, 0, 113, 10], 64)
            .tcp(0, 80, 1, 1024);
        let tcp = if syn { tcp.syn() } else { tcp.ack(1) };
        let mut plain = Vec::new();
        tcp.write(&mut plain, &[]).unwrap();
        let mut steered = plain[..12].to_vec();
        steered.extend(STEER_ETHERTYPE.to_be_bytes());
        steered.extend((ROOM as u16).to_be_bytes());
        steered.resize(14 + ROOM, 0);
        steered.extend(&plain[14..]);
        Template(steered)
    }

    fn from(&self, source: u32, port: u16) -> Vec<u8> {
        let mut frame = self.0.clone();
        let ip = &mut frame[14 + ROOM..];
        ip[12..16].copy_from_slice(&source.to_be_bytes());
        ip[10..12].fill(0);
        let sum: u32 = (ip[..20].chunks(2))
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[20..22].copy_from_slice(&port.to_be_bytes());
        frame
    }
}

struct Engine {
    dataplane: Dataplane,
    now: u64,
    frames: Vec<Vec<u8>>,
    rewrites: bool,
    refused: u64,
}

impl Engine {
    fn new(mode: Mode) -> Self {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: CAPACITY,
            flows_v6: 8,
            seed: 1,
            nat: NatConfig {
                pool_v4: vec![ENGINE],
                ports: Some(1_024..=16_383),
                cookie_key: [3, 4],
                ..NatConfig::default()
            },
        });
        let rewrites = mode.translates();
        dataplane.adopt(Arc::new(tables(mode)));
        Engine {
            dataplane,
            now: 1_000_000_000,
            frames: Vec::new(),
            rewrites,
            refused: 0,
        }
    }

    /// Whether a client's flow is remembered.
    fn remembers(&self, (source, port): (u32, u16)) -> bool {
        let (source, vip) = (Ipv4Addr::from_bits(source), Ipv4Addr::new(203, 0, 113, 10));
        let key = FlowKey4::new(source, port, vip, 80, 6);
        let now = Seconds::at(Micros::new(self.now));
        self.dataplane.known(now, &key.into()).is_some()
    }

    /// Puts a frame into the burst under way; a full one is processed, every frame must go on.
    fn offer(&mut self, frame: Vec<u8>) {
        self.frames.push(frame);
        if self.frames.len() == BURST {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let (now, ports) = (Micros::new(self.now), [PortId(0); BURST]);
        self.dataplane
            .process(now, &ports, &mut self.frames, &mut verdicts);
        for verdict in verdicts.iter().take(self.frames.len()) {
            match verdict {
                Verdict::Forward { .. } => {}
                // Without an entry nothing can be rewritten.
                Verdict::Drop(DropReason::FlowsFull) if self.rewrites => self.refused += 1,
                other => panic!("{other:?}"),
            }
        }
        // A million packets a second, and the sweep that goes with it.
        self.now += BURST as u64;
        self.dataplane.tick(Seconds::at(Micros::new(self.now)), 2);
        self.frames.clear();
    }

    /// The backend one packet goes to, in a tunnel or rewritten.
    fn goes_to(&mut self, frame: Vec<u8>) -> Ipv4Addr {
        self.flush();
        let mut frames = [frame];
        let mut verdicts = [Verdict::Drop(DropReason::NotIp)];
        let (now, ports) = (Micros::new(self.now), [PortId(0); BURST]);
        self.dataplane
            .process(now, &ports, &mut frames, &mut verdicts);
        match SlicedPacket::from_ethernet(&frames[0]).unwrap().net {
            Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr(),
            other => panic!("no IPv4 header: {other:?}"),
        }
    }
}

/// An established flow's client.
fn client(n: u32) -> (u32, u16) {
    (0xc633_6400 + n / 5_000, (10_000 + n % 5_000) as u16)
}

/// A source of the flood: all of 100.64.0.0/12 in another order.
fn source(n: u32) -> (u32, u16) {
    let scattered = n.wrapping_mul(0x9e37_79b1) & 0x000f_ffff;
    (0x6440_0000 | scattered, (1_024 + n % 60_000) as u16)
}

/// Establishes flows, floods, and returns the engine and how many of the flows have another
/// backend, or none that is remembered, in the end.
fn flood(mode: Mode, syn: bool) -> (Engine, usize) {
    let mut engine = Engine::new(mode);
    let (open, data) = (Template::new(true), Template::new(false));
    let template = Template::new(syn);
    let backends: Vec<Ipv4Addr> = (0..ESTABLISHED)
        .map(|n| {
            let (source, port) = client(n);
            let backend = engine.goes_to(open.from(source, port));
            engine.offer(data.from(source, port));
            backend
        })
        .collect();
    engine.flush();
    let before = engine.dataplane.counters().stateless.get();
    assert_eq!(before, 0, "the flows themselves fit");

    for n in 0..SOURCES {
        let (address, port) = source(n);
        engine.offer(template.from(address, port));
        if n % BETWEEN == 0 {
            let (address, port) = client(n / BETWEEN % ESTABLISHED);
            // Its packet would make a new entry of a flow that was lost.
            assert!(engine.remembers((address, port)), "lost behind {n} packets");
            engine.offer(data.from(address, port));
        }
    }
    engine.flush();
    let lost = (0..ESTABLISHED)
        .zip(backends)
        .filter(|&(n, backend)| {
            let (source, port) = client(n);
            !engine.remembers((source, port)) || engine.goes_to(data.from(source, port)) != backend
        })
        .count();
    (engine, lost)
}

#[test]
fn a_syn_flood_of_a_million_sources_loses_none_of_ten_thousand_established_flows() {
    let (engine, lost) = flood(Mode::TUNNEL, true);
    assert_eq!(lost, 0);
    let counters = engine.dataplane.counters();
    let (evicted, stateless) = (counters.evicted.get(), counters.stateless.get());
    // Half-open entries gave way to each other, or there was no place for one.
    let passed = u64::from(SOURCES) - CAPACITY as u64;
    assert!(evicted + stateless > passed, "{evicted} and {stateless}");
    assert_eq!(counters.rehashed.get(), 0);
    let moved: u64 = counters.vips.iter().map(|vip| vip.moved.get()).sum();
    assert_eq!(moved, 0);
}

#[test]
fn it_loses_none_where_packets_are_rewritten_either() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let name = mode.name();
        let (engine, lost) = flood(mode, true);
        assert_eq!(lost, 0, "{name}");
        let evicted = engine.dataplane.counters().evicted.get();
        assert!(evicted > u64::from(SOURCES) / 2, "{name}: {evicted}");
        assert!(
            engine.refused < u64::from(SOURCES) / 100,
            "{name}: new connections find a place: {} refused",
            engine.refused
        );
    }
}

/// A segment of a client that the engine answers itself, with checksums that are right.
fn segment((source, port): (u32, u16), sequence: u32, acknowledges: Option<u32>) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source.to_be_bytes(), [203, 0, 113, 10], 64)
        .tcp(port, 80, sequence, 1024);
    let tcp = match acknowledges {
        None => tcp.syn(),
        Some(number) => tcp.ack(number),
    };
    let options = [TcpOptionElement::MaximumSegmentSize(1_460)];
    let tcp = tcp.options(&options).unwrap();
    let mut frame = Vec::new();
    tcp.write(&mut frame, &[]).unwrap();
    frame.resize(90, 0);
    frame
}

/// What a backend answers to a SYN.
fn syn_ack(syn: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(syn).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
    else {
        panic!("no TCP over IPv4");
    };
    let (from, to) = (ip.header().destination(), ip.header().source());
    let options = [TcpOptionElement::MaximumSegmentSize(1_400)];
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from, to, 64)
        .tcp(tcp.destination_port(), tcp.source_port(), 7_000, 64_000)
        .syn()
        .ack(tcp.sequence_number().wrapping_add(1))
        .options(&options)
        .unwrap();
    let mut frame = Vec::new();
    tcp.write(&mut frame, &[]).unwrap();
    frame.resize(90, 0);
    frame
}

impl Engine {
    /// What becomes of one frame, which has to go on.
    fn sent(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Drop(DropReason::NotIp)];
        let now = Micros::new(self.now);
        self.dataplane
            .process(now, &[PortId(0)], &mut frames, &mut verdicts);
        let ([mut frame], Verdict::Forward { length, .. }) = (frames, verdicts[0]) else {
            panic!("{:?}", verdicts[0]);
        };
        frame.truncate(length.into());
        frame
    }

    /// The sequence number of what becomes of a frame, and whether it is a SYN-ACK.
    fn number(&mut self, frame: Vec<u8>) -> (u32, bool) {
        let out = self.sent(frame);
        let packet = SlicedPacket::from_ethernet(&out).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        (tcp.sequence_number(), tcp.syn() && tcp.ack())
    }
}

#[test]
fn with_cookies_a_flood_takes_few_entries_and_clients_still_connect() {
    /// Of each backend, in a table of this size.
    const HALF_OPEN: usize = CAPACITY / 16;
    let mut engine = Engine::new(Mode::FullNat);
    for n in 0..ESTABLISHED / 2 {
        let syn = engine.sent(segment(client(n), 1, None));
        engine.sent(syn_ack(&syn));
        engine.sent(segment(client(n), 2, Some(7_001)));
    }
    for n in 0..SOURCES {
        engine.offer(segment(source(n), n, None));
        if n % BETWEEN == 0 {
            let established = client(n / BETWEEN % (ESTABLISHED / 2));
            assert!(engine.remembers(established), "lost behind {n} packets");
        }
    }
    engine.flush();
    let flows = engine.dataplane.flows_v4().len();
    let most = ESTABLISHED as usize / 2 + 5 * HALF_OPEN;
    assert!(flows <= most, "{flows} flows");
    let counters = engine.dataplane.counters();
    assert_eq!((counters.evicted.get(), engine.refused), (0, 0));
    let sent = counters.cookies_sent.get();
    assert!(sent >= u64::from(SOURCES) - 5 * HALF_OPEN as u64, "{sent}");

    for n in ESTABLISHED..ESTABLISHED + 1_000 {
        let (cookie, is_answer) = engine.number(segment(client(n), 99, None));
        assert!(is_answer);
        let ack = segment(client(n), 100, Some(cookie.wrapping_add(1)));
        let syn = engine.sent(ack.clone());
        let (probe, _) = engine.number(syn_ack(&syn));
        assert_eq!(probe, cookie);
        // The backend waits for its own number behind the SYN-ACK.
        let out = engine.sent(ack);
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(&out).unwrap().transport
        else {
            panic!("no TCP");
        };
        assert_eq!(
            (tcp.sequence_number(), tcp.acknowledgment_number()),
            (100, 7_001)
        );
    }
    assert_eq!(engine.dataplane.counters().cookies_accepted.get(), 1_000);
}

#[test]
fn a_flood_that_looks_established_fills_the_table_and_loses_none_either() {
    let (engine, lost) = flood(Mode::TUNNEL, false);
    assert_eq!(lost, 0);
    let counters = engine.dataplane.counters();
    // None of these gives way: what finds the table full is forwarded without an entry.
    assert_eq!(counters.evicted.get(), 0);
    let stateless = counters.stateless.get();
    assert!(stateless > u64::from(SOURCES) * 9 / 10, "{stateless}");
    let of_vips: u64 = counters.vips.iter().map(|vip| vip.stateless.get()).sum();
    assert_eq!(of_vips, stateless);
}
