//! The dataplane's paths: 64-byte UDP, bursts of 64, flows in random order; in tunnels (IPIP, GUE), and
//! rewritten, both ways.

use crate::frames::{Cursor, Frames, How, Traffic, Which};
use lockstep_core::dataplane::NatConfig;
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, Tables, Verdict};
use lockstep_plan::{
    Backend, BackendState, DropReason, Encapsulation, Guard, Health, IdleTimeouts, Mode, Scheduler,
    Service, ServiceName, Snapshot, TableSize, Unserved, Weight,
};
use lockstep_wire::LinkHeader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A path: what is measured.
pub struct Case {
    /// What it is called, in results and on the command line.
    pub name: &'static str,
    /// Its packets.
    pub traffic: Traffic,
    /// How many flows are alive, where its time is measured.
    pub flows: &'static [u32],
}

const fn case(
    name: &'static str,
    mode: How,
    v6: bool,
    which: Which,
    flows: &'static [u32],
) -> Case {
    Case {
        name,
        traffic: Traffic { mode, v6, which },
        flows,
    }
}

/// From a few flows, whose entries stay in the cache, to more than fit any.
const SIZES: &[u32] = &[100_000, 1_000_000, 4_000_000];

/// Every path.
pub const PATHS: &[Case] = &[
    case(
        "tunnel-v4",
        How::Tunnel,
        false,
        Which::Known,
        &[1, 10_000, 100_000, 1_000_000, 4_000_000],
    ),
    case(
        "tunnel-v6",
        How::Tunnel,
        true,
        Which::Known,
        &[1, 10_000, 1_000_000],
    ),
    case(
        "gue-v4",
        How::Gue,
        false,
        Which::Known,
        &[10_000, 1_000_000],
    ),
    case("gue-v6", How::Gue, true, Which::Known, &[10_000, 1_000_000]),
    case("nat-v4", How::Nat, false, Which::Known, SIZES),
    case("nat-v4-answers", How::Nat, false, Which::Answers, SIZES),
    case("nat-v6", How::Nat, true, Which::Known, &[1_000_000]),
    case(
        "nat-v6-answers",
        How::Nat,
        true,
        Which::Answers,
        &[1_000_000],
    ),
    case("full-nat-v4", How::FullNat, false, Which::Known, SIZES),
    case(
        "full-nat-v4-answers",
        How::FullNat,
        false,
        Which::Answers,
        SIZES,
    ),
    case(
        "full-nat-v6",
        How::FullNat,
        true,
        Which::Known,
        &[1_000_000],
    ),
    case(
        "full-nat-v6-answers",
        How::FullNat,
        true,
        Which::Answers,
        &[1_000_000],
    ),
    case("new-flows-v4", How::Tunnel, false, Which::New, &[1_000_000]),
    case("new-flows-v6", How::Tunnel, true, Which::New, &[1_000_000]),
    case("new-nat-v4", How::Nat, false, Which::New, &[1_000_000]),
    case(
        "new-full-nat-v4",
        How::FullNat,
        false,
        Which::New,
        &[1_000_000],
    ),
    case("new-nat-v6", How::Nat, true, Which::New, &[1_000_000]),
    case(
        "new-full-nat-v6",
        How::FullNat,
        true,
        Which::New,
        &[1_000_000],
    ),
];

/// A dataplane, and the packets that go through it.
///
/// Each burst's frames are made outside the measured time, so they are in the first-level cache when it
/// starts, as frames are that a NIC or the kernel has just written there. The flow table is not: with
/// 1,000,000 flows in random order nearly every lookup goes to memory.
pub struct Bench {
    dataplane: Dataplane,
    frames: Frames,
    /// The flows' numbers in random order.
    order: Vec<u32>,
    at: usize,
    fresh: u32,
}

