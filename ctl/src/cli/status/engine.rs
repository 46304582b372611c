//! The engine's part of `lockstep status`.

use super::back::{self, Back, Refused};
use super::spread::Spread;
use crate::cli::flows::vip_name;
use crate::cli::output::table;
use crate::cli::units::{bytes, count, moment, percent, time};
use lockstep_api as api;
use lockstep_plan::health::Verdict;
use serde::Serialize;
use std::time::Duration;

/// Percent of its capacity at which a flow table needs attention: soon it takes no more.
const FULL: u128 = 95;

/// The engine as JSON.
#[derive(Debug, Serialize)]
pub struct Engine {
    version: String,
    pid: u64,
    uptime_seconds: f64,
    epoch: u64,
    /// Where its topology.toml is.
    topology_file: String,
    workers: Vec<Worker>,
    interfaces: Vec<Interface>,
    services: Vec<Service>,
    /// Dropped before a VIP was known.
    drops: Vec<Drop>,
    /// With fewer replicas in sync than `min_sync`.
    sessions_unprotected: u64,
    /// With too few replicas to go on.
    sessions_orphaned: u64,
}

#[derive(Debug, Serialize)]
struct Worker {
    index: u32,
    core: u32,
    queues: Vec<String>,
    state: String,
    rx_packets: u64,
    /// Decided on: under RPS also what came to the sockets of others.
    processed_packets: u64,
    tx_packets: u64,
    dropped: u64,
    /// By the kernel, at the worker's sockets.
    kernel_dropped: u64,
    flows: u64,
    flows_capacity: u64,
    stateless: u64,
    epoch: u64,
    /// From receiving to sending a packet, of a sample.
    latency_p50_seconds: Option<f64>,
    latency_p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    index: u32,
    mode: String,
    mtu: u32,
    mac: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) mode: String,
    sessions: u64,
    vips: Vec<Vip>,
    pub(super) backends: Vec<Backend>,
}

#[derive(Debug, Serialize)]
struct Vip {
    vip: String,
    packets: u64,
    bytes: u64,
    flows_moved: u64,
    stateless: u64,
    drops: Vec<Drop>,
}

#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) address: String,
    weight: u32,
    state: &'static str,
    ring_share: f64,
    packets: u64,
    bytes: u64,
    new_flows: u64,
    flows: u64,
    /// What came back of it; null where its answers do not come by the engine.
    pub(super) back: Option<Back>,
    /// Of a tunnel, what was refused by ICMP; null without any.
    pub(super) refused: Option<Refused>,
    next_hop: String,
    reachable: bool,
    /// Of a replica; null in a tunnel.
    health: Option<Health>,
    /// Of a service with tiers, or a backend that begins slowly; null elsewhere.
    spread: Option<Spread>,
}

/// What the daemon's pings say.
#[derive(Debug, Serialize)]
struct Health {
    /// "up", "down" or "unknown".
    verdict: &'static str,
    rtt_seconds: Option<f64>,
}

impl Backend {
    /// All of a service's replicas get every session: they have no share.
    fn share(&self) -> String {
        match self.health {
            None => percent(self.ring_share),
            Some(_) => "-".to_owned(),
        }
    }
}

impl From<api::Health> for Health {
    fn from(health: api::Health) -> Self {
        Health {
            verdict: match health.verdict() {
                api::HealthVerdict::Unknown => Verdict::Unknown.name(),
                api::HealthVerdict::Up => Verdict::Up.name(),
                api::HealthVerdict::Down => Verdict::Down.name(),
            },
            rtt_seconds: health
                .rtt_microseconds
                .map(|rtt| Duration::from_micros(rtt).as_secs_f64()),
        }
    }
}

