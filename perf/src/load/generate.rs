//! `lockstep-perf generate`: from what the user asked for to what came of it.

use super::attached::{Attached, each_once};
use super::client::Manner;
use super::datagrams::Datagrams;
use super::file::Pending;
use super::flows::Flows;
use super::pace;
use super::packet::{Link, shortest};
use super::place::Interface;
use super::said::{heard, say};
use super::search::{Goal, search};
use super::show::{self, About, Progress};
use super::socket::Line;
use super::stop::Stop;
use super::transactions::Transactions;
use super::trial::{self, Arrival, Bench, Plan, Trial};
use super::{Mac, Mix, Outcome, Protocol};
use crate::measure::needs_root_for;
use crate::written::{grouped, thousands};
use anyhow::{Context, Result, bail, ensure};
use clap::builder::RangedU64ValueParser;
use lockstep_bpf::{TRAFFIC_RANGES, Wanted};
use lockstep_wire::protocol;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Bytes of Ethernet around an IP packet, the checksum sequence included.
const AROUND: usize = 18;
/// Bytes of IP and TCP in front of a segment's payload, of IPv4 and IPv6.
const HEADERS: [usize; 2] = [40, 60];
/// The most flows of UDP, and of TCP, which remembers more of each.
const FLOWS: [u32; 2] = [1 << 24, 1 << 20];
/// The most that a request may have, so that it fits every segment.
const REQUEST: usize = 1_000;

/// What `lockstep-perf generate` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What is sent: datagrams one way, SYNs, requests on connections that stay, or a connection for
    /// each request.
    #[arg(long, value_enum, default_value = "udp")]
    protocol: Protocol,
    /// Where to, as `192.0.2.1:53` or `[2001:db8::1]:53`. Flows are dealt out to them in turns.
    #[arg(long, required = true, value_delimiter = ',')]
    to: Vec<SocketAddr>,
    /// Where packets leave, and answers of TCP come back to.
    #[command(flatten)]
    at: Attached,
    /// Where packets arrive. Of UDP nothing is counted without it but what is sent, and there is no
    /// latency; the same as --interface: where packets are echoed, as `respond` does. Of TCP: where
    /// answers come that do not come back to --interface.
    #[arg(long)]
    sink_interface: Option<String>,
    /// The network namespace it is in.
    #[arg(long)]
    sink_netns: Option<String>,
    /// Its queues, one for each thread.
    #[arg(long, visible_alias = "sink-queues", value_delimiter = ',')]
    sink_queue: Vec<u32>,
    /// More UDP ports that the sink takes: those of the backends, where a balancer translates ports.
    #[arg(long, value_delimiter = ',')]
    sink_port: Vec<u16>,
    /// The UDP port of GUE tunnels that end at the sink.
    #[arg(long, default_value_t = 6_080)]
    gue_port: u16,
    /// Source addresses; the interface's own, unless said otherwise. For TCP the answers to them
    /// have to come back to this interface.
    #[arg(long, value_delimiter = ',')]
    from: Vec<IpAddr>,
    /// Source ports, FIRST-LAST.
    #[arg(long, default_value = "10000-59999", value_parser = ports)]
    source_ports: RangeInclusive<u16>,
    /// Flows; of TCP, connections there are at a time at most. Those of rr are made before the first
    /// request, and fewer are an error.
    #[arg(long, default_value_t = 1_000)]
    flows: u32,
    /// UDP: bytes of the frames, the 4 of their checksum sequence included: `64`, `imix`, or a mix
    /// such as `64:7,1400:3`.
    #[arg(long, default_value = "64")]
    size: Mix,
    /// Packets (UDP) or transactions (TCP) a second: with --search, the highest rate that is tried.
    #[arg(long, visible_alias = "rate")]
    packets_per_second: u64,
    /// Seconds of a run, or of each trial of a search.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Looks for the highest rate that is carried with no more loss than --loss (RFC 2544, 26.1).
    #[arg(long)]
    search: bool,
    /// The loss that a search allows, in percent.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// How close a search comes to the highest rate, in percent of it.
    #[arg(long, default_value_t = 1.0)]
    resolution: f64,
    /// What requests of rr and crr ask for: HTTP/1.1, GET.
    #[arg(long, default_value = "/")]
    path: String,
    /// Milliseconds until something of TCP is sent again; twice as long each time, four times.
    #[arg(long, default_value_t = 200, value_parser = milliseconds(1))]
    patience: u64,
    /// Milliseconds to wait in the end for what is still on the way.
    #[arg(long, default_value_t = 500, value_parser = milliseconds(0))]
    wait: u64,
    /// Looks at the checksums of UDP and TCP of what arrives; what is wrong is `corrupt`, and not
    /// received. Datagrams over IPv4 have checksums then, which they have not otherwise.
    #[arg(long)]
    verify: bool,
    /// The link-layer address that frames are for; what the kernel's routes say, unless named.
    #[arg(long)]
    next_hop: Option<Mac>,
    /// A CPU that is looked at while it is sent: the one of what is tested.
    #[arg(long)]
    observe_core: Option<usize>,
    /// A table, or JSON.
    #[arg(long, value_enum, default_value = "human")]
    output: Output,
    /// Where the latencies go as a percentile distribution, for HdrHistogram's plotters.
    #[arg(long, value_name = "FILE.hgrm")]
    histogram: Option<PathBuf>,
}

