//! How many hosts a load takes.

use super::costs::{Costs, Devices, Treatment};
use anyhow::{Result, ensure};
use serde::Serialize;

/// What hosts are like, and how full they may be.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Hosts {
    /// CPUs of a host that forward packets, each with a queue of its own.
    #[arg(long, default_value_t = 16)]
    pub cores: u32,
    /// What a host's NIC carries in each direction, in Gbit/s.
    #[arg(long, default_value_t = 100.0)]
    pub nic_gbit: f64,
    /// Memory of a host for flows or sessions, in GiB.
    #[arg(long, default_value_t = 64.0)]
    pub memory_gib: f64,
    /// The share of CPUs, NIC and memory that may be used, up to 1.
    #[arg(long, default_value_t = 0.7)]
    pub share: f64,
    /// Nanoseconds for receiving and sending a packet through a NIC with zero-copy. An assumption: 14 million
    /// packets a second and CPU each way, unless said otherwise.
    #[arg(long, default_value_t = 143.0)]
    pub device_ns: f64,
    /// How long a flow or a session lasts, in seconds: how many are opened a second.
    #[arg(long, default_value_t = 60.0)]
    pub flow_seconds: f64,
}

/// Packets of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Packets {
    pub name: &'static str,
    /// The mean of the frames, in bytes, with the checksum sequence.
    pub bytes: f64,
}

/// The smallest frames, the usual mix (7 of 64, 4 of 570, 1 of 1,518), and large ones.
pub const PACKETS: [Packets; 3] = [
    Packets {
        name: "64 bytes",
        bytes: 64.0,
    },
    Packets {
        name: "IMIX",
        bytes: (7.0 * 64.0 + 4.0 * 570.0 + 1_518.0) / 12.0,
    },
    Packets {
        name: "1,400 bytes",
        bytes: 1_400.0,
    },
];

/// What is used up first where it is the link.
pub const NIC: &str = "NIC";
/// Preamble and gap of a frame.
const WIRE: f64 = 20.0;

/// What a number of hosts is for, and what it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Needed {
    /// With one more than needed.
    pub hosts: f64,
    /// What is used up first.
    pub bound: &'static str,
}

impl Hosts {
    /// Hosts that carry nothing carry no load, however many there are.
    pub fn check(&self) -> Result<()> {
        ensure!(self.cores > 0, "a host has a CPU at least: --cores");
        ensure!(
            self.share > 0.0 && self.share <= 1.0,
            "--share is above 0, and 1 at most"
        );
        for (name, value) in [
            ("--nic-gbit", self.nic_gbit),
            ("--memory-gib", self.memory_gib),
            ("--flow-seconds", self.flow_seconds),
        ] {
            ensure!(value > 0.0 && value.is_finite(), "{name} is above 0");
        }
        ensure!(
            self.device_ns >= 0.0 && self.device_ns.is_finite(),
            "--device-ns is 0 at least"
        );
        Ok(())
    }

    /// The hosts for so many Gbit/s of packets, spread so unevenly.
    pub fn for_traffic(
        &self,
        costs: &Costs,
        gbit: f64,
        packets: Packets,
        (treatment, devices): (Treatment, Devices),
        unevenness: f64,
    ) -> Needed {
        let wire_bits = 8.0 * (packets.bytes + WIRE);
        let packets_per_second = gbit * 1e9 / wire_bits;
        let ns = costs.packet(treatment, devices, self.device_ns);
        let by_cpu = packets_per_second * ns / 1e9 / f64::from(self.cores);
        let out_bits = 8.0 * (packets.bytes + treatment.header() + WIRE) * treatment.copies();
        let by_nic = packets_per_second * out_bits / (self.nic_gbit * 1e9);
        self.needed([(by_cpu, "CPU"), (by_nic, NIC)], unevenness)
    }

    /// The hosts for so many flows, or sessions.
    pub fn for_flows(
        &self,
        costs: &Costs,
        flows: f64,
        treatment: Treatment,
        unevenness: f64,
    ) -> Needed {
        let bytes = match treatment {
            Treatment::Tunnel | Treatment::Nat => costs.flow_bytes,
            Treatment::Replicate => costs.session_bytes,
        };
        let by_memory = flows * bytes / (self.memory_gib * 1024.0 * 1024.0 * 1024.0);
        let opened = flows / self.flow_seconds;
        let ns = costs.opening(treatment) + self.device_ns;
        let by_cpu = opened * ns / 1e9 / f64::from(self.cores);
        self.needed([(by_memory, "memory"), (by_cpu, "CPU")], unevenness)
    }

    fn needed(&self, full: [(f64, &'static str); 2], unevenness: f64) -> Needed {
        let (most, bound) = match full {
            [first, second] if second.0 > first.0 => second,
            [first, _] => first,
        };
        Needed {
            hosts: (most * unevenness / self.share).ceil().max(1.0) + 1.0,
            bound,
        }
    }
}
