//! Every counter in the Prometheus text format (version 0.0.4).
//!
//! The names are part of the product: `docs/src/operations/metrics.md` has the same list.

mod sessions;

use super::Agent;
use super::status::statistics;
use crate::worker::SAMPLE;
use lockstep_api as api;
use lockstep_core::histogram::Histogram;
use lockstep_process::metrics::Page;

/// The upper ends of the latency histogram's buckets, in nanoseconds.
const LATENCIES: [u64; 16] = [
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
];

impl Agent {
    /// The metrics, of which most stand in the status already.
    pub(super) fn metrics(&self, status: &api::EngineStatus) -> String {
        let mut page = Page::default();
        page.family(
            "lockstep_engine_info",
            "gauge",
            "1, with the engine's version.",
        );
        page.sample(&[("version", &status.version)], 1);
        page.family(
            "lockstep_engine_uptime_seconds",
            "gauge",
            "Since the engine's start.",
        );
        page.sample(&[], status.uptime_seconds);
        page.family("lockstep_epoch", "gauge", "Epoch of the snapshot in force.");
        page.sample(&[], status.epoch);
        self.worker_metrics(&mut page, status);
        self.interface_metrics(&mut page, status);
        self.socket_metrics(&mut page);
        service_metrics(&mut page, status);
        drop_metrics(&mut page, status);
        self.session_metrics(&mut page, status);
        page.into_text()
    }

    fn worker_metrics(&self, page: &mut Page, status: &api::EngineStatus) {
        type Field = fn(&api::WorkerStatus) -> u64;
        let families: [(&str, &str, &str, Field); 8] = [
            (
                "lockstep_worker_up",
                "gauge",
                "1 while the worker runs, 0 when hung or stopped.",
                |w| u64::from(w.state == "running"),
            ),
            (
                "lockstep_worker_rx_packets_total",
                "counter",
                "Frames received.",
                |w| w.rx_packets,
            ),
            (
                "lockstep_worker_tx_packets_total",
                "counter",
                "Frames sent.",
                |w| w.tx_packets,
            ),
            (
                "lockstep_worker_dropped_packets_total",
                "counter",
                "Frames dropped.",
                |w| w.dropped,
            ),
            (
                "lockstep_worker_flows",
                "gauge",
                "Flows in the worker's tables.",
                |w| w.flows,
            ),
            (
                "lockstep_worker_flows_capacity",
                "gauge",
                "Flows the tables are for.",
                |w| w.flows_capacity,
            ),
            (
                "lockstep_worker_stateless_flows_total",
                "counter",
                "Packets forwarded without an entry for their flow, the table being full.",
                |w| w.stateless,
            ),
            (
                "lockstep_worker_epoch",
                "gauge",
                "Epoch the worker forwards by.",
                |w| w.epoch,
            ),
        ];
        for (name, kind, help, field) in families {
            page.family(name, kind, help);
            for worker in &status.workers {
                let (index, core) = (worker.index.to_string(), worker.core.to_string());
                page.sample(&[("worker", &index), ("core", &core)], field(worker));
            }
        }
        let vitals = || self.workers.iter().map(|w| &w.handle().vitals);
        per_worker(
            page,
            "lockstep_worker_turns_total",
            "Turns of the loop.",
            self.turns(),
        );
        per_worker(
            page,
            "lockstep_worker_bursts_total",
            "Bursts with at least one frame.",
            vitals().map(|v| v.bursts.get()),
        );
        per_worker(
            page,
            "lockstep_worker_processed_packets_total",
            "Packets decided on, whosever socket they came to.",
            vitals().map(|v| v.processed.get()),
        );
        per_worker(
            page,
            "lockstep_worker_taken_over_packets_total",
            "Packets of its flows and sessions that came to another worker's socket.",
            vitals().map(|v| v.taken_over.get()),
        );
        per_worker(
            page,
            "lockstep_worker_tx_wakeups_total",
            "System calls made to send.",
            vitals().map(|v| v.tx_wakeups.get()),
        );
        per_worker(
            page,
            "lockstep_worker_rx_polls_total",
            "System calls made to take packets in, with `receive = \"worker\"`.",
            vitals().map(|v| v.rx_polls.get()),
        );
        per_worker(
            page,
            "lockstep_worker_evicted_flows_total",
            "Entries forgotten for new ones, the buckets being full.",
            vitals().map(|v| v.counters.evicted.get()),
        );
        per_worker(
            page,
            "lockstep_worker_evicted_sources_total",
            "Source prefixes forgotten for new ones although they had opened flows of late.",
            vitals().map(|v| v.counters.sources_forgotten.get()),
        );
        per_worker(
            page,
            "lockstep_worker_rehashed_flows_total",
            "Flows given another backend because theirs was removed.",
            vitals().map(|v| v.counters.rehashed.get()),
        );
        per_worker(
            page,
            "lockstep_worker_cookies_sent_total",
            "SYNs of full-NAT services answered with a cookie.",
            vitals().map(|v| v.counters.cookies_sent.get()),
        );
        per_worker(
            page,
            "lockstep_worker_cookies_accepted_total",
            "Flows of full-NAT services opened by the answer to a cookie.",
            vitals().map(|v| v.counters.cookies_accepted.get()),
        );
        page.family(
            "lockstep_worker_spliced_flows",
            "gauge",
            "Flows that the answer to a cookie opened and that are in the flow tables.",
        );
        for (index, vitals) in vitals().enumerate() {
            page.sample(
                &[("worker", &index.to_string())],
                vitals.counters.spliced.get(),
            );
        }
        page.family(
            "lockstep_latency_seconds",
            "histogram",
            &format!("From receiving to sending a packet, of one burst in {SAMPLE}."),
        );
        for (index, vitals) in vitals().enumerate() {
            let latency = std::iter::once(&vitals.latency);
            times(
                page,
                &[("worker", &index.to_string())],
                &LATENCIES,
                1e9,
                latency,
            );
        }
    }

