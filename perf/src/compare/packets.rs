//! Datagrams: what each case carries at most.
//!
//! ```text
//!   generator ──────── in0  balancer  out0 ──────── sink
//!   198.18.0.2         198.18.0.1     198.19.0.1    198.19.0.11 to .14
//! ```
//!
//! The kernel makes the packets ([`OfferProgram`](lockstep_bpf::OfferProgram)): UDP of many flows in frames
//! of one size at a fixed rate, whatever comes of it (open loop). A socket could not send as many as XDP
//! forwards, and a veth's receiver would have skbs of the sender's to take apart; these come as a
//! driver's do. A trial offers one rate; trials with growing rates go on until the generator can do
//! no more or the balancer sinks under the load, and the most that arrived in any of them is the
//! result: the maximum forwarding rate of RFC 2285, section 3.6.2. What arrives is counted the
//! same way for every case, by a rule on the sink's end of the last link.
//!
//! A veth's receiving side runs on the CPU that sends, as a driver's would on the CPU of the
//! queue's interrupt. So the generator's CPU also takes packets in; the balancer's work, a worker of
//! the engine or the kernel by way of RPS, has the other CPU, and the sink's side with it. What an
//! XDP program does before it gives packets to a worker is on the generator's CPU too, but for the
//! cases in which a kernel thread on the balancer's CPU takes packets in.

mod balancer;
mod network;
mod trial;

pub use balancer::{destination, start};
pub use network::{DEVICE, Network, PORT};

use super::Cpus;
use super::case::Case;
use super::engine::IN;
use super::results::PacketRound;
use super::sizes::{self, Outcomes};
use crate::load::{Load, Mac, Mix, Place, Protocol, Scenario};
use anyhow::{Result, anyhow, ensure};
use lockstep_bpf::Offer;
use lockstep_tests::lab::Netns;
use lockstep_wire::checksum;
use std::net::Ipv4Addr;
use std::time::Duration;
use trial::Trial;

/// The largest frame, its checksum sequence included: what the kernel's own packets have room for in a
/// page of 4,096 bytes, beside what it keeps there.
pub const LARGE: usize = 3_396;
/// Of links with such frames, and a tunnel's header in front of them.
pub const LARGEST_MTU: u16 = 3_398;
/// Of links without: room for a tunnel's header in front of a whole packet.
const MTU: u16 = 1_600;
/// The checksum sequence behind a frame, which a veth does not have.
const CHECKSUM_SEQUENCE: usize = 4;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Ethernet's header and the checksum sequence.
const FRAMING: usize = ETHERNET + CHECKSUM_SEQUENCE;

/// How a ramp is made.
#[derive(Debug, Clone)]
pub struct Ramp {
    /// Flows.
    pub flows: u32,
    /// Of each trial.
    pub milliseconds: u64,
    /// What a rate is multiplied with for the next trial.
    pub growth: f64,
    /// Prints every trial.
    pub verbose: bool,
}

/// The first rate that is offered, in packets a second.
const FIRST: u64 = 200_000;
/// No rate above this is offered: more than a veth carries on any machine of today.
const LAST: u64 = 5_000_000;
/// No rate below this is looked for.
const LEAST: u64 = 10_000;

/// The MTU of links for frames of these sizes.
pub const fn mtu(bytes: usize) -> u16 {
    if bytes <= MTU as usize - 100 {
        MTU
    } else {
        LARGEST_MTU
    }
}

/// The length of an IP packet in a frame of so many bytes, its checksum sequence included.
pub const fn packet_bytes(frame: usize) -> usize {
    frame - FRAMING
}

/// One case in networks of its own, one for each MTU: a ramp with frames of each size. `last` tells the maximum
/// of a size in the round before.
pub fn round(
    case: Case,
    sizes: &[usize],
    last: impl Fn(usize) -> Option<f64>,
    cpus: Cpus,
    settings: &Ramp,
) -> Outcomes {
    let of_links = [MTU, LARGEST_MTU].map(|wanted| {
        let of_link = sizes.iter().copied().filter(|bytes| mtu(*bytes) == wanted);
        let place = || {
            let network = Network::build(wanted, case.passes_frames())?;
            let balancer = start(case, &network, cpus)?;
            // What runs in a network ends before it does.
            Ok((balancer, network))
        };
        sizes::each(of_link, place, |(balancer, network), bytes| {
            let trial = |offer: &Offer<'_>| trial::run(network, balancer, cpus, offer);
            let packet = datagram(network.balancer.mac(IN)?, destination(case), bytes);
            most_of(case, &packet, trial, last(bytes), settings)
        })
    });
    of_links.into_iter().flatten().collect()
}

/// The ramp of one size, and what it comes to.
fn most_of(
    case: Case,
    packet: &[u8],
    run: impl Fn(&Offer<'_>) -> Result<Trial>,
    last: Option<f64>,
    settings: &Ramp,
) -> Result<PacketRound> {
    let bytes = packet.len() + CHECKSUM_SEQUENCE;
    let trial = |packets_per_second| {
        let trial = run(&Offer {
            interface: DEVICE,
            packet,
            flows: settings.flows,
            packets_per_second,
            duration: Duration::from_millis(settings.milliseconds),
        })?;
        if settings.verbose {
            let text = serde_json::to_string(&trial)?;
            eprintln!("{case:<24} {bytes:>5} {text}");
        }
        Ok(trial)
    };
    Ok(best(&ramp(trial, last, settings.growth)?, bytes))
}

/// A datagram of the first flow, in a frame of so many bytes with its checksum sequence. The UDP checksum
/// is left out (RFC 768 allows that), so that nobody has to verify it: a NIC has done so before the
/// kernel sees a packet.
fn datagram(balancer: [u8; 6], destination: Ipv4Addr, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; bytes - CHECKSUM_SEQUENCE];
    let (ethernet, ip) = frame.split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&balancer);
    // Nobody answers: any address will do.
    ethernet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    ethernet[12..].copy_from_slice(&[0x08, 0x00]);
    let length = ip.len() as u16;
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&network::GENERATOR.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let sum = checksum::checksum(&ip[..IPV4]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = &mut ip[IPV4..];
    udp[..2].copy_from_slice(&10_000_u16.to_be_bytes());
    udp[2..4].copy_from_slice(&PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&(length - IPV4 as u16).to_be_bytes());
    frame
}

