//! The dataplane alone: 64-byte UDP, bursts of 64, IPIP, flows in random order.
//!
//! Each burst's frames are made outside the measured time, so they are in the first-level cache
//! when it starts, as frames are that a NIC or the kernel has just written there. The flow table
//! is not: with 1,000,000 flows in random order nearly every lookup goes to memory.

use anyhow::{Context, bail};
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, Tables, Verdict};
use lockstep_plan::{
    Backend, BackendState, DropReason, Health, IdleTimeouts, Mode, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE, checksum};
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    V4,
    V6,
    /// Every packet is the SYN of another flow, and the table is full.
    NewFlows,
}

const PATHS: &[(&str, Traffic, &[u32])] = &[
    ("tunnel-v4", Traffic::V4, &[1, 10_000, 100_000, 1_000_000]),
    ("tunnel-v6", Traffic::V6, &[1, 10_000, 1_000_000]),
    ("new-flows-v4", Traffic::NewFlows, &[1_000_000]),
];

/// Packets per round: enough that 1,000,000 flows each see two.
const PACKETS: usize = 2_000_000;

/// Measures every path and writes the results.
pub fn run(output: &Path, rounds: usize, instructions: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    println!(
        "{:<14} {:>9} {:>12} {:>20}",
        "path", "flows", "ns/packet", "instructions/packet"
    );
    for &(path, traffic, flow_counts) in PATHS {
        for &flows in flow_counts {
            let mut bench = Bench::new(traffic, flows);
            bench.round(PACKETS / 4);
            let mut times: Vec<f64> = (0..rounds.max(1)).map(|_| bench.round(PACKETS)).collect();
            times.sort_by(f64::total_cmp);
            let row = Row {
                path,
                flows,
                ns_per_packet: (times[times.len() / 2] * 100.0).round() / 100.0,
                instructions_per_packet: instructions
                    .then(|| count_instructions(path, flows))
                    .transpose()?,
            };
            let counted = row
                .instructions_per_packet
                .map_or("-".into(), |n| format!("{n:.0}"));
            println!(
                "{path:<14} {flows:>9} {:>12.1} {counted:>20}",
                row.ns_per_packet
            );
            rows.push(row);
        }
    }
    if let Some(parent) = output.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(output, serde_json::to_string_pretty(&rows)? + "\n")
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("written to {}", output.display());
    Ok(())
}

/// Packets that callgrind counts: every instruction of them, so few suffice.
const COUNTED: usize = 64 * 1000;

/// The measured part alone, for callgrind.
pub fn count(path: &str, flows: u32) -> anyhow::Result<()> {
    let Some(&(_, traffic, _)) = PATHS.iter().find(|(name, ..)| *name == path) else {
        bail!("no path {path}");
    };
    Bench::new(traffic, flows).round(COUNTED);
    Ok(())
}

/// Instructions per packet, as callgrind counts them inside [`measured`].
fn count_instructions(path: &str, flows: u32) -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*core_bench*measured*"])
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
    let total: f64 = text
        .lines()
        .find_map(|l| {
            l.strip_prefix("summary: ")
                .or_else(|| l.strip_prefix("totals: "))
        })
        .context("callgrind wrote no total")?
        .trim()
        .parse()?;
    Ok((total / COUNTED as f64 * 10.0).round() / 10.0)
}

type Frame = [u8; 128];

struct Cursor {
    bytes: Frame,
    length: usize,
}

impl AsRef<[u8]> for Cursor {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Cursor {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

struct Bench {
    dataplane: Dataplane,
    traffic: Traffic,
    template: Cursor,
    /// The flows' numbers in random order.
    order: Vec<u32>,
    at: usize,
    fresh: u32,
}

impl Bench {
    /// A dataplane in which `flows` flows are alive.
    fn new(traffic: Traffic, flows: u32) -> Self {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 1_000_000,
            flows_v6: 1_000_000,
            seed: 0x5eed,
            ..DataplaneConfig::default()
        });
        dataplane.adopt(Arc::new(tables()));
        let mut order: Vec<u32> = (0..flows).collect();
        shuffle(&mut order);
        let template = template(traffic);
        let mut bench = Bench {
            dataplane,
            traffic,
            template,
            order,
            at: 0,
            fresh: 1 << 24,
        };
        // Open every flow once; the flood then comes on top.
        let wanted = std::mem::replace(
            &mut bench.traffic,
            if traffic == Traffic::NewFlows {
                Traffic::V4
            } else {
                traffic
            },
        );
        bench.run((flows as usize).next_multiple_of(BURST), opened);
        bench.traffic = wanted;
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
        let mut frames: Vec<Cursor> = (0..BURST)
            .map(|_| Cursor {
                bytes: self.template.bytes,
                length: 0,
            })
            .collect();
        let mut verdicts = [Verdict::Drop(DropReason::TxFull); BURST];
        let mut spent = Duration::ZERO;
        let bursts = packets.div_ceil(BURST);
        for _ in 0..bursts {
            for frame in &mut frames {
                self.prepare(frame);
            }
            let start = Instant::now();
            process(&mut self.dataplane, &mut frames, &mut verdicts);
            spent += start.elapsed();
            assert!(
                verdicts
                    .iter()
                    .all(|v| matches!(v, Verdict::Forward { .. })),
                "a packet was dropped: {:?}",
                verdicts.iter().find(|v| matches!(v, Verdict::Drop(_)))
            );
        }
        spent.as_nanos() as f64 / (bursts * BURST) as f64
    }