/// For whom the outcome is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table.
    Human,
    /// For programs.
    Json,
}

/// An hour at most.
fn milliseconds(least: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(least..=3_600_000)
}

/// FIRST-LAST, or one.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && first > 0 => Ok(first..=last),
        _ => Err("ports are FIRST-LAST, as 10000-59999".to_owned()),
    }
}

/// Runs the load and prints what came of it.
pub fn run(arguments: &Arguments) -> Result<()> {
    heard(load(arguments))
}

fn load(arguments: &Arguments) -> Result<()> {
    needs_root_for("AF_XDP sockets and XDP programs need root")?;
    arguments.check()?;
    let histogram = arguments.histogram.as_deref();
    let histogram = histogram.map(Pending::new).transpose()?;
    let stop = Stop::at_signals()?;
    let at = &arguments.at;
    let source = at.within(|| Interface::find(&at.interface))?;
    let flows = arguments.flows(&source)?;
    let links = at.within(|| arguments.links(&source))?;
    let mut bench = arguments.bench(&flows)?;
    let mut plan = arguments.plan(flows, links, &source);
    let json = arguments.output == Output::Json;
    if !json && let Some(mode) = bench.source.mode() {
        say(format_args!(
            "{} from {}, {mode}",
            arguments.protocol.name(),
            at.interface
        ))?;
    }
    let mut progress = Progress::new(json);
    let mut one = |rate| {
        let seconds = arguments.seconds;
        trial::run(&mut bench, &mut plan, rate, seconds, &mut progress, &stop)
    };
    if arguments.search {
        return arguments.search(&mut one, histogram, &stop);
    }
    let Trial { outcome, spread } = one(arguments.packets_per_second)?;
    if json {
        say(serde_json::to_string(&outcome)?)?;
    } else {
        say(arguments.about().table(&outcome).trim_end())?;
    }
    if let Some(file) = histogram {
        file.write(&spread.percentiles())?;
    }
    arguments.is_complete(&outcome, &stop)
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Udp => "UDP",
            Protocol::Syn => "SYNs",
            Protocol::Rr => "requests",
            Protocol::Crr => "connections with a request each",
        }
    }
}

impl Arguments {
    fn check(&self) -> Result<()> {
        let udp = self.protocol == Protocol::Udp;
        ensure!(
            self.seconds.is_finite() && self.seconds > 0.0 && self.seconds <= 86_400.0,
            "--seconds is above 0, and a day at most"
        );
        ensure!(
            (1..=pace::MOST).contains(&self.packets_per_second),
            "--packets-per-second is 1 at least, and {} at most",
            grouped(pace::MOST)
        );
        ensure!(
            (0.0..=100.0).contains(&self.loss) && (0.01..=50.0).contains(&self.resolution),
            "--loss is 0 to 100 percent, --resolution 0.01 to 50 percent"
        );
        ensure!(
            udp || self.at.queue.len() == 1,
            "TCP has one thread and one queue: its answers have to come to the queue that asked, so steer \
             them there by `ethtool -N`. For more, run another generator on another interface or another \
             host"
        );
        ensure!(
            !udp || !self.search || self.sink_interface.is_some(),
            "a search has to know what arrived: name --sink-interface"
        );
        ensure!(
            !udp || !self.verify || self.sink_interface.is_some(),
            "--verify looks at what arrives: name --sink-interface"
        );
        ensure!(
            !udp || self.histogram.is_none() || self.sink_interface.is_some(),
            "--histogram has the latencies of what arrives: name --sink-interface"
        );
        ensure!(
            self.sink_interface.is_some()
                || (self.sink_netns.is_none() && self.sink_queue.is_empty()),
            "--sink-netns and --sink-queues say where the sink's interface is: name --sink-interface"
        );
        let most = FLOWS[usize::from(!udp)];
        ensure!(
            self.flows <= most,
            "there are {most} flows at most: --flows"
        );
        self.at.check()?;
        ensure!(
            self.sink_queue.is_empty() || self.sink_queue.len() == self.at.queue.len(),
            "a thread has one queue to send and one to receive: --sink-queues names as many as --queues"
        );
        each_once(&self.sink_queue, "--sink-queues")?;
        self.check_due()?;
        ensure!(
            self.path.starts_with('/')
                && self.path.len() <= REQUEST / 2
                && self.path.chars().all(|at| at.is_ascii_graphic()),
            "--path begins with / and has no spaces"
        );
        for to in self.to.iter().filter(|_| udp) {
            let least = shortest(to.is_ipv4());
            ensure!(
                self.size.shortest() >= least,
                "a frame to {to} has {least} bytes at least, or its stamp does not fit: --size {least}, or, \
                 instead of imix, --size {least}:7,570:4,1518:1"
            );
        }
        Ok(())
    }

