//! The load generator: packets and transactions at a fixed rate, whatever comes of them (open loop),
//! with their latency counted from the time at which they were due.
//!
//! A stall of what is tested keeps the generator from sending on time. A packet that is sent late for
//! that is as late for whoever waits for it, so its stamp is the intended time and not the time at
//! which it was sent: nothing that a stall delayed is left out (no coordinated omission).
//!
//! The measurements of this program run it as a child ([`run_child`]), so that it has a process, a CPU
//! and a namespace of its own.

mod attached;
mod child;
mod client;
mod clock;
mod datagrams;
mod file;
mod flows;
mod generate;
mod ledger;
mod live;
mod mix;
mod observer;
mod pace;
mod packet;
mod place;
mod prepared;
mod respond;
mod response;
mod said;
mod search;
mod show;
mod socket;
mod spread;
mod stamp;
mod stop;
mod transactions;
mod trial;

pub use child::run_child;
pub use generate::{Arguments, run};
pub use mix::Mix;
pub use respond::{Arguments as RespondArguments, run as respond};
pub use search::{Goal, search};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A queue of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The network namespace, by the name that `ip netns` has for it; none: the process's own.
    pub netns: Option<String>,
    /// The interface's name there.
    pub interface: String,
    /// The queue, from 0 on.
    pub queue: u32,
}

/// What is sent, from where, and where it is counted.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where packets leave, and where the answers of TCP come back to unless there is a sink.
    pub source: Place,
    /// Where UDP packets arrive: the same place as `source` if they are echoed; none if something
    /// else counts them. Where answers of TCP come that do not come back to `source`.
    pub sink: Option<Place>,
    /// The CPU of the one thread that does all of it.
    pub cpu: usize,
    /// A CPU that is looked at while it is sent: the balancer's.
    pub observed_cpu: Option<usize>,
    /// What is sent.
    pub load: Load,
}

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// One datagram, one way.
    Udp,
    /// A SYN and what answers it, which is reset then.
    Syn,
    /// An HTTP request and its response on a connection that stays.
    Rr,
    /// A connection, a request on it, its response, and the close.
    Crr,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// What a transaction is.
    pub protocol: Protocol,
    /// Where to; flows are dealt out to them in turns.
    pub destinations: Vec<SocketAddr>,
    /// Where from; the interface's own address where there are none.
    pub sources: Vec<IpAddr>,
    /// How many flows: of TCP, how many connections there are at a time at most.
    pub flows: u32,
    /// Bytes of UDP's frames, their checksum sequences included. TCP does not look at them.
    pub sizes: Mix,
    /// Packets of UDP, or transactions of TCP, offered a second.
    pub packets_per_second: u64,
    /// For how long.
    pub seconds: f64,
    /// What TCP's requests ask for.
    pub path: String,
    /// The link-layer address that frames go to; found out from the kernel's routes where there is
    /// none.
    pub next_hop: Option<Mac>,
    /// More UDP ports that the sink takes: those of backends, where the balancer translates ports.
    pub sink_ports: Vec<u16>,
}

/// A link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Packets or transactions that were to be sent, a second.
    pub offered_per_second: f64,
    /// What was sent: UDP's packets, TCP's transactions that were begun.
    pub sent: u64,
    /// What arrived, each once: UDP's packets at the sink, TCP's transactions that came to their end.
    pub received: u64,
    /// What was sent and did not arrive: of TCP, what was given up or not answered in the end.
    pub lost: u64,
    /// What was due and could not be sent in time: the generator, or what holds it back, was too slow.
    pub unsent: u64,
    /// Packets that came after one that was sent later in the same flow (RFC 4737, section 3.3).
    pub reordered: u64,
    /// Packets that came once more.
    pub duplicated: u64,
    /// How long it was sent for.
    pub seconds: f64,
    /// TCP: transactions that came to their end; as `received`.
    pub transactions: u64,
    /// TCP: segments that were sent again because nothing came.
    pub retransmitted: u64,
    /// TCP: transactions that were reset, or closed before their end; of SYNs, those that were refused.
    pub resets: u64,
    /// RR: connections that were there when the first request was due; none of other loads.
    pub connections: Option<u64>,
    /// TCP: connections that were lost between two requests, or could not be set up again.
    pub disconnected: u64,
    /// TCP: transactions among `received` that the server answered with an error.
    pub errors: u64,
    /// Frames that came to the generator's sockets and were not its own.
    pub foreign: u64,
    /// With `--verify`: packets that arrived with a wrong checksum, which are not among `received`.
    #[serde(default)]
    pub corrupt: Option<u64>,
    /// The generator's own interfaces whose link was down meanwhile, or is: what they were given is
    /// among `sent`, and went nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<String>,
    /// The time for which the observed CPU was not idle while it was sent: without the set-up of
    /// connections before, and without the wait for what was on the way in the end.
    pub observed_cpu_seconds: Option<f64>,
    /// From the intended time to the arrival; none where nothing arrived.
    pub latency: Option<Latency>,
}

/// How latency is spread, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// What 90 % stay below.
    pub p90_us: f64,
    /// What 99 % stay below.
    pub p99_us: f64,
    /// What 99.9 % stay below.
    pub p999_us: f64,
    /// The worst.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// All of it, in nanoseconds: an HDR histogram (V2, deflated, base64), as its log files have it.
    pub histogram: String,
}

impl Outcome {
    /// Packets or transactions sent a second.
    pub fn sent_per_second(&self) -> f64 {
        self.sent as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Packets or transactions that arrived, a second of sending.
    pub fn received_per_second(&self) -> f64 {
        self.received as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The share of what was sent that did not arrive or was reset, 0 to 1.
    pub fn loss(&self) -> f64 {
        (self.lost + self.resets) as f64 / self.sent.max(1) as f64
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |text: &str| match text.len() {
            2 => u8::from_str_radix(text, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Mac)
            .ok_or_else(|| "a link-layer address looks like 02:00:5e:10:00:01".to_owned())
    }
}
