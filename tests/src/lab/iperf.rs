//! iperf3: UDP at a given rate, and what was lost of it; TCP either way.

use super::netns::Netns;
use super::process::Process;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// An iperf3 server, until dropped.
#[derive(Debug)]
pub struct IperfServer(pub(super) Process);

impl IperfServer {
    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Upload,
    /// From the server to the client (`-R`).
    Download,
}

/// An iperf3 client over TCP, under way.
#[derive(Debug)]
pub struct IperfTcp {
    process: Process,
    limit: Duration,
}

impl IperfTcp {
    /// Starts one for `seconds`, at no more than `megabits` a second, that reports twice a second. A
    /// server that sends repeats what it sends, as every other one does: by default it is random.
    pub(super) fn start(
        netns: &Netns,
        to: IpAddr,
        direction: Direction,
        megabits: u32,
        seconds: u32,
    ) -> Result<Self> {
        let mut command = netns.command("iperf3");
        command.args(["--client", &to.to_string(), "--time", &seconds.to_string()]);
        command.args(["--bitrate", &format!("{megabits}M"), "--interval", "0.5"]);
        command.args(["--forceflush", "--repeating-payload", "--format", "k"]);
        if direction == Direction::Download {
            command.arg("--reverse");
        }
        Ok(IperfTcp {
            process: netns.spawn("iperf3", command)?,
            limit: Duration::from_secs(u64::from(seconds) + 20),
        })
    }

    /// The kilobits a second of each half second so far. An error when it has ended.
    pub fn intervals(&mut self) -> Result<Vec<u64>> {
        self.process.must_run()?;
        Ok(intervals(&self.process.log()))
    }

    /// Waits for the end, which must be a good one.
    pub fn finish(mut self) -> Result<Vec<u64>> {
        let status = self.process.wait(self.limit)?;
        let log = self.process.log();
        ensure!(
            status.success() && log.contains("iperf Done."),
            "iperf3 failed ({status}): {log}"
        );
        Ok(intervals(&log))
    }
}

/// The rates in iperf3's report, up to its summary.
fn intervals(log: &str) -> Vec<u64> {
    let lines = log.lines().take_while(|line| !line.starts_with("- - -"));
    let rate = |line: &str| -> Option<u64> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let unit = words.iter().position(|word| *word == "Kbits/sec")?;
        words.get(unit.checked_sub(1)?)?.parse().ok()
    };
    lines.filter_map(rate).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_a_report_are_read_without_its_summary() {
        let log = "Connecting to host 203.0.113.10, port 5201\n[  5] local 198.51.100.2 port 1 \
            connected to 203.0.113.10 port 5201\n[ ID] Interval           Transfer     Bitrate\n\
            [  5]   0.00-0.50   sec  18.8 MBytes  314573 Kbits/sec    0   1.15 MBytes\n\
            [  5]   0.50-1.00   sec  0.00 Bytes  0 Kbits/sec\n- - - - - -\n\
            [  5]   0.00-1.00   sec  37.5 MBytes  314573 Kbits/sec    0    sender\n\niperf Done.\n";
        assert_eq!(intervals(log), [314_573, 0]);
    }
}