    /// A load of nothing has no result.
    fn check_due(&self) -> Result<()> {
        let threads = self.at.queue.len().max(1);
        let each = self.packets_per_second / threads as u64;
        let due = each as f64 * self.seconds;
        ensure!(
            due >= 1.0,
            "at {}/s{} nothing is due in {} s: more --seconds or --packets-per-second",
            self.packets_per_second,
            match threads {
                1 => String::new(),
                _ => format!(" of {threads} threads"),
            },
            self.seconds
        );
        Ok(())
    }

    fn about(&self) -> About {
        let udp = self.protocol == Protocol::Udp;
        About {
            protocol: self.protocol,
            // Segments of TCP have the lengths they have.
            mean_bytes: udp.then(|| self.size.mean()),
            counted: !udp || self.sink_interface.is_some(),
            flows: self.flows,
        }
    }

    fn flows(&self, source: &Interface) -> Result<Flows> {
        if self.protocol == Protocol::Udp {
            ensure!(
                self.size.longest() <= source.mtu + AROUND,
                "frames of {} bytes do not leave {}: its MTU of {} takes {} at most",
                self.size.longest(),
                source.name,
                source.mtu,
                source.mtu + AROUND
            );
        }
        let sources = if self.from.is_empty() {
            &source.addresses
        } else {
            &self.from
        };
        let flows = Flows::new(&self.to, sources, self.source_ports.clone(), self.flows)?;
        let threads = self.at.queue.len() as u32;
        ensure!(
            self.flows >= threads,
            "{threads} threads need a flow each: --flows"
        );
        // Each flow numbers its packets in 32 bits.
        let each = self.packets_per_second as f64 * self.seconds / f64::from(self.flows);
        ensure!(
            each < f64::from(u32::MAX),
            "each flow would have {} packets, and their numbers end at 4,294,967,295: more --flows",
            thousands(each)
        );
        Ok(flows)
    }

    /// The next hop of each destination.
    fn links(&self, source: &Interface) -> Result<Vec<Link>> {
        let link = |to: &SocketAddr| {
            let mac = match self.next_hop {
                Some(mac) => mac,
                None => source.next_hop(to.ip())?,
            };
            Ok(Link {
                to: mac.0,
                from: source.mac.0,
            })
        };
        self.to.iter().map(link).collect()
    }

    /// Opens the sockets.
    fn bench(&self, flows: &Flows) -> Result<Bench> {
        let wanted = |protocol: u8| Wanted {
            addresses: flows.all_sources().collect(),
            ports: vec![(protocol, flows.ports())],
            tunnels: false,
        };
        let same = self.sink_interface.as_ref() == Some(&self.at.interface)
            && self
                .sink_netns
                .as_ref()
                .is_none_or(|netns| Some(netns) == self.at.netns.as_ref())
            && (self.sink_queue.is_empty() || self.sink_queue == self.at.queue);
        let udp = self.protocol == Protocol::Udp;
        let answers = match udp {
            true => same.then(|| wanted(protocol::UDP)),
            false => Some(wanted(protocol::TCP)),
        };
        let line = self.at.open(answers.as_ref())?;
        let sink = match &self.sink_interface {
            None if udp => Arrival::Elsewhere,
            None => Arrival::Source,
            Some(_) if same => Arrival::Source,
            Some(interface) => {
                let queues = match self.sink_queue.is_empty() {
                    true => &self.at.queue,
                    false => &self.sink_queue,
                };
                let wanted = if udp {
                    self.arrivals()?
                } else {
                    wanted(protocol::TCP)
                };
                let netns = self.sink_netns.as_deref();
                let line = Line::open(netns, interface, queues, Some(&wanted), self.at.mode);
                let line = line.with_context(|| self.no_sink(interface))?;
                Arrival::Line(Box::new(line))
            }
        };
        Ok(Bench {
            source: line,
            sink,
            cpus: self.at.core.clone(),
            observed_cpu: self.observe_core,
            patience: self.wait * 1_000_000,
        })
    }

    fn no_sink(&self, interface: &str) -> String {
        let hint = match (&self.at.netns, &self.sink_netns) {
            (Some(_), None) => {
                " in the namespace that this was started in (--netns is for --interface alone: name the \
                 sink's with --sink-netns)"
            }
            _ => "",
        };
        format!("cannot open the sink on {interface}{hint}")
    }

