//! `lockstep capture`: packets as they came in, each with what became of it, as a pcapng file or
//! as lines.

use super::output::{self, Out};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use file::Writer;
use lockstep_api as api;
use lockstep_api::capture_event::Event;
use lockstep_topology::duration;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

mod file;

/// Arguments of `lockstep capture`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write a pcapng file with the verdict of each packet as its comment; `-` is standard output.
    /// Otherwise a line is printed for each.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// To or from this VIP only, such as 203.0.113.10, 203.0.113.10:80 or [2001:db8::10]:80/tcp.
    #[arg(long, value_name = "VIP")]
    vip: Option<String>,
    /// From or to clients in this prefix only, such as 198.51.100.0/24.
    #[arg(long, value_name = "PREFIX")]
    client: Option<String>,
    /// Dropped for this reason only; `any` for all that is dropped.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// End after this many packets.
    #[arg(short, long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// End after this time, such as 30s.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_time)]
    time: Duration,
    /// Bytes of each packet that are kept.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    snap_length: u32,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("a capture takes more than no time".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

/// A packet as JSON.
#[derive(Debug, Serialize)]
struct Packet {
    /// Seconds since 1970.
    time: f64,
    interface: String,
    worker: u32,
    length: u32,
    packet: String,
    /// As in `lockstep explain`.
    verdict: String,
    reason: Option<String>,
    service: Option<String>,
    backend: Option<String>,
    backend_address: Option<String>,
    /// Whom it goes to, where it is a backend's answer.
    client: Option<String>,
    steps: Vec<String>,
}

impl Packet {
    fn new(packet: &api::CapturedPacket, interfaces: &[String]) -> Self {
        let explanation = packet.explanation.clone().unwrap_or_default();
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Packet {
            time: Duration::from_nanos(packet.time).as_secs_f64(),
            interface: interfaces
                .get(packet.interface as usize)
                .cloned()
                .unwrap_or_default(),
            worker: packet.worker,
            length: packet.length,
            packet: explanation.packet,
            verdict: explanation.verdict,
            reason: some(explanation.reason),
            service: some(explanation.service),
            backend: some(explanation.backend_name),
            backend_address: some(explanation.backend),
            client: some(explanation.client),
            steps: explanation.steps,
        }
    }

    /// "forward to s1 (10.0.1.11), service web", "drop no_backend, service web", "session".
    fn verdict(&self) -> String {
        let mut text = self.verdict.clone();
        match (&self.backend, &self.backend_address) {
            (Some(name), Some(address)) if name != address => {
                text.push_str(&format!(" to {name} ({address})"));
            }
            (name, address) => {
                if let Some(backend) = name.as_ref().or(address.as_ref()) {
                    text.push_str(&format!(" to {backend}"));
                }
            }
        }
        if let Some(client) = &self.client {
            text.push_str(&format!(" to client {client}"));
        }
        if let Some(reason) = &self.reason {
            text.push_str(&format!(" {reason}"));
        }
        if let Some(service) = &self.service {
            text.push_str(&format!(", service {service}"));
        }
        text
    }

    /// What stands beside the packet in the file: the verdict, then the reasoning.
    fn comment(&self) -> String {
        let mut text = self.verdict();
        for step in &self.steps {
            text.push('\n');
            text.push_str(step);
        }
        text
    }

    fn line(&self) -> String {
        let (clock, interface) = (units::clock(self.time), &self.interface);
        format!(
            "{clock}  {interface:<8} {}  {}",
            self.packet,
            self.verdict()
        )
    }
}

/// Where packets go.
enum Sink<'a> {
    File(Box<Writer>),
    Lines(&'a mut Out),
}

impl Sink<'_> {
    fn take(&mut self, packet: &api::CapturedPacket, interfaces: &[String]) -> Result<(), Failure> {
        let told = Packet::new(packet, interfaces);
        match self {
            Sink::File(file) => file.packet(packet, &told.comment()),
            Sink::Lines(out) => {
                match out.is_json() {
                    true => out.json_line(&told)?,
                    false => out.text(&told.line())?,
                }
                out.flush()
            }
        }
    }
}