    fn interface_metrics(&self, page: &mut Page, status: &api::EngineStatus) {
        page.family(
            "lockstep_interface_info",
            "gauge",
            "1, with how the sockets are bound.",
        );
        for interface in &status.interfaces {
            page.sample(
                &[("interface", &interface.name), ("mode", &interface.mode)],
                1,
            );
        }
        page.family(
            "lockstep_xdp_packets_total",
            "counter",
            "What the XDP program did with frames: redirected, carried, or why the kernel got them.",
        );
        for (interface, counters) in status.interfaces.iter().zip(self.steering.counters()) {
            for (verdict, packets) in counters.iter() {
                page.sample(
                    &[("interface", &interface.name), ("verdict", verdict)],
                    packets,
                );
            }
        }
        let usage = self.next_hops.usage();
        page.family(
            "lockstep_nexthop_queries_total",
            "counter",
            "Questions about routes and neighbours put to the kernel.",
        );
        page.sample(&[], usage.queries);
    }

    fn socket_metrics(&self, page: &mut Page) {
        page.family(
            "lockstep_socket_drops_total",
            "counter",
            "What the kernel dropped or skipped at an AF_XDP socket, by its own reasons.",
        );
        for socket in self.workers.iter().flat_map(|w| &w.handle().sockets) {
            let Some(kernel) = statistics(socket) else {
                continue;
            };
            let interface = self.topology.interfaces()[socket.interface].name.as_str();
            let queue = socket.queue.to_string();
            for (reason, frames) in [
                ("rx_dropped", kernel.rx_dropped),
                ("rx_ring_full", kernel.rx_ring_full),
                ("rx_fill_ring_empty_descs", kernel.rx_fill_ring_empty_descs),
                ("rx_invalid_descs", kernel.rx_invalid_descs),
                ("tx_invalid_descs", kernel.tx_invalid_descs),
            ] {
                let labels = [
                    ("interface", interface),
                    ("queue", &queue),
                    ("reason", reason),
                ];
                page.sample(&labels, frames);
            }
        }
    }
}

