//! What `lockstep top` shows, of one status and the one before: for tables, for programs, and for
//! the screen alike.

use super::meter::Meter;
use crate::cli::flows::{endpoint, protocol_name};
use crate::cli::output::{self, Column};
use crate::cli::units;
use lockstep_api as api;
use serde::Serialize;
use std::cmp::Ordering;

/// Bits of a byte.
const BITS: f64 = 8.0;

/// A status as rates. Rates are null where there is no status before to hold it against.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    pub version: String,
    pub pid: u64,
    pub uptime_seconds: f64,
    pub epoch: u64,
    pub total: Total,
    vips: Vec<Vip>,
    backends: Vec<Backend>,
    workers: Vec<Worker>,
    drops: Vec<Drop>,
}

/// Over all VIPs, dropped packets of no VIP included.
#[derive(Debug, Clone, Serialize)]
pub struct Total {
    pub packets_per_second: Option<f64>,
    pub bits_per_second: Option<f64>,
    pub new_flows_per_second: Option<f64>,
    pub drops_per_second: Option<f64>,
    pub flows: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Vip {
    service: String,
    mode: String,
    vip: String,
    packets_per_second: Option<f64>,
    bits_per_second: Option<f64>,
    drops_per_second: Option<f64>,
    packets: u64,
    dropped: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Backend {
    service: String,
    backend: String,
    address: String,
    state: &'static str,
    ring_share: f64,
    flows: u64,
    new_flows_per_second: Option<f64>,
    packets_per_second: Option<f64>,
    bits_per_second: Option<f64>,
    reachable: bool,
    next_hop: String,
}

#[derive(Debug, Clone, Serialize)]
struct Worker {
    worker: u32,
    core: u32,
    queues: String,
    state: String,
    rx_packets_per_second: Option<f64>,
    /// Decided on: under RPS also what came to the sockets of others.
    processed_packets_per_second: Option<f64>,
    tx_packets_per_second: Option<f64>,
    drops_per_second: Option<f64>,
    /// By the kernel, at the worker's sockets.
    kernel_drops_per_second: Option<f64>,
    flows: u64,
    flows_capacity: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Drop {
    reason: String,
    /// Null where no VIP was found.
    vip: Option<String>,
    drops_per_second: Option<f64>,
    packets: u64,
    help: String,
}

/// A part of the view with its own rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    Vips,
    Backends,
    Workers,
    Drops,
}

impl Pane {
    /// In the order in which they are shown.
    pub const ALL: [Pane; 4] = [Pane::Vips, Pane::Backends, Pane::Workers, Pane::Drops];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Pane::Vips => "VIPs",
            Pane::Backends => "Backends",
            Pane::Workers => "Workers",
            Pane::Drops => "Drops",
        }
    }

    /// Its columns: what matters most stands to the left.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Pane::Vips => &[
                "SERVICE",
                "VIP",
                ">PACKETS/S",
                ">BITS/S",
                ">DROPS/S",
                "MODE",
                ">PACKETS",
                ">DROPPED",
            ],
            Pane::Backends => &[
                "SERVICE",
                "BACKEND",
                ">PACKETS/S",
                ">BITS/S",
                ">NEW FLOWS/S",
                ">FLOWS",
                "STATE",
                ">SHARE",
                "ADDRESS",
                "NEXT HOP",
            ],
            Pane::Workers => &[
                ">WORKER",
                "STATE",
                ">RX/S",
                ">PROCESSED/S",
                ">TX/S",
                ">DROPS/S",
                ">KERNEL/S",
                ">FLOWS",
                ">FULL",
                ">CORE",
                "QUEUES",
            ],
            Pane::Drops => &["REASON", "VIP", ">DROPS/S", ">DROPPED", "WHAT TO DO"],
        }
    }

    /// Whether a column's largest come first: those of numbers do. A worker's number is its name.
    pub fn falls(self, column: usize) -> bool {
        let is_number = |head: &Column| head.starts_with('>');
        self.columns().get(column).is_some_and(is_number) && !(self == Pane::Workers && column == 0)
    }

    /// The column that rows are sorted by at first: the busiest come first.
    pub const fn first_sort(self) -> usize {
        match self {
            Pane::Vips | Pane::Backends | Pane::Drops => 2,
            Pane::Workers => 0,
        }
    }
}

/// A cell: what is shown, and what rows are sorted by.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text.
    pub text: String,
    number: Option<f64>,
}

impl Cell {
    /// How two cells of one column are ordered: numbers by size, text by the alphabet. What is
    /// not known is less than anything.
    pub fn compare(&self, other: &Cell) -> Ordering {
        match (self.number, other.number) {
            (None, None) => self.text.cmp(&other.text),
            (a, b) => a.unwrap_or(-1.0).total_cmp(&b.unwrap_or(-1.0)),
        }
    }
}

/// A row of a pane.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In the order of [`Pane::columns`].
    pub cells: Vec<Cell>,
    /// Whether the operator should look at it.
    pub alert: bool,
}