impl Health {
    fn text(&self) -> String {
        match self.rtt_seconds {
            Some(rtt) => format!("{} {:.3} ms", self.verdict, rtt * 1e3),
            None => self.verdict.to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Drop {
    reason: String,
    packets: u64,
    help: String,
}

impl Drop {
    fn all(drops: Vec<api::DropCount>) -> Vec<Self> {
        let one = |d: api::DropCount| Drop {
            reason: d.reason,
            packets: d.packets,
            help: d.help,
        };
        drops.into_iter().map(one).collect()
    }
}

impl From<api::WorkerStatus> for Worker {
    fn from(w: api::WorkerStatus) -> Self {
        Worker {
            index: w.index,
            core: w.core,
            queues: w.queues,
            state: w.state,
            rx_packets: w.rx_packets,
            processed_packets: w.processed_packets,
            tx_packets: w.tx_packets,
            dropped: w.dropped,
            kernel_dropped: w.kernel_dropped,
            flows: w.flows,
            flows_capacity: w.flows_capacity,
            stateless: w.stateless,
            epoch: w.epoch,
            latency_p50_seconds: w.latency_p50_seconds,
            latency_p99_seconds: w.latency_p99_seconds,
        }
    }
}

impl Worker {
    /// What half of all packets take at most, and 99 of 100.
    fn latency(&self) -> String {
        match (self.latency_p50_seconds, self.latency_p99_seconds) {
            (Some(half), Some(most)) => format!("{} / {}", moment(half), moment(most)),
            (_, None) | (None, _) => "-".to_owned(),
        }
    }

    /// By what is in the table now: what overflowed once may be long past.
    fn is_full(&self) -> bool {
        let (flows, capacity) = (u128::from(self.flows), u128::from(self.flows_capacity));
        capacity > 0 && flows * 100 >= capacity * FULL
    }
}

impl From<api::InterfaceStatus> for Interface {
    fn from(i: api::InterfaceStatus) -> Self {
        Interface {
            name: i.name,
            index: i.index,
            mode: i.mode,
            mtu: i.mtu,
            mac: i.mac,
        }
    }
}

impl From<api::ServiceStatus> for Service {
    fn from(s: api::ServiceStatus) -> Self {
        let mode = s.mode;
        Service {
            name: s.name,
            sessions: s.sessions,
            vips: s.vips.into_iter().map(Vip::from).collect(),
            backends: (s.backends.into_iter().map(|b| Backend::new(b, &mode))).collect(),
            mode,
        }
    }
}

impl From<api::VipStatus> for Vip {
    fn from(v: api::VipStatus) -> Self {
        Vip {
            vip: vip_name(&v.vip.unwrap_or_default()),
            packets: v.packets,
            bytes: v.bytes,
            flows_moved: v.flows_moved,
            stateless: v.stateless,
            drops: Drop::all(v.drops),
        }
    }
}

impl Backend {
    fn new(b: api::BackendStatus, mode: &str) -> Self {
        let state = match b.state() {
            api::BackendState::Active => "active",
            api::BackendState::Draining => "draining",
            api::BackendState::Unspecified => "unknown",
        };
        let (back, refused) = (Back::new(&b, mode), Refused::new(&b));
        Backend {
            name: b.name,
            address: b.address,
            weight: b.weight,
            state,
            ring_share: b.ring_share,
            packets: b.packets,
            bytes: b.bytes,
            new_flows: b.new_flows,
            flows: b.flows,
            back,
            refused,
            next_hop: b.next_hop,
            reachable: b.reachable,
            health: b.health.map(Health::from),
            spread: None,
        }
    }

    /// One that the engine does not have because it is down.
    fn left_out(checked: &api::BackendHealth, mode: &str) -> Self {
        let status = api::BackendStatus {
            name: checked.backend_name.clone(),
            address: checked.address.clone(),
            next_hop: "-".to_owned(),
            // Nobody tries to.
            reachable: true,
            ..api::BackendStatus::default()
        };
        Backend {
            state: "down",
            ..Backend::new(status, mode)
        }
    }
}

impl Engine {
    /// From the engine's answer.
    pub fn new(status: api::EngineStatus) -> Self {
        Engine {
            version: status.version,
            pid: status.pid,
            uptime_seconds: status.uptime_seconds,
            epoch: status.epoch,
            topology_file: status.topology_file,
            workers: status.workers.into_iter().map(Worker::from).collect(),
            interfaces: status.interfaces.into_iter().map(Interface::from).collect(),
            services: status.services.into_iter().map(Service::from).collect(),
            drops: Drop::all(status.drops),
            sessions_unprotected: status.sessions_unprotected,
            sessions_orphaned: status.sessions_orphaned,
        }
    }

    /// The snapshot in force.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Adds what the daemon says of tiers and slow starts: an engine knows weights and states only.
    pub fn tell(&mut self, spreads: &[api::BackendSpread]) {
        for service in &mut self.services {
            for backend in &mut service.backends {
                let found = Spread::find(spreads, &service.name, &backend.address);
                if found.as_ref().is_some_and(Spread::waits) {
                    backend.state = "waiting";
                }
                backend.spread = found;
            }
        }
    }

    /// Adds the backends that are down by their checks, and so no longer the engine's.
    pub fn add_left_out(&mut self, checked: &[api::BackendHealth]) {
        let down = checked
            .iter()
            .filter(|b| b.verdict() == api::HealthVerdict::Down);
        for one in down {
            let service = self.services.iter_mut().find(|s| s.name == one.service);
            if let Some(service) = service
                && service.backends.iter().all(|b| b.address != one.address)
            {
                service.backends.push(Backend::left_out(one, &service.mode));
            }
        }
    }

    /// The engine in a line.
    pub fn line(&self) -> String {
        let (version, pid, epoch) = (&self.version, self.pid, self.epoch);
        let up = time(self.uptime_seconds);
        format!("lockstep-engine  running  version {version}, up {up}, epoch {epoch}, pid {pid}\n")
    }

    /// Everything else, a table each.
    pub fn tables(&self) -> Vec<String> {
        vec![
            self.interfaces_table(),
            self.workers_table(),
            self.vips_table(),
            self.backends_table(),
            self.drops_table(),
        ]
    }

    /// What the operator should look at.
    pub fn troubles(&self) -> Vec<String> {
        let workers = self.workers.iter().filter(|w| w.state != "running");
        let workers = workers.map(|w| format!("worker {} is {}", w.index, w.state));
        let full = self.workers.iter().filter(|w| w.is_full()).map(|w| {
            let (index, flows, capacity) = (w.index, count(w.flows), count(w.flows_capacity));
            format!(
                "worker {index} has {flows} of {capacity} flows: further ones are forwarded \
                 without an entry; raise flows_ipv4 or flows_ipv6 in topology.toml"
            )
        });
        let unreachable = self.services.iter().flat_map(|s| {
            s.backends.iter().filter(|b| !b.reachable).map(move |b| {
                format!(
                    "service {}: backend {} is not reachable: {}",
                    s.name, b.name, b.next_hop
                )
            })
        });
        let down = self.services.iter().flat_map(|s| {
            let down = |b: &&Backend| {
                let health = b.health.as_ref();
                health.is_some_and(|h| h.verdict == Verdict::Down.name())
            };
            s.backends.iter().filter(down).map(move |b| {
                format!(
                    "service {}: backend {} ({}) does not answer pings any more",
                    s.name, b.name, b.address
                )
            })
        });
        let back = self.services.iter().flat_map(back::troubles);
        let all = workers
            .chain(full)
            .chain(unreachable)
            .chain(down)
            .chain(back);
        all.chain(self.session_troubles()).collect()
    }

    fn session_troubles(&self) -> impl Iterator<Item = String> {
        let of = |n: u64, what: &str| {
            let sessions = if n == 1 { "session" } else { "sessions" };
            (n > 0).then(|| format!("{} {sessions} {what}; see `lockstep sessions`", count(n)))
        };
        let unprotected = "with fewer replicas in sync than `min_sync`";
        let orphaned = "with too few replicas to go on: they end at their `orphan_timeout`";
        let unprotected = of(self.sessions_unprotected, unprotected);
        unprotected
            .into_iter()
            .chain(of(self.sessions_orphaned, orphaned))
    }

    fn interfaces_table(&self) -> String {
        let row = |i: &Interface| {
            vec![
                i.name.clone(),
                i.mode.clone(),
                format!("{} B", i.mtu),
                i.mac.clone(),
            ]
        };
        table(
            &["INTERFACE", "MODE", ">MTU", "MAC"],
            self.interfaces.iter().map(row),
        )
    }

    /// What the kernel dropped has a column only where there is any, and what workers decided on only
    /// where that is not what they received.
    fn workers_table(&self) -> String {
        const PROCESSED: usize = 5;
        const KERNEL_DROPPED: usize = 7;
        let shown = self.workers.iter().any(|w| w.kernel_dropped > 0);
        let spread = (self.workers.iter()).any(|w| w.processed_packets != w.rx_packets);
        let row = |w: &Worker| {
            let mut row = vec![
                w.index.to_string(),
                w.core.to_string(),
                w.queues.join(" "),
                w.state.clone(),
                count(w.rx_packets),
                count(w.tx_packets),
                count(w.dropped),
                format!("{} of {}", count(w.flows), count(w.flows_capacity)),
                count(w.stateless),
                w.latency(),
                w.epoch.to_string(),
            ];
            if shown {
                row.insert(KERNEL_DROPPED, count(w.kernel_dropped));
            }
            if spread {
                row.insert(PROCESSED, count(w.processed_packets));
            }
            row
        };
        let mut columns = vec![
            ">WORKER",
            ">CORE",
            "QUEUES",
            "STATE",
            ">RX PACKETS",
            ">TX PACKETS",
            ">DROPPED",
            ">FLOWS",
            ">STATELESS",
            ">P50 / P99",
            ">EPOCH",
        ];
        if shown {
            columns.insert(KERNEL_DROPPED, ">KERNEL DROPPED");
        }
        if spread {
            columns.insert(PROCESSED, ">PROCESSED");
        }
        table(&columns, self.workers.iter().map(row))
    }

    /// Sessions, of a service together, have a column only where one replicates; packets without
    /// an entry where there were any.
    fn vips_table(&self) -> String {
        let stateless = (self.services.iter().flat_map(|s| &s.vips)).any(|v| v.stateless > 0);
        let replicated = |s: &Service| s.mode == "replicate";
        let replicates = self.services.iter().any(replicated);
        let rows = self.services.iter().flat_map(|s| {
            s.vips.iter().map(move |v| {
                let dropped = v.drops.iter().map(|d| d.packets).sum();
                let (name, mode) = (s.name.clone(), s.mode.clone());
                let mut row = vec![
                    name,
                    mode,
                    v.vip.clone(),
                    count(v.packets),
                    bytes(v.bytes),
                    count(dropped),
                    count(v.flows_moved),
                ];
                if stateless {
                    row.push(count(v.stateless));
                }
                if replicates {
                    let sessions = replicated(s).then(|| count(s.sessions));
                    row.push(sessions.unwrap_or_else(|| "-".to_owned()));
                }
                row
            })
        });
        let mut columns = vec![
            "SERVICE", "MODE", "VIP", ">PACKETS", ">BYTES", ">DROPPED", ">MOVED",
        ];
        if stateless {
            columns.push(">STATELESS");
        }
        if replicates {
            columns.push(">SESSIONS");
        }
        table(&columns, rows)
    }

    /// Health has a column only where there are replicas, and so have tiers and slow starts; answers
    /// where they come by the engine.
    fn backends_table(&self) -> String {
        const HEALTH: usize = 4;
        const TIER: usize = 5;
        let backends = || self.services.iter().flat_map(|s| &s.backends);
        const ANSWERS: usize = 9;
        let shown = backends().any(|b| b.health.is_some());
        let spread = backends().any(|b| b.spread.is_some());
        let answers = backends().any(|b| b.back.is_some());
        let rows = self.services.iter().flat_map(|s| {
            s.backends.iter().map(move |b| {
                let mut row = vec![
                    s.name.clone(),
                    b.name.clone(),
                    b.address.clone(),
                    b.state.to_owned(),
                    b.weight.to_string(),
                    b.share(),
                    count(b.flows),
                    count(b.new_flows),
                    count(b.packets),
                    bytes(b.bytes),
                    b.next_hop.clone(),
                ];
                if answers {
                    let came = b.back.as_ref().map(|back| count(back.answers));
                    row.insert(ANSWERS, came.unwrap_or_else(|| "-".to_owned()));
                }
                if spread {
                    let tier = b.spread.as_ref().map_or("-".to_owned(), Spread::text);
                    row.insert(TIER, tier);
                }
                if shown {
                    let health = b.health.as_ref().map_or("-".to_owned(), Health::text);
                    row.insert(HEALTH, health);
                }
                row
            })
        });
        let mut columns = vec![
            "SERVICE",
            "BACKEND",
            "ADDRESS",
            "STATE",
            ">WEIGHT",
            ">SHARE",
            ">FLOWS",
            ">NEW FLOWS",
            ">PACKETS",
            ">BYTES",
            "NEXT HOP",
        ];
        if answers {
            columns.insert(ANSWERS, ">ANSWERS");
        }
        if spread {
            columns.insert(TIER, "TIER");
        }
        if shown {
            columns.insert(HEALTH, "HEALTH");
        }
        table(&columns, rows)
    }

    /// Only what was counted: every reason there is stands in the JSON.
    fn drops_table(&self) -> String {
        let by_vip = self.services.iter().flat_map(|s| &s.vips);
        let by_vip = by_vip.flat_map(|v| v.drops.iter().map(|d| (v.vip.as_str(), d)));
        let rows = self.drops.iter().map(|d| ("-", d)).chain(by_vip);
        let rows = rows.filter(|(_, d)| d.packets > 0).map(|(vip, d)| {
            vec![
                d.reason.clone(),
                vip.to_owned(),
                count(d.packets),
                d.help.clone(),
            ]
        });
        table(&["DROPPED", "VIP", ">PACKETS", "WHAT TO DO"], rows)
    }
}