    /// What comes to the sink: to whichever address the balancer chose, in whichever tunnel.
    fn arrivals(&self) -> Result<Wanted> {
        let ports = self.to.iter().map(SocketAddr::port);
        let ports: BTreeSet<u16> = ports
            .chain(self.sink_port.iter().copied())
            .chain([self.gue_port])
            .collect();
        ensure!(
            ports.len() <= TRAFFIC_RANGES,
            "the sink takes {TRAFFIC_RANGES} UDP ports at most, with the one of GUE"
        );
        Ok(Wanted {
            addresses: BTreeSet::new(),
            ports: ports
                .into_iter()
                .map(|port| (protocol::UDP, port..=port))
                .collect(),
            tunnels: true,
        })
    }

    fn plan(&self, flows: Flows, links: Vec<Link>, source: &Interface) -> Plan {
        if self.protocol == Protocol::Udp {
            return Plan::Udp(Box::new(Datagrams {
                flows,
                sizes: self.size.clone(),
                links,
                gue_port: self.gue_port,
                run: 0,
                verify: self.verify,
                prepared: None,
            }));
        }
        let close = if self.protocol == Protocol::Crr {
            "close"
        } else {
            "keep-alive"
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lockstep-perf\r\nConnection: {close}\r\n\r\n",
            self.path, self.to[0]
        );
        let v6 = self.to.iter().any(SocketAddr::is_ipv6);
        // An MTU is above its headers, and what is larger than 16 bits says no one.
        let mss = source
            .mtu
            .saturating_sub(HEADERS[usize::from(v6)])
            .clamp(500, 1_460);
        Plan::Tcp(Box::new(Transactions {
            flows,
            links,
            manner: Manner {
                protocol: self.protocol,
                request: request.len() as u32,
                patience: self.patience * 1_000_000,
            },
            request: request.into_bytes(),
            mss: mss as u16,
            verify: self.verify,
        }))
    }

    fn search(
        &self,
        one: &mut dyn FnMut(u64) -> Result<Trial>,
        histogram: Option<Pending>,
        stop: &Stop,
    ) -> Result<()> {
        let json = self.output == Output::Json;
        let goal = Goal {
            loss: self.loss / 100.0,
            resolution: self.resolution / 100.0,
        };
        let mut percentiles = String::new();
        let found = search(self.packets_per_second, goal, |rate| {
            let Trial { outcome, spread } = one(rate)?;
            if stop.is_set() {
                return Ok(None);
            }
            // It would go on, lower and lower.
            has_links(&outcome)?;
            let met = goal.is_met(&outcome);
            if !json {
                say(show::trial(&outcome, met))?;
            }
            if met {
                percentiles = spread.percentiles();
            }
            Ok(Some(outcome))
        })?;
        if json {
            say(serde_json::to_string(&found)?)?;
        }
        let (Some(rate), Some(outcome)) = (found.rate, &found.outcome) else {
            ensure!(
                !found.interrupted,
                "the search was interrupted before a rate was carried: {} trials came to their end",
                found.trials.len()
            );
            bail!(
                "no rate was carried with {} % loss at most: does anything arrive at all? Try one rate \
                 without --search",
                self.loss
            );
        };
        if !json {
            say(format_args!(
                "\nhighest rate   {}/s with {} % loss at most",
                grouped(rate),
                self.loss
            ))?;
            if found.interrupted {
                say("               so far: the search was interrupted")?;
            }
            if found.limited_by_the_generator {
                say(
                    "               above it the generator cannot send: more --queues and --cores",
                )?;
            }
            say(self.about().table(outcome).trim_end())?;
        }
        if let Some(file) = histogram {
            file.write(&percentiles)?;
        }
        let mut trials = found.trials.iter();
        trials.try_for_each(|outcome| self.is_complete(outcome, stop))
    }

    /// Fewer connections than were asked for are another load: whoever reads only the exit code is to
    /// know, too. A user who ended it early does.
    fn is_complete(&self, outcome: &Outcome, stop: &Stop) -> Result<()> {
        has_links(outcome)?;
        let Some(connections) = outcome.connections.filter(|_| !stop.is_set()) else {
            return Ok(());
        };
        ensure!(
            connections >= u64::from(self.flows),
            "{connections} of {} connections could be made, so this was not the load that was asked for: \
             does the server take as many, and does what is between them? Or ask for less with --flows",
            self.flows
        );
        Ok(())
    }
}

/// What is sent on a link that is not there is no load, either.
fn has_links(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.down.is_empty(),
        "{} went down while it was sent, so this is no result of what is tested: see `ip link` and the \
         kernel's log, and measure again",
        outcome.down.join(" and ")
    );
    Ok(())
}

#[cfg(test)]
mod tests;
