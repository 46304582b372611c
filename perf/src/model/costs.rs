//! What a packet, a flow and a session cost, as measured: read from the results.

use crate::origin;
use anyhow::{Context, Result};
use lockstep_core::flows::FlowTable;
use lockstep_wire::FlowKey4;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How the balancer treats packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// In tunnels; answers pass it by.
    Tunnel,
    /// Rewritten, both directions.
    Nat,
    /// To so many replicas, by [`REPLICAS`].
    Replicate,
}

/// Replicas of the sessions that are reckoned with.
pub const REPLICAS: u32 = 3;
/// Live flows at which the dataplane's cost is taken.
const FLOWS: u64 = 1_000_000;
/// Bytes of a full segment, by which costs for bytes become costs for segments.
const SEGMENT: f64 = 1_448.0;

impl Treatment {
    /// All of them.
    pub const ALL: [Treatment; 3] = [Treatment::Tunnel, Treatment::Nat, Treatment::Replicate];

    /// As figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Treatment::Tunnel => "tunnel",
            Treatment::Nat => "NAT",
            Treatment::Replicate => "replicate to 3",
        }
    }

    /// Packets that come in or go out for a packet of a client, or of an answer: what the work in
    /// memory and the devices is counted by.
    pub fn packets(self) -> f64 {
        match self {
            Treatment::Tunnel | Treatment::Nat => 1.0,
            Treatment::Replicate => f64::from(REPLICAS + 1) / 2.0,
        }
    }

    /// Bytes on the way out that come on top of a packet's.
    pub fn header(self) -> f64 {
        match self {
            Treatment::Tunnel => 20.0,
            Treatment::Nat | Treatment::Replicate => 0.0,
        }
    }

    /// Copies of a packet in the direction that has most of them.
    pub fn copies(self) -> f64 {
        match self {
            Treatment::Tunnel | Treatment::Nat => 1.0,
            Treatment::Replicate => f64::from(REPLICAS),
        }
    }
}

/// How packets come to the engine and leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// A NIC's driver with zero-copy: assumed, for there is none here.
    ZeroCopy,
    /// As in the lab: copies, and the kernel's work on the balancer's CPU, which for replicas is not to take packets
    /// in. Measured in tunnels and of replicas; of NAT it is what tunnels take and the difference in memory.
    Copied,
}

impl Devices {
    /// Both.
    pub const ALL: [Devices; 2] = [Devices::ZeroCopy, Devices::Copied];

    /// As figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Devices::ZeroCopy => "zero-copy, assumed",
            Devices::Copied => "copied, from the lab",
        }
    }
}

/// Measured costs, in nanoseconds of a CPU and in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A packet of a known flow, in memory.
    pub tunnel: f64,
    /// The same where packets are rewritten: the mean of both directions.
    pub nat: f64,
    /// A packet that goes in or out of the replicator, in memory.
    pub replicate: f64,
    /// A packet that opens a flow in a tunnel.
    pub opening: f64,
    /// A packet that opens a flow that is rewritten: it has two entries.
    pub opening_nat: f64,
    /// All work for a packet of 64 bytes in the lab, in a tunnel: the kernel's included.
    pub copied: f64,
    /// For a full segment in the lab, to [`REPLICAS`] replicas: without what the kernel does to take its packets in,
    /// which is on the endpoints' CPU there.
    pub copied_segment: f64,
    /// Memory of a flow.
    pub flow_bytes: f64,
    /// Memory of an idle session.
    pub session_bytes: f64,
}

