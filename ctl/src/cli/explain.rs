//! `lockstep explain`: what the engine does with a packet, and why.

use super::flows::endpoint;
use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, pcap, units};
use crate::transport::Peer;
use clap::{Args, ValueEnum};
use lockstep_api::explain_request::Packet;
use lockstep_api::{ExplainRequest, Explanation, FiveTuple, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

/// Frames between the capture and the engine.
const AHEAD: usize = 64;

/// Arguments of `lockstep explain`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The client's address and port, such as 198.51.100.7:40000.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        requires = "to",
        required_unless_present = "pcap"
    )]
    from: Option<SocketAddr>,
    /// The VIP's address and port, such as 203.0.113.10:80 or [2001:db8::10]:80.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "from")]
    to: Option<SocketAddr>,
    /// The protocol.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    protocol: Transport,
    /// A capture of Ethernet frames, pcap or pcapng: every packet in it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "protocol"])]
    pcap: Option<PathBuf>,
}

/// A protocol on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn to_proto(self) -> Protocol {
        match self {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        }
    }
}

/// An explanation as JSON.
#[derive(Debug, Serialize)]
struct Entry {
    /// Its place in the capture, from 1.
    number: u64,
    packet: String,
    /// "forward", "session" (it ends in the engine), "reply" (the engine answers), "pass", "drop",
    /// or "depends" (on packets that came before).
    verdict: String,
    reason: Option<String>,
    service: Option<String>,
    backend: Option<String>,
    backend_address: Option<String>,
    /// Whom it goes to, where it is a backend's answer.
    client: Option<String>,
    steps: Vec<String>,
    /// Bytes that the capture did not keep.
    cut: u64,
}

impl Entry {
    fn new(number: u64, cut: u64, explanation: Explanation) -> Self {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Entry {
            number,
            packet: explanation.packet,
            verdict: explanation.verdict,
            reason: some(explanation.reason),
            service: some(explanation.service),
            backend: some(explanation.backend_name),
            backend_address: some(explanation.backend),
            client: some(explanation.client),
            steps: explanation.steps,
            cut,
        }
    }

    fn dropped(&self) -> bool {
        self.verdict == "drop"
    }

    /// "drop: no_backend", "forward: web, web-2 (10.0.1.12)", "session: game", "pass".
    fn outcome(&self) -> String {
        let mut text = self.verdict.clone();
        if let Some(reason) = &self.reason {
            text.push_str(&format!(": {reason}"));
        }
        let backend = match (&self.backend, &self.backend_address) {
            (Some(name), Some(address)) if name != address => Some(format!("{name} ({address})")),
            (name, address) => name.as_ref().or(address.as_ref()).cloned(),
        };
        let client = self
            .client
            .as_ref()
            .map(|client| format!("client {client}"));
        let place = self.service.iter().cloned().chain(backend).chain(client);
        let place: Vec<String> = place.collect();
        if !place.is_empty() {
            let joint = if self.reason.is_some() { " in " } else { ": " };
            text.push_str(&format!("{joint}{}", place.join(", ")));
        }
        text
    }

    fn text(&self) -> String {
        let steps: String = self
            .steps
            .iter()
            .map(|step| format!("  {step}\n"))
            .collect();
        format!("{}\n{steps}{}\n", self.packet, self.outcome())
    }

    /// A line of a capture's answer: the last step is the one that decided.
    fn line(&self) -> String {
        let why = self
            .steps
            .last()
            .map(|step| format!("  {step}"))
            .unwrap_or_default();
        let cut = match self.cut {
            0 => String::new(),
            n => format!("  ({n} bytes of it were not captured)"),
        };
        format!(
            "{:>7}  {}  {}{why}{cut}\n",
            self.number,
            self.packet,
            self.outcome()
        )
    }
}

/// How many packets of a capture had which outcome.
#[derive(Debug, Default, Serialize)]
struct Summary {
    packets: u64,
    verdicts: BTreeMap<String, u64>,
    drops: BTreeMap<String, u64>,
    backends: BTreeMap<String, u64>,
}

impl Summary {
    fn add(&mut self, entry: &Entry) {
        let bump = |map: &mut BTreeMap<String, u64>, key: &String| {
            *map.entry(key.clone()).or_default() += 1;
        };
        self.packets += 1;
        bump(&mut self.verdicts, &entry.verdict);
        entry
            .reason
            .iter()
            .for_each(|reason| bump(&mut self.drops, reason));
        if !entry.dropped() {
            entry
                .backend
                .iter()
                .for_each(|backend| bump(&mut self.backends, backend));
        }
    }