fn text(text: &str) -> Cell {
    Cell {
        text: text.to_owned(),
        number: None,
    }
}

fn number(n: u64) -> Cell {
    Cell {
        text: units::count(n),
        number: Some(n as f64),
    }
}

fn share(share: f64) -> Cell {
    Cell {
        text: units::percent(share),
        number: Some(share),
    }
}

fn rate(rate: Option<f64>) -> Cell {
    Cell {
        text: units::rate(rate),
        number: rate,
    }
}

fn bits(rate: Option<f64>) -> Cell {
    Cell {
        text: units::bits(rate),
        number: rate,
    }
}

impl View {
    /// Of a status; the meter has the one before, and takes this one in its place.
    pub fn new(status: &api::EngineStatus, meter: &mut Meter) -> Self {
        meter.begin(status.pid, status.uptime_seconds);
        let total = Total::new(status, meter);
        let services = || status.services.iter();
        let vips = services().flat_map(|s| s.vips.iter().map(move |v| (s, v)));
        let vips = vips.map(|(s, v)| Vip::new(s, v, meter)).collect();
        let backends = services().flat_map(|s| s.backends.iter().map(move |b| (s, b)));
        let backends = backends.map(|(s, b)| Backend::new(s, b, meter)).collect();
        let workers = status.workers.iter().map(|w| Worker::new(w, meter));
        let workers = workers.collect();
        let of_none = status.drops.iter().map(|d| (None, d));
        let of_vips = services().flat_map(|s| &s.vips).flat_map(|v| {
            let name = vip_name(v);
            v.drops.iter().map(move |d| (Some(name.clone()), d))
        });
        let drops = of_none.chain(of_vips);
        let drops = drops.map(|(vip, d)| Drop::new(vip, d, meter));
        let drops = drops.filter(|d| d.packets > 0).collect();
        View {
            version: status.version.clone(),
            pid: status.pid,
            uptime_seconds: status.uptime_seconds,
            epoch: status.epoch,
            total,
            vips,
            backends,
            workers,
            drops,
        }
    }

    /// The rows of a pane, sorted by a column: numbers with the largest first and text by the
    /// alphabet, or the other way round. Rows that are equal there stay in the engine's order.
    pub fn rows(&self, pane: Pane, column: usize, reversed: bool) -> Vec<Row> {
        let mut rows: Vec<Row> = match pane {
            Pane::Vips => self.vips.iter().map(Vip::row).collect(),
            Pane::Backends => self.backends.iter().map(Backend::row).collect(),
            Pane::Workers => self.workers.iter().map(Worker::row).collect(),
            Pane::Drops => self.drops.iter().map(Drop::row).collect(),
        };
        let falling = pane.falls(column);
        rows.sort_by(|a, b| {
            let (a, b) = (&a.cells[column], &b.cells[column]);
            let order = a.compare(b);
            if falling == reversed {
                order
            } else {
                order.reverse()
            }
        });
        rows
    }

    /// The engine in a line.
    pub fn engine_line(&self) -> String {
        let (version, epoch, pid) = (&self.version, self.epoch, self.pid);
        let up = units::time(self.uptime_seconds);
        format!("lockstep-engine {version}, up {up}, epoch {epoch}, pid {pid}")
    }

    /// The sums in a line.
    pub fn total_line(&self) -> String {
        let total = &self.total;
        format!(
            "{} packets/s, {}, {} new flows/s, {} drops/s, {} flows",
            units::rate(total.packets_per_second),
            units::bits(total.bits_per_second),
            units::rate(total.new_flows_per_second),
            units::rate(total.drops_per_second),
            units::count(total.flows)
        )
    }

    /// Everything as plain tables.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.engine_line(), self.total_line());
        for pane in Pane::ALL {
            let rows = self.rows(pane, pane.first_sort(), false);
            let cells = |row: Row| row.cells.into_iter().map(|c| c.text).collect();
            let table = output::table(pane.columns(), rows.into_iter().map(cells));
            if !table.is_empty() {
                text.push('\n');
                text.push_str(&table);
            }
        }
        text
    }
}

fn vip_name(vip: &api::VipStatus) -> String {
    let vip = vip.vip.clone().unwrap_or_default();
    let ports = match vip.last_port {
        0 => String::new(),
        last => format!("-{last}"),
    };
    format!(
        "{}{ports}/{}",
        endpoint(&vip.address, vip.port),
        protocol_name(vip.protocol())
    )
}

impl Total {
    fn new(status: &api::EngineStatus, meter: &mut Meter) -> Self {
        let vips = || status.services.iter().flat_map(|s| &s.vips);
        let backends = status.services.iter().flat_map(|s| &s.backends);
        let of_vips = vips().flat_map(|v| &v.drops);
        let dropped = status.drops.iter().chain(of_vips).map(|d| d.packets);
        let packets = vips().map(|v| v.packets).sum();
        let bytes = vips().map(|v| v.bytes).sum();
        let new_flows = backends.map(|b| b.new_flows).sum();
        Total {
            packets_per_second: meter.rate("packets", "", packets),
            bits_per_second: meter.rate("bytes", "", bytes).map(|rate| rate * BITS),
            new_flows_per_second: meter.rate("new flows", "", new_flows),
            drops_per_second: meter.rate("drops", "", dropped.sum()),
            flows: status.workers.iter().map(|w| w.flows).sum(),
        }
    }
}

