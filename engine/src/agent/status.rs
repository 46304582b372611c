//! `lockstep status`: what every part does, summed over the workers.

use super::convert::health_to_proto;
use super::{Agent, nexthop};
use crate::workers::SocketHandle;
use lockstep_api as api;
use lockstep_core::counters::{BackendCounters, Count, VipCounters};
use lockstep_core::replicate::counters::ReplicaBytes;
use lockstep_core::replicate::session::SessionState;
use lockstep_core::tables::{Member, Ring, VipRef};
use lockstep_core::{Counters, Tables};
use lockstep_plan::{BackendState, DropReason, Vip};
use lockstep_xsk::Statistics;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a worker's connections may wait for a first answer of their backend.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came back of what a backend was sent, over all workers.
#[derive(Debug, Default)]
struct Back {
    unanswered: u64,
    waited: Duration,
    refused: Option<Duration>,
}

/// The engine stays in the directory that it was started in.
fn absolute(file: &str) -> String {
    let path = std::path::absolute(file);
    path.map_or_else(|_| file.to_owned(), |path| path.display().to_string())
}

impl Agent {
    /// The engine's status.
    pub(super) async fn status(&self) -> api::EngineStatus {
        let (tables, epoch) = {
            let state = self.state.lock().await;
            (Arc::clone(&state.tables), state.snapshot.epoch())
        };
        let ways = self.next_hops.watch().borrow().clone();
        api::EngineStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id().into(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            epoch,
            workers: self.worker_statuses(),
            services: self.services(&tables, &ways),
            interfaces: self.interfaces(),
            drops: self.drops(VipRef::UNKNOWN, true),
            sessions_unprotected: self.sessions_in(SessionState::Unprotected),
            sessions_orphaned: self.sessions_in(SessionState::Orphaned),
            topology_file: absolute(self.topology.file()),
        }
    }

    /// Sessions of all workers that are in a state.
    pub(super) fn sessions_in(&self, state: SessionState) -> u64 {
        let counters = self.workers.iter().filter_map(|w| w.sessions());
        counters.map(|c| c.by_state[state as usize].get()).sum()
    }

    fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.workers
            .iter()
            .map(|w| w.handle().vitals.counters.as_ref())
    }

    fn worker_statuses(&self) -> Vec<api::WorkerStatus> {
        let topology = self.topology.engine();
        let capacity = u64::from(topology.flows_ipv4.get()) + u64::from(topology.flows_ipv6.get());
        let status = |(index, link): (usize, &super::WorkerLink)| {
            let worker = link.handle();
            let vitals = &worker.vitals;
            let counters = &vitals.counters;
            let seconds = |share| vitals.latency.quantile(share).map(|ns| ns as f64 / 1e9);
            api::WorkerStatus {
                index: index as u32,
                core: worker.core,
                queues: worker.queues.clone(),
                state: link.state().name().to_owned(),
                rx_packets: vitals.received.get(),
                tx_packets: vitals.sent.get(),
                dropped: vitals.dropped.get(),
                flows: counters.flows_v4.get() + counters.flows_v6.get(),
                flows_capacity: capacity,
                stateless: counters.stateless.get(),
                epoch: counters.epoch.get(),
                latency_p50_seconds: seconds(0.5),
                latency_p99_seconds: seconds(0.99),
                processed_packets: vitals.processed.get(),
                kernel_dropped: worker
                    .sockets
                    .iter()
                    .filter_map(statistics)
                    .map(|kernel| kernel.lost())
                    .sum(),
            }
        };
        self.workers.iter().enumerate().map(status).collect()
    }

    fn services(&self, tables: &Tables, ways: &nexthop::Table) -> Vec<api::ServiceStatus> {
        let mut vips: BTreeMap<&str, Vec<api::VipStatus>> = BTreeMap::new();
        for (vip_ref, vip, ring) in tables.vips() {
            let status = self.vip(vip_ref, vip);
            vips.entry(ring.name.as_str()).or_default().push(status);
        }
        let service = |ring: &Ring| api::ServiceStatus {
            name: ring.name.to_string(),
            mode: ring.mode.name().to_owned(),
            vips: vips.remove(ring.name.as_str()).unwrap_or_default(),
            sessions: self.sessions_of(tables, ring),
            backends: ring
                .members
                .iter()
                .map(|m| self.backend(ring, m, ways))
                .collect(),
        };
        tables.rings().iter().map(service).collect()
    }

    /// Sessions of a service, over all workers.
    fn sessions_of(&self, tables: &Tables, ring: &Ring) -> u64 {
        let vips = tables
            .vips()
            .filter(|(_, _, owner)| owner.name == ring.name);
        let workers = || self.workers.iter().filter_map(|w| w.sessions());
        vips.map(|(vip, _, _)| workers().map(|c| c.by_vip.of(vip).get()).sum::<u64>())
            .sum()
    }

    fn vip(&self, vip_ref: VipRef, vip: Vip) -> api::VipStatus {
        let sum = |count: fn(&VipCounters) -> &Count| -> u64 {
            self.counters()
                .filter_map(|c| c.vips.get(vip_ref.slot()))
                .map(|v| count(v).get())
                .sum()
        };
        api::VipStatus {
            vip: Some(super::convert::vip_to_proto(&vip)),
            packets: sum(|v| &v.packets),
            bytes: sum(|v| &v.bytes),
            flows_moved: sum(|v| &v.moved),
            stateless: sum(|v| &v.stateless),
            drops: self.drops(vip_ref, false),
        }
    }

    fn drops(&self, vip: VipRef, all: bool) -> Vec<api::DropCount> {
        let packets = |reason: DropReason| -> u64 {
            self.counters()
                .filter_map(|c| c.vips.get(vip.slot()))
                .map(|v| v.drops[reason as usize].get())
                .sum()
        };
        DropReason::ALL
            .iter()
            .map(|&reason| api::DropCount {
                reason: reason.name().to_owned(),
                packets: packets(reason),
                help: reason.help().to_owned(),
            })
            .filter(|drop| all || drop.packets > 0)
            .collect()
    }

    fn backend(&self, ring: &Ring, member: &Member, ways: &nexthop::Table) -> api::BackendStatus {
        let sum = |count: fn(&BackendCounters) -> &Count| -> u64 {
            self.counters()
                .filter_map(|c| c.backends.get(member.backend_ref.slot()))
                .map(|b| count(b).get())
                .sum()
        };
        let replica = |count: fn(&ReplicaBytes) -> &Count| -> u64 {
            let workers = self.workers.iter().filter_map(|w| w.sessions());
            workers
                .map(|c| count(c.by_backend.of(member.backend_ref)).get())
                .sum()
        };
        let way = ways.get(&member.backend.address);
        let back = self.back(member);
        api::BackendStatus {
            name: member.backend.name.clone(),
            address: member.backend.address.to_string(),
            weight: member.backend.weight.get().into(),
            state: match member.backend.state {
                BackendState::Active => api::BackendState::Active.into(),
                BackendState::Draining => api::BackendState::Draining.into(),
            },
            ring_share: ring.share(member),
            packets: sum(|b| &b.packets),
            bytes: sum(|b| &b.bytes),
            new_flows: sum(|b| &b.new_flows),
            flows: sum(|b| &b.flows),
            replica_input_bytes: replica(|b| &b.input),
            replica_output_bytes: replica(|b| &b.output),
            next_hop: way.map_or("not looked up yet".to_owned(), ToString::to_string),
            reachable: matches!(self.way(way), lockstep_core::NextHop::Via(_)),
            answers: sum(|b| &b.answers),
            resets: sum(|b| &b.resets),
            unanswered_flows: back.unanswered,
            unanswered_seconds: back.waited.as_secs_f64(),
            refused: sum(|b| &b.refused),
            refused_seconds: back.refused.map(|since| since.as_secs_f64()),
            health: ring
                .replicate
                .as_ref()
                .map(|_| health_to_proto(member.backend.health).unwrap_or_default()),
        }
    }

    /// What came back of what a backend was sent. Each worker's clock has a start of its own.
    fn back(&self, member: &Member) -> Back {
        let mut back = Back::default();
        for worker in self.workers.iter().map(super::WorkerLink::handle) {
            let slot = member.backend_ref.slot();
            let Some(counters) = worker.vitals.counters.backends.get(slot) else {
                continue;
            };
            let now = worker.epoch.elapsed();
            let since = |moment: &Count| now.saturating_sub(Duration::from_micros(moment.get()));
            // In this order: the worker says since when before it counts the first one.
            let unanswered = counters.unanswered.get();
            let waited = since(&counters.unanswered_since);
            // An answer that is on its way is no trouble.
            if unanswered > 0 && waited >= PATIENCE {
                back.unanswered += unanswered;
                back.waited = back.waited.max(waited);
            }
            if counters.refused.get() > 0 {
                let since = since(&counters.refused_at);
                back.refused = Some(back.refused.map_or(since, |least| least.min(since)));
            }
        }
        back
    }

    fn interfaces(&self) -> Vec<api::InterfaceStatus> {
        let sockets = || self.workers.iter().flat_map(|w| &w.handle().sockets);
        let status = |(index, interface): (usize, &lockstep_topology::Interface)| {
            let name = interface.name.as_str();
            let mode = sockets().find(|s| s.interface == index).map(|s| s.mode);
            let read = |file: &str| {
                let path = format!("/sys/class/net/{name}/{file}");
                std::fs::read_to_string(path)
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            };
            api::InterfaceStatus {
                name: name.to_owned(),
                index: index as u32,
                mode: mode.map(|m| m.to_string()).unwrap_or_default(),
                mtu: read("mtu").parse().unwrap_or_default(),
                mac: read("address"),
            }
        };
        self.topology
            .interfaces()
            .iter()
            .enumerate()
            .map(status)
            .collect()
    }

    /// Turns of all workers' loops: for metrics.
    pub(super) fn turns(&self) -> impl Iterator<Item = u64> {
        self.workers
            .iter()
            .map(|w| w.handle().vitals.turns.load(Ordering::Relaxed))
    }
}

/// What the kernel counts for a socket; its descriptor stays good when the worker is gone.
pub(super) fn statistics(socket: &SocketHandle) -> Option<Statistics> {
    lockstep_xsk::statistics_of(socket.fd.as_fd())
        .inspect_err(|error| tracing::warn!(queue = socket.queue, %error, "no socket statistics"))
        .ok()
}
