//! Packets of TCP: for those that end connections, which have no datagrams to be counted by.
//!
//! Of the smallest class are HTTP requests with the shortest answers, on many connections; of the
//! others one upload as fast as it goes, over links whose MTU makes full segments that long. What is
//! counted is what the balancer's devices receive from either side, acknowledgements included.

use super::Cpus;
use super::case::Case;
use super::packets::packet_bytes;
use super::requests::{self, CHECKSUM_SEQUENCE, Load, Network, Servers, Settings, start};
use super::results::PacketRound;
use super::sizes::{self, Outcomes};
use crate::cpu::{self, Busy};
use crate::host;
use crate::measure::rounded;
use crate::reading::Reading;
use crate::replicate::{Direction, Transfer};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::wait_until;
use std::time::{Duration, Instant};

/// The packets of requests are of this class: of no use with a fixed MTU.
pub const SMALLEST: usize = 64;
/// Before anything is measured: congestion windows and buffers grow.
const WARM_UP: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(10);

/// One case: a trial with packets of each size, in a network of its own.
pub fn round(case: Case, sizes: &[usize], cpus: Cpus, settings: &Settings) -> Outcomes {
    let of_size = |bytes| {
        let round = match bytes {
            SMALLEST => shortest_requests(case, cpus, settings)?,
            _ => upload(case, bytes, cpus, settings)?,
        };
        if settings.verbose {
            eprintln!("{case:<24} {bytes:>5} {}", serde_json::to_string(&round)?);
        }
        Ok(round)
    };
    let nowhere = || Ok(());
    sizes::each(sizes.iter().copied(), nowhere, |(), bytes| of_size(bytes))
}

fn shortest_requests(case: Case, cpus: Cpus, settings: &Settings) -> Result<PacketRound> {
    let direct = case.answers_directly();
    let network = Network::build(direct, cpus, requests::MTU, Servers::Http)?;
    let _balancer = start(case, &network, cpus)?;
    network.answers().context("no request is answered")?;
    let trial = requests::calm_trial(&network, Load::Least, settings, cpus)?;
    ensure!(trial.errors == 0, "{} requests failed", trial.errors);
    Ok(PacketRound {
        packets_per_second: trial.packets_per_second,
        frame_bytes: trial.frame_bytes,
        payload_gbit: None,
        calm: None,
        loss: None,
        bound_by_generator: false,
        cpu_s_per_million: Some(trial.cpu_s_per_million_packets),
        balancer_cpu: trial.balancer_cpu,
    })
}

fn upload(case: Case, bytes: usize, cpus: Cpus, settings: &Settings) -> Result<PacketRound> {
    let mtu = u16::try_from(packet_bytes(bytes)).context("no frame is that long")?;
    let network = Network::build(case.answers_directly(), cpus, mtu, Servers::Stream)?;
    let _balancer = start(case, &network, cpus)?;
    let transfer = Transfer::start(network.base(), Direction::Upload, cpus.generator)?;
    let begin = Instant::now();
    wait_until("the upload is under way", SOON, || {
        let under_way = transfer.bytes() > 0 && begin.elapsed() >= WARM_UP;
        Ok((under_way || transfer.has_ended()).then_some(()))
    })?;
    let round = host::calmest(&cpus.both(), settings.seconds, || {
        window(&network, &transfer, cpus, settings)
    })?;
    transfer.stop()?;
    Ok(round)
}

/// What an upload that is under way comes to, for as long as a trial takes.
fn window(
    network: &Network,
    transfer: &Transfer,
    cpus: Cpus,
    settings: &Settings,
) -> Result<PacketRound> {
    let read = || Reading::make(|| Ok((network.received()?, transfer.bytes())));
    let (before, idle) = (read()?, cpu::unused_now(cpus.balancer)?);
    let duration = Duration::from_secs(settings.seconds);
    wait_until("the trial is over", duration + SOON, || {
        let over = before.at.elapsed() >= duration || transfer.has_ended();
        Ok(over.then_some(()))
    })?;
    let after = read()?;
    let busy = Busy::between(idle, cpu::unused_now(cpus.balancer)?)?;
    let seconds = after.seconds_since(&before);
    let ((before, sent_before), (after, sent)) = (before.value, after.value);
    let payload = sent.saturating_sub(sent_before);
    let packets = after.packets.saturating_sub(before.packets);
    ensure!(packets > 0, "no packet was passed on");
    let packets = packets as f64;
    let bytes = (after.bytes - before.bytes) as f64;
    // Of the time in which packets were counted.
    let busy_seconds = busy.share() * seconds;
    Ok(PacketRound {
        packets_per_second: (packets / seconds).round(),
        frame_bytes: (bytes / packets + CHECKSUM_SEQUENCE).round(),
        payload_gbit: Some(rounded(payload as f64 * 8.0 / seconds / 1e9, 3)),
        calm: None,
        loss: None,
        bound_by_generator: false,
        cpu_s_per_million: Some(rounded(busy_seconds / packets * 1e6, 2)),
        balancer_cpu: rounded(busy.share(), 2),
    })
}