/// Datagrams to a case, by the generator: at no rate and for no time yet, and counted by the sink's
/// kernel, which takes them as fast as it can for every case.
pub fn scenario(
    case: Case,
    network: &Network,
    cpus: Cpus,
    flows: u32,
    bytes: usize,
) -> Result<Scenario> {
    let load = Load {
        protocol: Protocol::Udp,
        destinations: vec![(destination(case), PORT).into()],
        sources: network::sources(flows),
        flows,
        sizes: Mix::one(bytes).map_err(|error| anyhow!(error))?,
        packets_per_second: 0,
        seconds: 0.0,
        path: "/".to_owned(),
        next_hop: Some(Mac(network.balancer.mac(IN)?)),
        sink_ports: Vec::new(),
    };
    Ok(Scenario {
        source: place(&network.generator, DEVICE),
        sink: None,
        cpu: cpus.generator,
        observed_cpu: Some(cpus.balancer),
        load,
    })
}

/// The only queue of a device.
pub fn place(netns: &Netns, device: &str) -> Place {
    Place {
        netns: Some(netns.name().to_owned()),
        interface: device.to_owned(),
        queue: 0,
    }
}

/// Trials at growing rates; where the round before had its maximum at `last`, most of those far
/// below it are left out. Those in between follow where that is too high to be carried without loss.
fn ramp(
    mut trial: impl FnMut(u64) -> Result<Trial>,
    last: Option<f64>,
    growth: f64,
) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    let mut beyond = 0;
    let mut offered = FIRST;
    // One trial beyond can be somebody else's doing, who had the CPU meanwhile.
    while offered <= LAST && beyond < 2 {
        let outcome = trial(offered)?;
        let exhausted = outcome.sent_per_second < 0.9 * offered as f64;
        let sunk = outcome.packets_per_second < 0.7 * most(&trials) || outcome.loss > 0.4;
        beyond += usize::from(exhausted || sunk);
        trials.push(outcome);
        let jump = last.filter(|_| trials.len() == 1).unwrap_or(0.0) * 0.64;
        offered = ((offered as f64 * growth) as u64).max(jump as u64);
    }
    // Where even the first rate was too much: what is not.
    let mut offered = FIRST / 2;
    while offered >= LEAST && trials.iter().all(|trial| trial.loss > CALM) {
        trials.push(trial(offered)?);
        offered /= 2;
    }
    ensure!(
        most(&trials) > 0.0,
        "no packet arrived: it does not forward"
    );
    while let Some(offered) = unknown(&trials, growth) {
        trials.push(trial(offered)?);
    }
    Ok(trials)
}

/// A rate between the highest that was carried without loss and the next higher one that was offered, where
/// these are further apart than two trials of a ramp: what was left out may be carried, too. Each trial halves
/// the distance.
fn unknown(trials: &[Trial], growth: f64) -> Option<u64> {
    let calm = trials.iter().filter(|trial| trial.loss <= CALM);
    let carried = calm.map(|trial| trial.offered_per_second).max()?;
    let offered = trials.iter().map(|trial| trial.offered_per_second);
    let next = offered.filter(|offered| *offered > carried).min()?;
    let apart = next as f64 / carried as f64;
    // Whole packets a second: a ramp's own rates are a little closer than this, or a little less.
    (apart > growth * 1.01).then_some((carried as f64 * apart.sqrt()) as u64)
}

/// A trial in which the generator sent this share of the most that it sent in any is one in which it
/// could hardly send more.
const NO_MORE: f64 = 0.95;

/// The share of packets that may be lost where next to none are.
pub const CALM: f64 = 0.01;

/// The most that arrived in any trial, in packets a second.
fn most(trials: &[Trial]) -> f64 {
    let rates = trials.iter().map(|trial| trial.packets_per_second);
    rates.fold(0.0, f64::max)
}

/// What a ramp comes to: its trial with the most that arrived.
fn best(trials: &[Trial], bytes: usize) -> PacketRound {
    let calm = trials.iter().filter(|trial| trial.loss <= CALM);
    let calm = calm.map(|trial| trial.packets_per_second);
    let by_rate = |a: &&Trial, b: &&Trial| a.packets_per_second.total_cmp(&b.packets_per_second);
    let best = trials.iter().max_by(by_rate);
    let sent = trials.iter().map(|trial| trial.sent_per_second);
    let sent = sent.fold(0.0, f64::max);
    PacketRound {
        packets_per_second: most(trials),
        frame_bytes: bytes as f64,
        payload_gbit: None,
        calm: calm.max_by(f64::total_cmp),
        loss: best.map(|best| best.loss),
        bound_by_generator: best
            .is_some_and(|best| best.loss <= CALM && best.sent_per_second >= NO_MORE * sent),
        cpu_s_per_million: best.and_then(|best| best.cpu_s_per_million_packets),
        balancer_cpu: best.map_or(0.0, |best| best.balancer_cpu),
    }
}

#[cfg(test)]
mod tests;