    /// Makes a frame of the next flow.
    fn prepare(&mut self, frame: &mut Cursor) {
        let flow = if self.traffic == Traffic::NewFlows {
            self.fresh = self.fresh.wrapping_add(1);
            self.fresh
        } else {
            let flow = self.order[self.at];
            self.at = (self.at + 1) % self.order.len();
            flow
        };
        let bytes = &mut frame.bytes;
        bytes.copy_from_slice(&self.template.bytes);
        frame.length = self.template.length;
        let ip = 14 + 20;
        if self.traffic == Traffic::V6 {
            bytes[ip + 20..ip + 24].copy_from_slice(&flow.to_be_bytes());
            bytes[ip + 40..ip + 42].copy_from_slice(&((flow % 60_000) as u16 + 1024).to_be_bytes());
            return;
        }
        bytes[ip + 12..ip + 16].copy_from_slice(&(0x0b00_0000 + flow).to_be_bytes());
        bytes[ip + 20..ip + 22].copy_from_slice(&((flow % 60_000) as u16 + 1024).to_be_bytes());
        bytes[ip + 10..ip + 12].fill(0);
        let sum = checksum::checksum(&bytes[ip..ip + 20]);
        bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
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

/// Ten backends behind an IPv4 and an IPv6 VIP, tunnelled over IPv4.
fn tables() -> Tables {
    let backends = (1..=10)
        .map(|n| Backend {
            name: format!("s{n}"),
            address: Ipv4Addr::new(10, 0, 0, n).into(),
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            port: None,
            health: Health::UNKNOWN,
        })
        .collect();
    let vips = [
        "203.0.113.10:53/udp",
        "203.0.113.10:80/tcp",
        "[2001:db8::10]:53/udp",
    ];
    let service = Service {
        name: ServiceName::new("bench").expect("a plain name"),
        vips: vips.iter().map(|v| v.parse().expect("a VIP")).collect(),
        mode: Mode::TUNNEL,
        backends,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).expect("no conflicts");
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

/// A frame of 64 bytes with its checksum sequence, as the XDP program hands it over.
fn template(traffic: Traffic) -> Cursor {
    let ip = 14 + 20;
    let mut bytes = [0; 128];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3]);
    bytes[12..14].copy_from_slice(&STEER_ETHERTYPE.to_be_bytes());
    bytes[14..16].copy_from_slice(&20_u16.to_be_bytes());
    let packet = 46;
    let length = if traffic == Traffic::V6 {
        bytes[ip] = 0x60;
        bytes[ip + 4..ip + 6].copy_from_slice(&8_u16.to_be_bytes());
        bytes[ip + 6] = 17;
        bytes[ip + 7] = 64;
        let source = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
        let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
        bytes[ip + 8..ip + 24].copy_from_slice(&source.octets());
        bytes[ip + 24..ip + 40].copy_from_slice(&vip.octets());
        bytes[ip + 42..ip + 44].copy_from_slice(&53_u16.to_be_bytes());
        bytes[ip + 44..ip + 46].copy_from_slice(&8_u16.to_be_bytes());
        48
    } else {
        bytes[ip] = 0x45;
        bytes[ip + 2..ip + 4].copy_from_slice(&(packet as u16).to_be_bytes());
        bytes[ip + 6] = 0x40;
        bytes[ip + 8] = 64;
        bytes[ip + 9] = if traffic == Traffic::NewFlows { 6 } else { 17 };
        bytes[ip + 16..ip + 20].copy_from_slice(&[203, 0, 113, 10]);
        if traffic == Traffic::NewFlows {
            bytes[ip + 22..ip + 24].copy_from_slice(&80_u16.to_be_bytes());
            bytes[ip + 32] = 0x50;
            bytes[ip + 33] = 0x02;
        } else {
            bytes[ip + 22..ip + 24].copy_from_slice(&53_u16.to_be_bytes());
            bytes[ip + 24..ip + 26].copy_from_slice(&(packet as u16 - 20).to_be_bytes());
        }
        packet
    };
    Cursor {
        bytes,
        length: ip + length,
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
