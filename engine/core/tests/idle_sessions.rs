//! What idle sessions cost in memory: a process of its own, whose resident pages are counted.

use core::net::{Ipv4Addr, SocketAddr};
use etherparse::{PacketBuilder, TcpHeaderSlice};
use lockstep_core::Micros;
use lockstep_core::replicate::replicator::{Replicator, ReplicatorConfig};
use lockstep_core::replicate::stack::Transmit;
use lockstep_core::tables::{EngineAddresses, NextHop, PortId, Route, Tables};
use lockstep_plan::{
    Backend, BackendState, Health, IdleTimeouts, Mode, Replicate, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::LinkHeader;
use std::sync::Arc;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const ENGINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SESSIONS: usize = 2_000;
const ANSWER: &[u8] = b"HTTP/1.0 204 No content\r\n\r\n";
/// The bound for a session with three replicas.
const BOUND: usize = 64 << 10;

/// Packets the replicator sends, with memory that is there before the count.
struct Out {
    packets: Vec<[u8; 128]>,
}

impl Transmit for Out {
    fn transmit(
        &mut self,
        _: PortId,
        _: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let mut packet = [0; 128];
        write(&mut packet[..length]);
        self.packets.push(packet);
        true
    }
}

/// The resident pages of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.expect("a number") * 4_096
}

fn tables() -> Tables {
    let backends = (1..=3u8).map(|host| Backend {
        name: format!("replica-{host}"),
        address: Ipv4Addr::new(10, 0, 0, host).into(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    });
    let service = Service {
        name: ServiceName::new("game").expect("a name"),
        vips: vec!["203.0.113.10:80/tcp".parse().expect("a VIP")],
        mode: Mode::Replicate(Arc::new(Replicate::DEFAULT)),
        backends: backends.collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(5_003).expect("a prime"),
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).expect("a snapshot");
    let route = Route {
        port: PortId(0),
        link: LinkHeader {
            destination: MAC,
            source: MAC,
            vlan: None,
        },
        mtu: 1_500,
    };
    Tables::compile(&Tables::default(), &snapshot, addresses(), |_| {
        NextHop::Via(route)
    })
    .expect("tables")
    .with_session_ports(10_000..=65_535)
}

fn addresses() -> EngineAddresses {
    EngineAddresses {
        v4: Some(ENGINE),
        v6: None,
    }
}

/// A frame from a host whose side of a connection is only numbers.
fn frame(
    from: SocketAddr,
    to: SocketAddr,
    numbers: (u32, u32),
    flags: &str,
    payload: &[u8],
) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        panic!("IPv4 only");
    };
    let (sequence, acknowledgment) = numbers;
    let mut tcp = PacketBuilder::ethernet2(MAC, MAC)
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .tcp(from.port(), to.port(), sequence, 60_000);
    if flags.contains('S') {
        tcp = tcp.syn();
    }
    if flags.contains('A') {
        tcp = tcp.ack(acknowledgment);
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).expect("it fits");
    frame
}

struct World {
    replicator: Replicator,
    tables: Tables,
    out: Out,
    now: Micros,
}

impl World {
    fn receive(&mut self, mut frame: Vec<u8>) {
        self.replicator
            .receive(self.now, &self.tables, PortId(0), &mut frame, &mut self.out)
            .expect("nothing is dropped");
    }

    /// Answers what the replicator sends as hosts would, until it sends no more.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.now = self.now + core::time::Duration::from_millis(1);
            self.replicator.tick(self.now, &self.tables, &mut self.out);
            let mut packets = core::mem::take(&mut self.out.packets);
            for packet in packets.drain(..) {
                self.answer(&packet);
            }
            self.out.packets = packets;
        }
    }

    fn answer(&mut self, packet: &[u8; 128]) {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let tcp = TcpHeaderSlice::from_slice(&packet[20..length]).expect("a segment");
        let us = SocketAddr::new(address(12).into(), tcp.source_port());
        let them = SocketAddr::new(address(16).into(), tcp.destination_port());
        let payload = &packet[20 + tcp.slice().len()..length];
        let next = tcp.sequence_number().wrapping_add(payload.len() as u32);
        let ours = tcp.acknowledgment_number();
        let reply = if tcp.syn() && !tcp.ack() {
            frame(them, us, (1_000, next + 1), "SA", &[])
        } else if tcp.syn() {
            // The client asks.
            frame(them, us, (ours, next + 1), "A", b"GET / HTTP/1.0\r\n\r\n")
        } else if !payload.is_empty() && us.ip() == ENGINE {
            // A replica answers.
            frame(them, us, (ours, next), "A", ANSWER)
        } else if !payload.is_empty() {
            frame(them, us, (ours, next), "A", &[])
        } else {
            return;
        };
        self.receive(reply);
    }
}

#[test]
fn an_idle_session_with_three_replicas_takes_less_than_64_kib() {
    let mut world = World {
        replicator: Replicator::new(ReplicatorConfig {
            spread: lockstep_core::Spread::alone(),
            ports: 10_000..=65_535,
            sessions: SESSIONS,
            connections: 3 * SESSIONS,
            client_buffer: 256 << 10,
            replica_buffer: 128 << 10,
            log_memory: 64 << 20,
            mtus: vec![1_500],
            addresses: addresses(),
            seed: [1, 2],
        }),
        tables: tables(),
        out: Out {
            packets: Vec::with_capacity(4_096),
        },
        now: Micros::new(1_000_000),
    };
    let open = |world: &mut World, numbers: core::ops::Range<usize>| {
        for number in numbers {
            let from = Ipv4Addr::new(198, 51, 100, (number / 1_000) as u8);
            let from = SocketAddr::new(from.into(), 2_000 + (number % 1_000) as u16);
            let to = SocketAddr::new(VIP.into(), 80);
            world.receive(frame(from, to, (7, 0), "S", &[]));
            if number % 50 == 49 {
                world.settle();
            }
        }
    };
    // What the first ones bring with them is not theirs: code, the allocator's own.
    open(&mut world, 0..100);
    let before = resident();
    open(&mut world, 100..SESSIONS);
    let taken = (resident() - before) / (SESSIONS - 100);
    assert_eq!(world.replicator.len(), SESSIONS);
    let counters = world.replicator.counters();
    assert_eq!(counters.opened.get(), SESSIONS as u64);
    assert_eq!(
        counters.output_bytes.get(),
        ANSWER.len() as u64 * SESSIONS as u64
    );
    let logs = counters.log_memory.get() as usize / SESSIONS;
    println!("{taken} bytes a session, and {logs} in its log");
    assert!(
        taken + logs <= BOUND,
        "{taken} bytes a session, and {logs} in its log"
    );
}
