//! iperf3: its servers, one stream, and what its JSON says of that.

use super::Bench;
use crate::experiments::machine::{Sample, Sampler};
use crate::replicate::balancer::sessions;
use crate::replicate::network::{Network, PORT, VIP};
use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::lab::{Direction, Process, wait_until};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

/// Of the reports of iperf3, and of what is counted beside it.
pub const STEP: Duration = Duration::from_millis(500);
/// For all servers to listen, and for a client to end after its time.
const SOON: Duration = Duration::from_secs(20);

/// What happened in a step of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Seconds from the stream's beginning to the middle of it.
    pub at: f64,
    /// Megabytes that the client sent or got, a second.
    pub megabytes: f64,
    /// What the sending end knows of its connection, where that is the client.
    pub sender: Option<Sender>,
}

/// From TCP_INFO.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sender {
    /// Segments sent again, a second.
    pub retransmits: f64,
    /// Smoothed round-trip time.
    pub rtt_us: f64,
    /// Its mean deviation.
    pub rtt_variance_us: f64,
}

/// A stream, and the machine meanwhile.
#[derive(Debug, Clone)]
pub struct Stream {
    /// By iperf3's client.
    pub intervals: Vec<Interval>,
    /// As many steps, or one less.
    pub samples: Vec<Sample>,
}

/// Starts a server for each address, and waits until all listen.
pub fn start_servers(
    network: &Network,
    addresses: &[Ipv4Addr],
    cpu: usize,
) -> Result<Vec<Process>> {
    let start = |address: &Ipv4Addr| {
        let mut command = on(cpu, network.servers.command("taskset"));
        let address = address.to_string();
        command.args(["--server", "--bind", &address, "--port", &PORT.to_string()]);
        network.servers.spawn(&format!("iperf3-{address}"), command)
    };
    let mut servers = addresses.iter().map(start).collect::<Result<Vec<_>>>()?;
    wait_until("every iperf3 listens", SOON, || {
        for server in &mut servers {
            server.must_run()?;
        }
        let filter = format!("sport = :{PORT}");
        let sockets = network.servers.output("ss", &["-Hltn", &filter])?;
        Ok((sockets.lines().count() == addresses.len()).then_some(()))
    })?;
    Ok(servers)
}

fn on(cpu: usize, mut taskset: Command) -> Command {
    taskset.args(["--cpu-list", &cpu.to_string(), "iperf3"]);
    taskset
}

/// A stream under way.
#[derive(Debug)]
pub struct Running {
    client: Process,
    sampler: Sampler,
}

impl Running {
    /// Starts one for `seconds`, as fast as it goes. A server that sends repeats what it sends, so
    /// that all of them send the same.
    pub fn start(bench: &Bench, direction: Direction, seconds: u64) -> Result<Self> {
        let client = &bench.network.client;
        let mut command = on(bench.cpus.endpoints, client.command("taskset"));
        command.args(["--client", &VIP.to_string(), "--port", &PORT.to_string()]);
        command.args(["--time", &seconds.to_string(), "--json"]);
        command.args(["--interval", &STEP.as_secs_f64().to_string()]);
        command.args(["--repeating-payload", "--congestion", "cubic"]);
        if direction == Direction::Download {
            command.arg("--reverse");
        }
        Ok(Running {
            sampler: Sampler::start(bench.cpus, bench.path.program())?,
            client: client.spawn("iperf3", command)?,
        })
    }

    /// Waits for the next sample; false when the client has ended.
    pub fn step(&mut self) -> Result<bool> {
        let client = &mut self.client;
        self.sampler.step(STEP, || Ok(client.must_run().is_err()))
    }

    /// What the client has said so far.
    pub fn log(&self) -> String {
        self.client.log()
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) -> Result<Stream> {
        while self.step()? {}
        let status = self.client.wait(SOON)?;
        let log = self.client.log();
        let stream = Stream {
            intervals: intervals(&log)?,
            samples: self.sampler.finish(),
        };
        ensure!(status.success(), "iperf3 failed ({status}): {log}");
        ensure!(
            stream.intervals.iter().any(|i| i.megabytes > 0.0) && !stream.samples.is_empty(),
            "iperf3 moved nothing: {log}"
        );
        Ok(stream)
    }
}

