//! iperf3: UDP at a given rate, and what was lost of it.

use super::netns::Netns;
use super::process::Process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::IpAddr;

/// An iperf3 server, until dropped.
#[derive(Debug)]
pub struct IperfServer(#[expect(dead_code, reason = "kept for its drop")] pub(super) Process);

/// What an iperf3 client and its server saw of a UDP stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UdpReport {
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// Bits a second, of payload.
    pub rate: f64,
}

/// Sends UDP to `to` for `seconds` at `megabits` a second, 1,200 bytes a datagram.
pub(super) fn udp(netns: &Netns, to: IpAddr, megabits: u32, seconds: u32) -> Result<UdpReport> {
    let (to, rate) = (to.to_string(), format!("{megabits}M"));
    let seconds = seconds.to_string();
    let args = [
        "-u", "-J", "-l", "1200", "-b", &rate, "-t", &seconds, "-c", &to,
    ];
    let text = netns.output("iperf3", &args)?;
    let report: Value = serde_json::from_str(&text).context("iperf3 wrote no JSON")?;
    let sum = &report["end"]["sum"];
    let field = |name: &str| {
        (sum[name].as_f64()).with_context(|| format!("iperf3 reports no {name}: {sum}"))
    };
    Ok(UdpReport {
        packets: field("packets")? as u64,
        lost: field("lost_packets")? as u64,
        rate: field("bits_per_second")?,
    })
}