    fn text(&self) -> String {
        let part = |title: &'static str, map: &BTreeMap<String, u64>| {
            let row = |(key, &n): (&String, &u64)| vec![key.clone(), units::count(n)];
            let rows = table(&[title, ">PACKETS"], map.iter().map(row));
            if rows.is_empty() {
                rows
            } else {
                format!("\n{rows}")
            }
        };
        let verdicts = part("VERDICT", &self.verdicts);
        let drops = part("REASON", &self.drops);
        let backends = part("BACKEND", &self.backends);
        format!(
            "{} packets\n{verdicts}{drops}{backends}",
            units::count(self.packets)
        )
    }
}

/// Explains a packet or a capture; the answer is no when one is dropped.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    match (arguments.pcap, arguments.from, arguments.to) {
        (Some(file), _, _) => capture(global, file, out).await,
        (None, Some(from), Some(to)) => tuple(global, from, to, arguments.protocol, out).await,
        (None, _, _) => Err(Failure::Usage("give --from and --to, or --pcap".to_owned())),
    }
}

async fn tuple(
    global: &Global,
    from: SocketAddr,
    to: SocketAddr,
    protocol: Transport,
    out: &mut Out,
) -> Result<Answer, Failure> {
    if from.is_ipv4() != to.is_ipv4() {
        let text = format!("{from} and {to} are of different IP versions; no packet has both");
        return Err(Failure::Usage(text));
    }
    let tuple = FiveTuple {
        protocol: protocol.to_proto().into(),
        client: from.ip().to_string(),
        client_port: from.port().into(),
        vip: to.ip().to_string(),
        vip_port: to.port().into(),
    };
    let request = ExplainRequest {
        packet: Some(Packet::Tuple(tuple)),
    };
    let mut engine = ask::engine(global).await?;
    let call = engine.explain(tokio_stream::once(request));
    let mut replies = ask::answer(Peer::Engine, call).await?;
    let Some(explanation) = ask::next(Peer::Engine, &mut replies).await? else {
        let to = endpoint(&to.ip().to_string(), to.port().into());
        return Err(Failure::Refused(format!(
            "the engine has no explanation for a packet to {to}"
        )));
    };
    let entry = Entry::new(1, 0, explanation);
    out.answer(&entry, || entry.text())?;
    Ok(if entry.dropped() {
        Answer::No
    } else {
        Answer::Yes
    })
}

async fn capture(global: &Global, file: PathBuf, out: &mut Out) -> Result<Answer, Failure> {
    let mut engine = ask::engine(global).await?;
    let (requests, frames) = mpsc::channel(AHEAD);
    // What a frame lost in the capture goes beside it: the engine's answers come in order.
    let (cuts, mut cut) = mpsc::unbounded_channel();
    let reading = spawn_blocking(move || {
        pcap::read(&file, |frame| {
            let lost = u64::from(frame.length).saturating_sub(frame.bytes.len() as u64);
            let request = ExplainRequest {
                packet: Some(Packet::Frame(frame.bytes)),
            };
            cuts.send(lost).is_ok() && requests.blocking_send(request).is_ok()
        })
    });
    let call = engine.explain(ReceiverStream::new(frames));
    let mut replies = ask::answer(Peer::Engine, call).await?;
    let mut summary = Summary::default();
    if out.is_json() {
        out.raw("{\"packets\":[")?;
    }
    while let Some(explanation) = ask::next(Peer::Engine, &mut replies).await? {
        let lost = cut.recv().await.unwrap_or(0);
        let entry = Entry::new(summary.packets + 1, lost, explanation);
        print(&entry, out)?;
        summary.add(&entry);
    }
    if out.is_json() {
        let summary = serde_json::to_string(&summary).map_err(std::io::Error::from)?;
        out.text(&format!("\n],\"summary\":{summary}}}"))?;
    } else {
        out.text(&format!("\n{}", summary.text()))?;
    }
    match reading.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Failure::Usage(error.to_string())),
        Err(_) => return Err(Failure::Usage("the capture is damaged".to_owned())),
    }
    Ok(if summary.drops.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// One packet at a time: a capture may be longer than memory.
fn print(entry: &Entry, out: &mut Out) -> Result<(), Failure> {
    if !out.is_json() {
        return out.raw(&entry.line());
    }
    let comma = if entry.number == 1 { "" } else { "," };
    let json = serde_json::to_string(entry).map_err(std::io::Error::from)?;
    out.raw(&format!("{comma}\n{json}"))
}
