//! The dataplane alone: 64-byte UDP, bursts of 64, flows in random order; in tunnels (IPIP), and
//! rewritten, both ways.
//!
//! Each burst's frames are made outside the measured time, so they are in the first-level cache
//! when it starts, as frames are that a NIC or the kernel has just written there. The flow table
//! is not: with 1,000,000 flows in random order nearly every lookup goes to memory.

mod frames;

use crate::handover_bench;
use anyhow::{Context, bail};
use frames::{Cursor, Frames, How, Traffic, Which};
use lockstep_core::dataplane::NatConfig;
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, Tables, Verdict};
use lockstep_plan::{
    Backend, BackendState, DropReason, Health, IdleTimeouts, Mode, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::LinkHeader;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A row of `perf/results/core.json`.
#[derive(Debug, Serialize)]
struct Row {
    path: &'static str,
    flows: u32,
    ns_per_packet: f64,
    instructions_per_packet: Option<f64>,
}

/// What a path measures.
struct Case {
    name: &'static str,
    traffic: Traffic,
    /// How many flows are alive.
    flows: &'static [u32],
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

const PATHS: &[Case] = &[
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
    case("new-nat-v4", How::Nat, false, Which::New, &[1_000_000]),
    case(
        "new-full-nat-v4",
        How::FullNat,
        false,
        Which::New,
        &[1_000_000],
    ),
];

/// The path that [`handover_bench`] counts.
const HANDOVER: &str = "handover";

/// Packets per round: enough that 1,000,000 flows each see two.
const PACKETS: usize = 2_000_000;

/// Measures every path with `only` in its name and writes the results.
pub fn run(output: &Path, rounds: usize, instructions: bool, only: &str) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    println!(
        "{:<20} {:>9} {:>12} {:>20}",
        "path", "flows", "ns/packet", "instructions/packet"
    );
    for &Case {
        name: path,
        traffic,
        flows: sizes,
    } in PATHS.iter().filter(|case| case.name.contains(only))
    {
        for &flows in sizes {
            let mut bench = Bench::new(traffic, flows);
            bench.round(PACKETS / 4);
            let mut times: Vec<f64> = (0..rounds.max(1)).map(|_| bench.round(PACKETS)).collect();
            times.sort_by(f64::total_cmp);
            let row = Row {
                path,
                flows,
                ns_per_packet: (times[times.len() / 2] * 100.0).round() / 100.0,
                instructions_per_packet: (instructions && is_counted(flows, sizes))
                    .then(|| count_instructions(path, flows))
                    .transpose()?,
            };
            let counted = row
                .instructions_per_packet
                .map_or("-".into(), |n| format!("{n:.0}"));
            println!(
                "{path:<20} {flows:>9} {:>12.1} {counted:>20}",
                row.ns_per_packet
            );
            rows.push(row);
        }
    }
    let handovers = match HANDOVER.contains(only) {
        true => handover_bench::run(rounds.max(1))?.to_vec(),
        false => Vec::new(),
    };
    for (path, ns_per_packet) in handovers {
        let flows = handover_bench::FLOWS;
        let counts = instructions && path == HANDOVER;
        let counted = counts.then(|| count_handover(flows)).transpose()?;
        println!(
            "{path:<14} {flows:>9} {ns_per_packet:>12.1} {:>20}",
            counted.map_or("-".into(), |n| format!("{n:.0}"))
        );
        rows.push(Row {
            path,
            flows,
            ns_per_packet: (ns_per_packet * 100.0).round() / 100.0,
            instructions_per_packet: counted,
        });
    }
    if let Some(parent) = output.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(output, serde_json::to_string_pretty(&rows)? + "\n")
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("written to {}", output.display());
    Ok(())
}

/// Under callgrind, opening flows takes fifty times as long, and the number of them hardly changes what
/// is counted: with many, each path is counted once.
fn is_counted(flows: u32, sizes: &[u32]) -> bool {
    flows <= 100_000 || sizes.first() == Some(&flows)
}

/// Packets that callgrind counts: every instruction of them, so few suffice.
const COUNTED: usize = 64 * 1000;

/// The measured part alone, for callgrind.
pub fn count(path: &str, flows: u32) -> anyhow::Result<()> {
    if path == HANDOVER {
        return handover_bench::count();
    }
    let Some(case) = PATHS.iter().find(|known| known.name == path) else {
        bail!("no path {path}");
    };
    Bench::new(case.traffic, flows).round(COUNTED);
    Ok(())
}

/// Instructions per packet, as callgrind counts them inside [`measured`].
fn count_instructions(path: &str, flows: u32) -> anyhow::Result<f64> {
    let total = callgrind(path, flows, &["*core_bench*measured*".to_owned()])?;
    Ok((total / COUNTED as f64 * 10.0).round() / 10.0)
}

/// Those of the hand-over without the processing.
fn count_handover(flows: u32) -> anyhow::Result<f64> {
    let toggles = handover_bench::TOGGLES.map(|name| format!("*handover_bench*::{name}*"));
    let total = callgrind(HANDOVER, flows, &toggles)?;
    let packets = handover_bench::COUNTED * BURST;
    Ok((total / packets as f64 * 10.0).round() / 10.0)
}

/// All instructions between the functions whose names match: entering one begins or ends it.
fn callgrind(path: &str, flows: u32, toggles: &[String]) -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .args(
            toggles
                .iter()
                .map(|name| format!("--toggle-collect={name}")),
        )
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["count", path, &flows.to_string()])
        .output()
        .context("valgrind is needed for instruction counts: make deps")?;
    if !output.status.success() {
        bail!(
            "callgrind failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = std::fs::read_to_string(&file)?;
    text.lines()
        .find_map(|l| {
            l.strip_prefix("summary: ")
                .or_else(|| l.strip_prefix("totals: "))
        })
        .context("callgrind wrote no total")?
        .trim()
        .parse()
        .context("callgrind's total is no number")
}

struct Bench {
    dataplane: Dataplane,
    frames: Frames,
    /// The flows' numbers in random order.
    order: Vec<u32>,
    at: usize,
    fresh: u32,
}

impl Bench {
    /// A dataplane in which `flows` flows are alive.
    fn new(traffic: Traffic, flows: u32) -> Self {
        let capacity = flows.max(1_000_000) as usize;
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
    fn round(&mut self, packets: usize) -> f64 {
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
    let services = match mode {
        How::Tunnel => vec![service(
            "bench",
            &[VIPS_V4, VIPS_V6].concat(),
            Mode::TUNNEL,
            v4,
        )],
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
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
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