impl Vip {
    fn new(service: &api::ServiceStatus, status: &api::VipStatus, meter: &mut Meter) -> Self {
        let vip = vip_name(status);
        let of = format!("{} {vip}", service.name);
        let dropped = status.drops.iter().map(|d| d.packets).sum();
        Vip {
            service: service.name.clone(),
            mode: service.mode.clone(),
            packets_per_second: meter.rate("vip packets", &of, status.packets),
            bits_per_second: meter
                .rate("vip bytes", &of, status.bytes)
                .map(|rate| rate * BITS),
            drops_per_second: meter.rate("vip drops", &of, dropped),
            packets: status.packets,
            dropped,
            vip,
        }
    }

    fn row(&self) -> Row {
        Row {
            cells: vec![
                text(&self.service),
                text(&self.vip),
                rate(self.packets_per_second),
                bits(self.bits_per_second),
                rate(self.drops_per_second),
                text(&self.mode),
                number(self.packets),
                number(self.dropped),
            ],
            alert: self.drops_per_second.is_some_and(|rate| rate > 0.0),
        }
    }
}

impl Backend {
    fn new(service: &api::ServiceStatus, status: &api::BackendStatus, meter: &mut Meter) -> Self {
        let of = format!("{} {}", service.name, status.address);
        Backend {
            service: service.name.clone(),
            backend: status.name.clone(),
            address: status.address.clone(),
            state: match status.state() {
                api::BackendState::Active => "active",
                api::BackendState::Draining => "draining",
                api::BackendState::Unspecified => "unknown",
            },
            ring_share: status.ring_share,
            flows: status.flows,
            new_flows_per_second: meter.rate("backend flows", &of, status.new_flows),
            packets_per_second: meter.rate("backend packets", &of, status.packets),
            bits_per_second: meter
                .rate("backend bytes", &of, status.bytes)
                .map(|rate| rate * BITS),
            reachable: status.reachable,
            next_hop: status.next_hop.clone(),
        }
    }

    fn row(&self) -> Row {
        Row {
            cells: vec![
                text(&self.service),
                text(&self.backend),
                rate(self.packets_per_second),
                bits(self.bits_per_second),
                rate(self.new_flows_per_second),
                number(self.flows),
                text(self.state),
                share(self.ring_share),
                text(&self.address),
                text(&self.next_hop),
            ],
            alert: !self.reachable,
        }
    }
}

impl Worker {
    fn new(status: &api::WorkerStatus, meter: &mut Meter) -> Self {
        let of = status.index.to_string();
        Worker {
            worker: status.index,
            core: status.core,
            queues: status.queues.join(" "),
            state: status.state.clone(),
            rx_packets_per_second: meter.rate("worker rx", &of, status.rx_packets),
            processed_packets_per_second: meter.rate(
                "worker processed",
                &of,
                status.processed_packets,
            ),
            tx_packets_per_second: meter.rate("worker tx", &of, status.tx_packets),
            drops_per_second: meter.rate("worker drops", &of, status.dropped),
            kernel_drops_per_second: meter.rate("worker kernel drops", &of, status.kernel_dropped),
            flows: status.flows,
            flows_capacity: status.flows_capacity,
        }
    }

    fn row(&self) -> Row {
        let full = self.flows as f64 / self.flows_capacity.max(1) as f64;
        let lost = self.kernel_drops_per_second.is_some_and(|rate| rate > 0.0);
        Row {
            cells: vec![
                number(self.worker.into()),
                text(&self.state),
                rate(self.rx_packets_per_second),
                rate(self.processed_packets_per_second),
                rate(self.tx_packets_per_second),
                rate(self.drops_per_second),
                rate(self.kernel_drops_per_second),
                number(self.flows),
                share(full),
                number(self.core.into()),
                text(&self.queues),
            ],
            alert: self.state != "running" || lost,
        }
    }
}

impl Drop {
    fn new(vip: Option<String>, status: &api::DropCount, meter: &mut Meter) -> Self {
        let of = format!("{} {}", status.reason, vip.as_deref().unwrap_or_default());
        Drop {
            drops_per_second: meter.rate("drop", &of, status.packets),
            reason: status.reason.clone(),
            packets: status.packets,
            help: status.help.clone(),
            vip,
        }
    }

    fn row(&self) -> Row {
        Row {
            cells: vec![
                text(&self.reason),
                text(self.vip.as_deref().unwrap_or("-")),
                rate(self.drops_per_second),
                number(self.packets),
                text(&self.help),
            ],
            alert: self.drops_per_second.is_some_and(|rate| rate > 0.0),
        }
    }
}