fn service_metrics(page: &mut Page, status: &api::EngineStatus) {
    type VipField = fn(&api::VipStatus) -> u64;
    let families: [(&str, &str, VipField); 4] = [
        ("lockstep_vip_packets_total", "Packets forwarded.", |v| {
            v.packets
        }),
        (
            "lockstep_vip_bytes_total",
            "Bytes forwarded, without tunnel headers.",
            |v| v.bytes,
        ),
        (
            "lockstep_vip_flows_moved_total",
            "Flows whose backend changed during their life, theirs having been removed.",
            |v| v.flows_moved,
        ),
        (
            "lockstep_vip_stateless_packets_total",
            "Packets forwarded without an entry for their flow, the table being full.",
            |v| v.stateless,
        ),
    ];
    for (name, help, field) in families {
        page.family(name, "counter", help);
        for (service, vip) in vips(status) {
            page.sample(
                &[("service", &service.name), ("vip", &vip_label(vip))],
                field(vip),
            );
        }
    }
    type Field = fn(&api::BackendStatus) -> f64;
    let families: [(&str, &str, &str, Field); 12] = [
        (
            "lockstep_backend_packets_total",
            "counter",
            "Packets forwarded.",
            |b| b.packets as f64,
        ),
        (
            "lockstep_backend_bytes_total",
            "counter",
            "Bytes forwarded.",
            |b| b.bytes as f64,
        ),
        (
            "lockstep_backend_new_flows_total",
            "counter",
            "Flows given to it.",
            |b| b.new_flows as f64,
        ),
        (
            "lockstep_backend_flows",
            "gauge",
            "Flows in the tables.",
            |b| b.flows as f64,
        ),
        (
            "lockstep_backend_ring_share",
            "gauge",
            "Share of new flows, 0 to 1.",
            |b| b.ring_share,
        ),
        (
            "lockstep_backend_reachable",
            "gauge",
            "1 when its next hop is known.",
            |b| f64::from(u8::from(b.reachable)),
        ),
        (
            "lockstep_backend_weight",
            "gauge",
            "Its weight against the service's others.",
            |b| b.weight.into(),
        ),
        (
            "lockstep_backend_draining",
            "gauge",
            "1 while it takes no new flows.",
            |b| f64::from(u8::from(b.state() == api::BackendState::Draining)),
        ),
        (
            "lockstep_backend_answers_total",
            "counter",
            "Its answers, where they come back by the engine (nat, full-nat).",
            |b| b.answers as f64,
        ),
        (
            "lockstep_backend_unanswered_flows",
            "gauge",
            "TCP flows opened since its last answer, after two seconds without one.",
            |b| b.unanswered_flows as f64,
        ),
        (
            "lockstep_backend_resets_total",
            "counter",
            "Connections that it has reset before the client could use them (nat, full-nat).",
            |b| b.resets as f64,
        ),
        (
            "lockstep_backend_refused_packets_total",
            "counter",
            "Packets in a tunnel to it that somebody refused, by ICMP.",
            |b| b.refused as f64,
        ),
    ];
    for (name, kind, help, field) in families {
        page.family(name, kind, help);
        for service in &status.services {
            for backend in &service.backends {
                let labels = [
                    ("service", service.name.as_str()),
                    ("backend", &backend.name),
                    ("address", &backend.address),
                ];
                page.sample(&labels, field(backend));
            }
        }
    }
}

fn drop_metrics(page: &mut Page, status: &api::EngineStatus) {
    page.family(
        "lockstep_dropped_packets_total",
        "counter",
        "Packets dropped, by reason; without service and VIP where none was found.",
    );
    for drop in &status.drops {
        page.sample(
            &[("service", ""), ("vip", ""), ("reason", &drop.reason)],
            drop.packets,
        );
    }
    for (service, vip) in vips(status) {
        for drop in &vip.drops {
            let label = vip_label(vip);
            let labels = [
                ("service", service.name.as_str()),
                ("vip", &label),
                ("reason", &drop.reason),
            ];
            page.sample(&labels, drop.packets);
        }
    }
}

fn vips(
    status: &api::EngineStatus,
) -> impl Iterator<Item = (&api::ServiceStatus, &api::VipStatus)> {
    status
        .services
        .iter()
        .flat_map(|s| s.vips.iter().map(move |v| (s, v)))
}

fn vip_label(status: &api::VipStatus) -> String {
    let Some(vip) = &status.vip else {
        return String::new();
    };
    let protocol = vip.protocol().as_str_name().to_lowercase();
    if vip.address.contains(':') {
        format!("[{}]:{}/{protocol}", vip.address, vip.port)
    } else {
        format!("{}:{}/{protocol}", vip.address, vip.port)
    }
}

/// Times of some histograms together, which count `a_second` in a second. What is in a bucket is
/// below its end: the histograms' own buckets are finer, and one that lies across an end counts
/// for the next.
fn times<'a>(
    page: &mut Page,
    labels: &[(&str, &str)],
    ends: &[u64],
    a_second: f64,
    of: impl Iterator<Item = &'a Histogram> + Clone,
) {
    let below = |end: u64| -> u64 {
        let buckets = of.clone().flat_map(Histogram::buckets);
        buckets.filter(|(to, _)| *to <= end).map(|(_, n)| n).sum()
    };
    let seconds = |value: u64| value as f64 / a_second;
    for &end in ends {
        let end_text = seconds(end).to_string();
        page.part(
            "_bucket",
            &[labels, &[("le", &end_text)]].concat(),
            below(end),
        );
    }
    let count: u64 = of.clone().map(Histogram::count).sum();
    page.part("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
    let sum = of.map(Histogram::sum).sum();
    page.part("_sum", labels, seconds(sum));
    page.part("_count", labels, count);
}

fn per_worker(page: &mut Page, name: &str, help: &str, values: impl Iterator<Item = u64>) {
    page.family(name, "counter", help);
    for (index, value) in values.enumerate() {
        page.sample(&[("worker", &index.to_string())], value);
    }
}