/// The session that carries the bytes; iperf3 has another one to talk about them.
#[derive(Debug, Clone)]
pub struct DataSession {
    /// Its name.
    pub id: String,
    /// The index of its primary.
    pub primary: Option<usize>,
    /// The replicas that are not in sync, and what is with them.
    pub behind: Vec<String>,
}

/// Finds it.
pub fn data_session(network: &Network, direction: Direction) -> Result<DataSession> {
    let sessions = sessions(network)?;
    let carried = match direction {
        Direction::Upload => "received",
        Direction::Download => "sent",
    };
    let data = sessions.iter().max_by_key(|s| s[carried].as_u64());
    let data = data.context("there is no session")?;
    let replicas = data["replicas"].as_array().context("no replicas")?;
    let behind: Vec<String> = (replicas.iter())
        .filter(|replica| replica["state"] != "in-sync")
        .map(|replica| format!("{} {}", replica["name"], replica["state"]))
        .collect();
    Ok(DataSession {
        id: data["id"].as_str().unwrap_or_default().to_owned(),
        primary: index(&data["primary"]),
        behind,
    })
}

/// The index of a server by its name, `s0` and on.
fn index(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix('s')?.parse().ok()
}

/// The steps in a report.
fn intervals(log: &str) -> Result<Vec<Interval>> {
    // A warning may stand before it.
    let json = log.find('{').map(|at| &log[at..]).unwrap_or_default();
    let report: Value =
        serde_json::from_str(json).with_context(|| format!("iperf3 wrote no JSON: {log}"))?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3 failed: {error}");
    }
    let list = report["intervals"].as_array();
    let list = list.context("iperf3 reports no intervals")?;
    list.iter().map(interval).collect()
}

fn interval(value: &Value) -> Result<Interval> {
    let (sum, stream) = (&value["sum"], &value["streams"][0]);
    let number = |from: &Value, name: &str| {
        (from[name].as_f64()).with_context(|| format!("an interval without {name}: {value}"))
    };
    let (start, end) = (number(sum, "start")?, number(sum, "end")?);
    // The last one of a stream may be next to nothing.
    let seconds = (end - start).max(1e-6);
    let sender = match sum["sender"].as_bool() {
        Some(true) => Some(Sender {
            retransmits: number(sum, "retransmits")? / seconds,
            rtt_us: number(stream, "rtt")?,
            rtt_variance_us: number(stream, "rttvar")?,
        }),
        _ => None,
    };
    Ok(Interval {
        at: (start + end) / 2.0,
        megabytes: number(sum, "bytes")? / 1e6 / seconds,
        sender,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sum: &str, stream: &str) -> String {
        format!(r#"{{"start": {{}}, "intervals": [{{"streams": [{stream}], "sum": {sum}}}]}}"#)
    }

    #[test]
    fn an_interval_of_the_sender_has_what_its_kernel_knows() {
        let sum = r#"{"start": 1, "end": 1.5, "bytes": 6000000, "retransmits": 3, "sender": true}"#;
        let found = intervals(&report(sum, r#"{"rtt": 49, "rttvar": 18}"#)).unwrap();
        let sender = Sender {
            retransmits: 6.0,
            rtt_us: 49.0,
            rtt_variance_us: 18.0,
        };
        let expected = Interval {
            at: 1.25,
            megabytes: 12.0,
            sender: Some(sender),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn an_interval_of_the_receiver_has_bytes_only() {
        let sum = r#"{"start": 0, "end": 2, "bytes": 2000000, "sender": false}"#;
        let found = intervals(&report(sum, "{}")).unwrap();
        assert_eq!((found[0].megabytes, found[0].sender), (1.0, None));
    }

    #[test]
    fn a_report_of_an_error_or_without_a_number_is_an_error() {
        assert!(intervals(r#"{"intervals": [], "error": "unable to connect"}"#).is_err());
        assert!(intervals("iperf3: no such thing").is_err());
        let sum = r#"{"start": 0, "end": 2, "sender": false}"#;
        assert!(intervals(&report(sum, "{}")).is_err());
    }
}
