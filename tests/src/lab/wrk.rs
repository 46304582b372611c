//! wrk: closed-loop HTTP load, and what it reports.

use super::netns::Netns;
use super::process::Process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// A load to be made.
#[derive(Debug, Clone)]
pub struct Wrk {
    url: String,
    connections: u32,
    duration: Duration,
    close: bool,
    script: Option<PathBuf>,
}

impl Wrk {
    /// 32 connections for two seconds, kept open.
    pub fn new(url: impl Into<String>) -> Self {
        let duration = Duration::from_secs(2);
        Wrk {
            url: url.into(),
            connections: 32,
            duration,
            close: false,
            script: None,
        }
    }

    /// Concurrent connections.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// How long, in whole seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.duration = Duration::from_secs(seconds);
        self
    }

    /// A new connection, and so a new flow, for every request.
    #[must_use]
    pub fn connection_per_request(mut self) -> Self {
        self.close = true;
        self
    }

    /// Requests as a Lua script of wrk's makes them.
    #[must_use]
    pub fn script(mut self, script: PathBuf) -> Self {
        self.script = Some(script);
        self
    }

    /// Runs the load to its end.
    pub fn run(&self, netns: &Netns) -> Result<WrkReport> {
        self.spawn(netns)?.report()
    }

    /// Starts the load.
    pub(super) fn spawn(&self, netns: &Netns) -> Result<RunningWrk> {
        let mut command = netns.command("wrk");
        command.args([
            "-t",
            "1",
            "-c",
            &self.connections.to_string(),
            "--timeout",
            "5s",
        ]);
        command.args(["--latency", "-d", &format!("{}s", self.duration.as_secs())]);
        if self.close {
            command.args(["-H", "Connection: close"]);
        }
        if let Some(script) = &self.script {
            command.arg("-s").arg(script);
        }
        command.arg(&self.url);
        Ok(RunningWrk {
            process: netns.spawn("wrk", command)?,
            duration: self.duration,
        })
    }
}

/// A load under way.
#[derive(Debug)]
pub struct RunningWrk {
    process: Process,
    duration: Duration,
}

impl RunningWrk {
    /// Ends the load now.
    pub fn finish(self) -> Result<WrkReport> {
        self.process.signal(Signal::SIGINT)?;
        self.report()
    }

    /// Waits for the load's end.
    pub fn report(mut self) -> Result<WrkReport> {
        let status = self.process.wait(self.duration + Duration::from_secs(15))?;
        let text = self.process.log();
        if !status.success() {
            bail!("wrk failed ({status}): {text}");
        }
        WrkReport::parse(&text).with_context(|| format!("wrk wrote:\n{text}"))
    }
}

/// What wrk saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrkReport {
    /// Answered requests.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Connections that failed, broken reads and writes, time-outs.
    pub socket_errors: u64,
    /// Answers with a status of 400 or above.
    pub bad_status: u64,
    /// Latency at 50, 75, 90 and 99 %.
    pub latency: [Duration; 4],
}

impl WrkReport {
    /// Everything that is not a good answer.
    pub fn errors(&self) -> u64 {
        self.socket_errors + self.bad_status
    }

    fn parse(text: &str) -> Result<Self> {
        let mut report = WrkReport::default();
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if line.contains(" requests in ") {
                report.requests = first.parse().context("requests")?;
            } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
                report.rate = rate.trim().parse().context("rate")?;
            } else if let Some(list) = line.strip_prefix("Socket errors:") {
                let counts = list.split(',').filter_map(|item| item.rsplit(' ').next());
                report.socket_errors = counts.map(|n| n.parse().unwrap_or(u64::MAX / 8)).sum();
            } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
                report.bad_status = count.trim().parse().context("bad status")?;
            } else if let Some(at) = ["50%", "75%", "90%", "99%"]
                .iter()
                .position(|p| *p == first)
            {
                report.latency[at] = time(words.next().unwrap_or_default()).context("latency")?;
            }
        }
        if report.requests == 0 {
            bail!("wrk reports no requests");
        }
        Ok(report)
    }
}

/// A time as wrk writes it: `250.00us`, `1.02ms`, `2.00s`, `1.10m`.
fn time(text: &str) -> Result<Duration> {
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .context("a time without a unit")?;
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().with_context(|| format!("time {text:?}"))?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => bail!("time {text:?} has an unknown unit"),
    };
    Ok(Duration::from_secs_f64(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_errors_is_read_in_full() {
        let text = "Running 2s test @ http://203.0.113.10/\n  1 threads and 32 connections\n  \
            Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   635.91us    0.89ms  \
            12.92ms   93.69%\n    Req/Sec    56.20k     8.07k   62.00k    86.54%\n  Latency \
            Distribution\n     50%  250.00us\n     75%    1.50ms\n     90%    2.00s\n     99%    \
            1.00m\n  22464 requests in 2.00s, 17.76MB read\n  Socket errors: connect 1, read 2, \
            write 3, timeout 4\n  Non-2xx or 3xx responses: 5\nRequests/sec:  11232.53\n\
            Transfer/sec:    606.33MB\n";
        let report = WrkReport::parse(text).unwrap();
        let latency = [250, 1_500, 2_000_000, 60_000_000].map(Duration::from_micros);
        let expected = WrkReport {
            requests: 22464,
            rate: 11232.53,
            socket_errors: 10,
            bad_status: 5,
            latency,
        };
        assert_eq!(report, expected);
        assert_eq!(report.errors(), 15);
    }

    #[test]
    fn a_run_without_requests_is_an_error() {
        assert!(WrkReport::parse("Running 2s test\n  0 requests in 2.00s, 0B read\n").is_err());
    }
}