impl Bench {
    /// A dataplane in which `flows` flows are alive, of the `capacity` that there is room for.
    pub fn new(traffic: Traffic, flows: u32, capacity: usize) -> Self {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: capacity,
            flows_v6: capacity,
            seed: 0x5eed,
            nat: NatConfig {
                pool_v4: (1..=16).map(|n| Ipv4Addr::new(192, 0, 2, n)).collect(),
                pool_v6: (1..=16)
                    .map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n))
                    .collect(),
                ports: Some(1_024..=65_535),
                mtus: vec![1_600],
                cookie_key: [0xc0, 0x0c1e],
            },
        });
        dataplane.adopt(Arc::new(tables(traffic.mode)));
        let mut order: Vec<u32> = (0..flows).collect();
        shuffle(&mut order);
        // Open every flow once; what is measured comes on top.
        let opening = Traffic {
            which: Which::Known,
            ..traffic
        };
        let mut bench = Bench {
            dataplane,
            frames: Frames::new(opening, flows),
            order,
            at: 0,
            fresh: 1 << 24,
        };
        bench.run((flows as usize).next_multiple_of(BURST), opened);
        bench.frames.turn(traffic);
        bench
    }

    /// Sends `packets` packets through and returns the nanoseconds each took.
    pub fn round(&mut self, packets: usize) -> f64 {
        self.run(packets, measured)
    }

    fn run(
        &mut self,
        packets: usize,
        process: fn(&mut Dataplane, &mut [Cursor], &mut [Verdict; BURST]),
    ) -> f64 {
        let mut frames: Vec<Cursor> = (0..BURST).map(|_| Cursor::EMPTY).collect();
        let mut flows = [0; BURST];
        let mut verdicts = [Verdict::Drop(DropReason::TxFull); BURST];
        let mut spent = Duration::ZERO;
        let bursts = packets.div_ceil(BURST);
        for _ in 0..bursts {
            for (frame, flow) in frames.iter_mut().zip(&mut flows) {
                *flow = self.next_flow();
                self.frames.prepare(frame, *flow);
            }
            let start = Instant::now();
            process(&mut self.dataplane, &mut frames, &mut verdicts);
            spent += start.elapsed();
            for ((frame, &flow), verdict) in frames.iter().zip(&flows).zip(&verdicts) {
                self.frames.sent(frame, flow, *verdict);
            }
        }
        spent.as_nanos() as f64 / (bursts * BURST) as f64
    }

    fn next_flow(&mut self) -> u32 {
        if self.frames.traffic().which == Which::New {
            self.fresh = self.fresh.wrapping_add(1);
            return self.fresh;
        }
        let flow = self.order[self.at];
        self.at = (self.at + 1) % self.order.len();
        flow
    }
}

/// What callgrind counts inside of.
pub const MEASURED: &str = "*packets*measured*";

/// The measured call. Kept out of line so that callgrind finds it by name.
#[inline(never)]
fn measured(dataplane: &mut Dataplane, frames: &mut [Cursor], verdicts: &mut [Verdict; BURST]) {
    dataplane.process(
        Micros::new(1_000_000),
        &[PortId(0); BURST],
        frames,
        verdicts,
    );
}

/// The same for packets that are not measured: those that open the flows.
#[inline(never)]
fn opened(dataplane: &mut Dataplane, frames: &mut [Cursor], verdicts: &mut [Verdict; BURST]) {
    // An earlier second than the measured ones: two functions of one body may become one.
    dataplane.process(Micros::new(0), &[PortId(0); BURST], frames, verdicts);
}

/// A 64-byte UDP packet over IPv4 of this flow, for a tunnel.
pub fn packet_of(flow: u32) -> impl AsRef<[u8]> {
    let traffic = Traffic {
        mode: How::Tunnel,
        v6: false,
        which: Which::Known,
    };
    let mut frame = Cursor::EMPTY;
    Frames::new(traffic, 0).prepare(&mut frame, flow);
    frame
}

/// The tables of tunnels.
pub fn tunnels() -> Tables {
    tables(How::Tunnel)
}

/// Ten backends behind each VIP: in tunnels over IPv4, else of the VIP's IP version.
fn tables(mode: How) -> Tables {
    let v4 = |n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n));
    let v6 = |n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)));
    let both = [VIPS_V4, VIPS_V6].concat();
    let services = match mode {
        How::Tunnel => vec![service("bench", &both, Mode::TUNNEL, v4)],
        How::Gue => vec![service("bench", &both, GUE, v4)],
        How::Nat => vec![
            service("four", VIPS_V4, Mode::Nat, v4),
            service("six", VIPS_V6, Mode::Nat, v6),
        ],
        How::FullNat => vec![
            service("four", VIPS_V4, Mode::FullNat, v4),
            service("six", VIPS_V6, Mode::FullNat, v6),
        ],
    };
    let snapshot = Snapshot::new(1, services).expect("no conflicts");
    let addresses = EngineAddresses {
        v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
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
    Tables::compile(&Tables::default(), &snapshot, addresses, |_: IpAddr| {
        NextHop::Via(route)
    })
    .expect("an engine address per IP version")
}

const GUE: Mode = Mode::Tunnel(Encapsulation::Gue {
    port: Encapsulation::GUE_PORT,
});
const VIPS_V4: &[&str] = &["203.0.113.10:53/udp", "203.0.113.10:80/tcp"];
const VIPS_V6: &[&str] = &["[2001:db8::10]:53/udp"];

fn service(name: &str, vips: &[&str], mode: Mode, address: impl Fn(u8) -> IpAddr) -> Service {
    let backends = (1..=10)
        .map(|n| Backend {
            name: format!("s{n}"),
            address: address(n),
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            port: None,
            health: Health::UNKNOWN,
        })
        .collect();
    Service {
        name: ServiceName::new(name).expect("a plain name"),
        vips: vips.iter().map(|v| v.parse().expect("a VIP")).collect(),
        mode,
        backends,
        unserved: Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    }
}

/// Fisher-Yates with a fixed seed: every run measures the same order.
fn shuffle(order: &mut [u32]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..order.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, ((state >> 33) as usize) % (at + 1));
    }
}