/// Captures until there is enough, or until it is interrupted.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let request = api::CaptureRequest {
        vip: arguments.vip.unwrap_or_default(),
        client: arguments.client.unwrap_or_default(),
        reason: arguments.reason.unwrap_or_default(),
        snap_length: arguments.snap_length,
        packets: arguments.count,
        seconds: arguments.time.as_secs_f64(),
    };
    let hear = |kind| {
        signal(kind).map_err(|error| Failure::Refused(format!("cannot hear signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (
        hear(SignalKind::interrupt())?,
        hear(SignalKind::terminate())?,
    );
    let mut engine = ask::engine(global).await?;
    let mut stream = ask::answer(Peer::Engine, engine.capture(request)).await?;
    let Some(Event::Start(start)) = ask::next(Peer::Engine, &mut stream)
        .await?
        .and_then(|e| e.event)
    else {
        let text = "the engine began no capture; is it of another version?";
        return Err(Failure::Refused(text.to_owned()));
    };
    let mut sink = match &arguments.write {
        None => Sink::Lines(out),
        Some(file) => Sink::File(Box::new(Writer::create(file, &start)?)),
    };
    let (mut taken, mut missed) = (0, None);
    loop {
        // No packet may come for long: no answer is no fault here.
        let event = tokio::select! {
            event = stream.message() => event?,
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        match event.and_then(|event| event.event) {
            Some(Event::Packet(packet)) => {
                sink.take(&packet, &start.interfaces)?;
                taken += 1;
            }
            Some(Event::End(end)) => missed = Some(end.missed),
            Some(Event::Start(_)) => {}
            None => break,
        }
    }
    if let Sink::File(file) = sink {
        file.finish()?;
    }
    output::say(ending(taken, missed));
    Ok(Answer::Yes)
}

fn ending(taken: u64, missed: Option<u64>) -> String {
    let noun = if taken == 1 { "packet" } else { "packets" };
    let taken = units::count(taken);
    match missed {
        Some(0) => format!("{taken} {noun}"),
        Some(missed) => format!(
            "{taken} {noun}; {} more found no room between worker and agent: filter, or \
             lower --snap-length",
            units::count(missed)
        ),
        None => format!("{taken} {noun}, until interrupted"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn packet(verdict: &str, reason: &str, name: &str, address: &str) -> Packet {
        let explanation = api::Explanation {
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
            service: "web".to_owned(),
            backend_name: name.to_owned(),
            backend: address.to_owned(),
            steps: vec!["parsed".to_owned(), "Maglev: entry 7".to_owned()],
            packet: "tcp 198.51.100.7:40000 > 203.0.113.10:80".to_owned(),
            client: String::new(),
        };
        let packet = api::CapturedPacket {
            time: 1_763_717_474_250_000_000,
            interface: 1,
            explanation: Some(explanation),
            ..api::CapturedPacket::default()
        };
        Packet::new(&packet, &["eth0".to_owned(), "eth1".to_owned()])
    }

    #[test]
    fn a_packet_is_a_line_or_a_comment() {
        let forwarded = packet("forward", "", "s1", "10.0.1.11");
        assert_eq!(
            forwarded.line(),
            "09:31:14.250  eth1     tcp 198.51.100.7:40000 > 203.0.113.10:80  forward to s1 \
             (10.0.1.11), service web"
        );
        assert_eq!(
            forwarded.comment(),
            "forward to s1 (10.0.1.11), service web\nparsed\nMaglev: entry 7"
        );
        let nameless = packet("forward", "", "10.0.1.11", "10.0.1.11");
        assert_eq!(nameless.verdict(), "forward to 10.0.1.11, service web");
        let mut answer = packet("forward", "", "", "");
        answer.client = Some("198.51.100.7:40000".to_owned());
        assert_eq!(
            answer.verdict(),
            "forward to client 198.51.100.7:40000, service web"
        );
        let dropped = packet("drop", "no_backend", "", "");
        assert_eq!(dropped.verdict(), "drop no_backend, service web");
        assert_eq!(
            packet("session", "", "", "").verdict(),
            "session, service web"
        );
    }

    #[test]
    fn the_end_says_what_is_missing() {
        assert_eq!(ending(1, Some(0)), "1 packet");
        assert!(ending(1_000, Some(1_234)).starts_with("1,000 packets; 1,234 more found no room"));
        assert_eq!(ending(0, None), "0 packets, until interrupted");
    }
}
