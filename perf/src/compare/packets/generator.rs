//! The load: frames from an AF_XDP socket at a fixed rate, by a process of its own inside the
//! generator's namespace.

use super::super::Cpus;
use super::super::engine::IN;
use super::network::{DEVICE, GENERATOR, Network, PORT};
use crate::cpu;
use anyhow::{Context, Result, ensure};
use lockstep_wire::checksum;
use lockstep_xsk::{BURST, FramePool, FrameSize, Port, PortOptions, Umem, UmemConfig};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What is to be sent.
#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// Flows, by source address and port.
    #[arg(long)]
    pub flows: u32,
    /// Bytes of each frame, its checksum sequence included.
    #[arg(long)]
    pub bytes: usize,
    /// Packets offered a second.
    #[arg(long)]
    pub packets_per_second: u64,
    /// For how long.
    #[arg(long)]
    pub milliseconds: u64,
}

/// What was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sent {
    /// Frames that the kernel took.
    pub packets: u64,
    /// The time that took.
    pub seconds: f64,
    /// The part of it for which the balancer's CPU was not idle.
    pub balancer_cpu_seconds: f64,
}

/// Runs the generator to its end.
pub fn start(network: &Network, destination: Ipv4Addr, cpus: Cpus, load: &Load) -> Result<Sent> {
    let mac = network.balancer.mac(IN)?.map(|byte| format!("{byte:02x}"));
    let mut command = network.generator.command(std::env::current_exe()?);
    command.arg("send");
    command.args(["--cpu", &cpus.generator.to_string()]);
    command.args(["--balancer-cpu", &cpus.balancer.to_string()]);
    command.args(["--mac", &mac.join("")]);
    command.args(["--destination", &destination.to_string()]);
    command.args(["--flows", &load.flows.to_string()]);
    command.args(["--bytes", &load.bytes.to_string()]);
    let rate = load.packets_per_second.to_string();
    command.args(["--packets-per-second", &rate]);
    command.args(["--milliseconds", &load.milliseconds.to_string()]);
    let output = command.output().context("cannot run the generator")?;
    ensure!(
        output.status.success(),
        "the generator failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("the generator did not say what it sent")
}

/// `lockstep-perf send`: the generator itself. Prints [`Sent`] as JSON.
pub fn send(cpus: Cpus, mac: &str, destination: Ipv4Addr, load: &Load) -> Result<()> {
    let cpu = cpus.generator;
    let on_core = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    ensure!(on_core, "cannot run on CPU {cpu}");
    ensure!(
        SIZES.contains(&load.bytes),
        "no frame has {} bytes",
        load.bytes
    );
    let frames = frames(parse_mac(mac)?, destination, load);
    let memory = UmemConfig {
        frame_size: FrameSize::Bytes4096,
        ..UmemConfig::default()
    };
    let (umem, mut pool) = Umem::new(&memory)?;
    let mut port = Port::bind(&umem, &mut pool, DEVICE, 0, &PortOptions::default())?;
    let idle = cpu::idle(cpus.balancer)?;
    let start = Instant::now();
    let end = Duration::from_millis(load.milliseconds);
    let mut elapsed = Duration::ZERO;
    let mut sent = 0_u64;
    while elapsed < end {
        let due = (elapsed.as_secs_f64() * load.packets_per_second as f64) as u64;
        // Never more at once than a burst: what a veth cannot take it drops, and time that was
        // lost is not caught up with by a flood.
        let burst = due.saturating_sub(sent).min(BURST as u64);
        let staged = (sent..sent + burst)
            .take_while(|at| {
                let frame = &frames[(at % frames.len() as u64) as usize];
                stage(&mut port, &mut pool, frame)
            })
            .count();
        sent += staged as u64;
        if burst > 0 {
            port.flush()?;
            port.reap(&mut pool);
        } else {
            std::hint::spin_loop();
        }
        elapsed = start.elapsed();
    }
    let idle = cpu::idle(cpus.balancer)? - idle;
    let report = Sent {
        packets: port.counters().sent,
        seconds: elapsed.as_secs_f64(),
        balancer_cpu_seconds: (elapsed.as_secs_f64() - idle).max(0.0),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Whether there was room: the kernel may be behind with what it was given.
fn stage(port: &mut Port, pool: &mut FramePool, bytes: &[u8]) -> bool {
    let Some(mut frame) = pool.take() else {
        return false;
    };
    let filled = frame.fill(bytes);
    debug_assert!(filled.is_ok(), "a chunk has room for a frame");
    match port.send(frame) {
        Ok(()) => true,
        Err(frame) => {
            pool.put(frame);
            false
        }
    }
}

/// The checksum sequence behind a frame, which a veth does not have.
const CHECKSUM_SEQUENCE: usize = 4;
/// Lengths that a frame may have, from Ethernet's shortest on.
const SIZES: RangeInclusive<usize> = 64..=super::LARGE;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Source ports of each source address.
const PORTS: u32 = 50_000;

/// A frame of each flow. The UDP checksum is left out (RFC 768 allows that), so that nobody has
/// to verify it: a NIC has done so before the kernel sees a packet.
fn frames(balancer: [u8; 6], destination: Ipv4Addr, load: &Load) -> Vec<Vec<u8>> {
    let length = load.bytes - CHECKSUM_SEQUENCE;
    let one = |flow: u32| {
        let mut frame = vec![0; length];
        frame[..6].copy_from_slice(&balancer);
        // Nobody answers: any address of the generator's link will do.
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip = &mut frame[ETHERNET..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((length - ETHERNET) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = 17;
        let source = u32::from(GENERATOR) + flow / PORTS;
        ip[12..16].copy_from_slice(&source.to_be_bytes());
        ip[16..20].copy_from_slice(&destination.octets());
        let sum = checksum::checksum(&ip[..IPV4]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let udp = &mut ip[IPV4..];
        udp[..2].copy_from_slice(&((10_000 + flow % PORTS) as u16).to_be_bytes());
        udp[2..4].copy_from_slice(&PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&((length - ETHERNET - IPV4) as u16).to_be_bytes());
        frame
    };
    (0..load.flows.max(1)).map(one).collect()
}

/// Six bytes of two hexadecimal digits each.
fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let number = u64::from_str_radix(text, 16).context("not a link-layer address")?;
    let bytes = number.to_be_bytes();
    ensure!(text.len() == 12, "not a link-layer address: {text}");
    Ok([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

#[cfg(test)]
mod tests;