impl Costs {
    /// Reads the results in a directory.
    pub fn read(results: &Path) -> Result<Self> {
        let core = rows(&results.join("core.json"))?;
        let path = |name: &str| {
            let wanted = |row: &&Value| row["path"] == name && row["flows"] == FLOWS;
            number(&core, wanted, "ns_per_packet")
                .with_context(|| format!("core.json has no {name} with {FLOWS} flows"))
        };
        let session = rows(&results.join("session.json"))?;
        let replicas = |row: &&Value| row["direction"] == "download" && row["replicas"] == REPLICAS;
        let lab = rows(&results.join("replicate.json"))?;
        let bulk = |row: &&Value| {
            row["case"] == "bulk-download"
                && row["balancer"] == "lockstep"
                && row["replicas"] == REPLICAS
        };
        let idle = |row: &&Value| row["case"] == "idle-session";
        let table = FlowTable::<FlowKey4>::new(FLOWS as usize);
        Ok(Costs {
            tunnel: path("tunnel-v4")?,
            nat: f64::midpoint(path("nat-v4")?, path("nat-v4-answers")?),
            replicate: number(&session, replicas, "ns_per_packet")
                .context("session.json has no downloads to 3 replicas")?,
            opening: path("new-flows-v4")?,
            opening_nat: path("new-nat-v4")?,
            copied: copied(results)? * 1_000.0,
            // Seconds for a gigabyte are nanoseconds for a byte.
            copied_segment: SEGMENT
                * number(&lab, bulk, "cpu_s_per_gb")
                    .context("replicate.json has no downloads to 3 replicas")?,
            flow_bytes: table.memory() as f64 / FLOWS as f64,
            session_bytes: 1_024.0
                * number(&lab, idle, "kib_per_session")
                    .context("replicate.json has no idle sessions")?,
        })
    }

    /// Nanoseconds in memory for a packet that opens a flow. What opens a session is not measured alone:
    /// it is held to be what NAT takes, and sessions are bound by memory long before.
    pub fn opening(&self, treatment: Treatment) -> f64 {
        match treatment {
            Treatment::Tunnel => self.opening,
            Treatment::Nat | Treatment::Replicate => self.opening_nat,
        }
    }

    /// Nanoseconds for a packet of a client, or of an answer.
    pub fn packet(&self, treatment: Treatment, devices: Devices, device_ns: f64) -> f64 {
        let memory = match treatment {
            Treatment::Tunnel => self.tunnel,
            Treatment::Nat => self.nat,
            // What is measured is each way through the replicator: one in and three out, or three
            // in and one out, are four for a segment.
            Treatment::Replicate => 2.0 * self.replicate,
        };
        match devices {
            Devices::ZeroCopy => treatment.packets() * (memory + device_ns),
            Devices::Copied => match treatment {
                Treatment::Tunnel => self.copied,
                Treatment::Nat => self.copied + self.nat - self.tunnel,
                Treatment::Replicate => self.copied_segment,
            },
        }
    }
}

/// CPU microseconds for a packet of 64 bytes, all of it on one CPU.
fn copied(results: &Path) -> Result<f64> {
    const CASE: &str = "lockstep-tunnel-one-cpu";
    let compare = read(&results.join("compare.json"))?;
    let wanted = |row: &&Value| row["case"] == CASE && row["bytes"] == 64 && row["load"] == "udp";
    number(
        compare["packets"].as_array().map_or(&[], Vec::as_slice),
        wanted,
        "cpu_s_per_million_packets",
    )
    .with_context(|| format!("there is no {CASE} with 64 bytes: `make compare` measures it"))
}

fn number(rows: &[Value], wanted: impl Fn(&&Value) -> bool, key: &str) -> Option<f64> {
    rows.iter().find(wanted)?[key].as_f64()
}

fn rows(path: &Path) -> Result<Vec<Value>> {
    Ok(origin::rows(read(path)?).1)
}

fn read(path: &Path) -> Result<Value> {
    let file = path.file_name().and_then(|name| name.to_str());
    let by = match file {
        Some("compare.json") => "make compare",
        Some("replicate.json") => "make bench-replicate",
        _ => "make bench",
    };
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; `{by}` writes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} has no results that could be read: `{by}` writes it anew",
            path.display()
        )
    })
}
