//! The agent: everything of the engine that may block.
//!
//! It holds the snapshot in force, compiles it into tables, hands those to the workers, keeps the
//! XDP programs' maps in step, follows the kernel's next hops, and answers the gRPC interface.

mod api;
mod capture;
pub mod convert;
pub(crate) mod equip;
mod events;
mod explain;
#[cfg(test)]
mod fixtures;
mod flows;
mod former;
mod link;
mod metrics;
pub mod nexthop;
mod preview;
mod server;
mod sessions;
mod settle;
mod status;
mod steering;
mod succession;
mod watchdog;

pub use link::{WorkerLink, WorkerState};
pub use server::is_served;
pub use steering::give_up;
pub use succession::{Heritage, inherit};

use crate::spill::SpillHandle;
use crate::workers::Started;
use equip::EquipError;
use events::Events;
use former::{Former, Names};
use futures::future::join_all;
use lockstep_bpf::Steer;
use lockstep_core::tables::CompileError;
use lockstep_core::{EngineAddresses, NextHop, PortId, Route, Tables};
use lockstep_plan::Snapshot;
use lockstep_topology::Topology;
use lockstep_wire::LinkHeader;
use nexthop::{NextHops, Resolution};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use steering::Steering;
use tokio::sync::{Mutex, Notify};

/// How long a new snapshot waits for the kernel to find the ways to new backends, so that their
/// first packets are not dropped. It is put in force then in any case.
const RESOLVE: Duration = Duration::from_millis(300);

/// How long workers may take to stop.
const STOP: Duration = Duration::from_secs(2);

/// The engine, as everything but the workers sees it.
pub struct Agent {
    topology: Topology,
    started: Instant,
    workers: Vec<WorkerLink>,
    steering: Steering,
    next_hops: NextHops,
    state: Mutex<State>,
    events: Events,
    /// Held by the capture that runs: there is one at a time.
    capturing: Arc<Mutex<()>>,
    /// Ends with the agent, and removes its files then.
    spill: Option<SpillHandle>,
    failed: Notify,
    /// Whether a successor is being told what this engine has.
    succession: AtomicBool,
    /// Told when the successor has everything.
    left: Notify,
}

/// Why an engine ends without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another engine took its place.
    Succeeded,
}

/// What is in force. Locked by whoever changes it, one at a time.
struct State {
    snapshot: Snapshot,
    tables: Arc<Tables>,
    /// The services whose ring before is kept.
    changed: settle::Changed,
    /// Backends that were in force.
    former: Arc<Former>,
}

/// Why a snapshot is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another snapshot of this or a later epoch is in force.
    #[error(
        "epoch {offered} is not later than epoch {current}, which is in force; take the engine's \
         epoch from `Current` and offer a later one"
    )]
    Stale {
        /// The epoch offered.
        offered: u64,
        /// The epoch in force.
        current: u64,
    },
    /// The snapshot needs what this engine does not have.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The workers cannot hold sessions.
    #[error(transparent)]
    Equip(#[from] EquipError),
    /// The XDP program's map was not updated.
    #[error("{0:#}")]
    Steer(#[from] lockstep_bpf::BpfError),
    /// The engine is stopping.
    #[error("the engine is stopping")]
    Ended,
}

impl Agent {
    /// An agent over running workers, whose sockets get packets from the first snapshot on. Where it
    /// fails, takes the programs off again that were not there before.
    pub async fn new(
        topology: Topology,
        started: Started,
        steers: Vec<Steer>,
    ) -> anyhow::Result<Arc<Self>> {
        let workers = started.workers.into_iter();
        let workers: Vec<WorkerLink> = workers.map(WorkerLink::new).collect();
        let steering = Steering::new(steers, topology.engine().addresses.all().to_vec())?;
        steering.beat();
        let next_hops = match NextHops::start().await {
            Ok(next_hops) => next_hops,
            Err(error) => {
                steering.give_up();
                return Err(error.into());
            }
        };
        // What is compiled from these has the ports and the number of workers too.
        let processing = u32::try_from(topology.processing().len())?;
        let tables = Tables::default()
            .with_session_ports(topology.sessions().ports.all())
            .with_workers(NonZeroU32::new(processing).unwrap_or(NonZeroU32::MIN));
        Ok(Arc::new(Agent {
            topology,
            started: Instant::now(),
            workers,
            steering,
            next_hops,
            state: Mutex::new(State {
                snapshot: Snapshot::empty(),
                tables: Arc::new(tables),
                changed: settle::Changed::default(),
                former: Arc::default(),
            }),
            events: Events::default(),
            capturing: Arc::default(),
            spill: started.spill,
            failed: Notify::new(),
            succession: AtomicBool::new(false),
            left: Notify::new(),
        }))
    }

    /// Serves the API and keeps everything in step. Returns when the engine has to stop: a worker
    /// ended, or the API cannot be served.
    pub async fn run(self: &Arc<Self>, ready: impl FnOnce()) -> anyhow::Result<Ended> {
        tokio::select! {
            result = server::serve(Arc::clone(self), ready) => result.map(|()| Ended::Stopped),
            () = self.left.notified() => Ok(Ended::Succeeded),
            () = self.follow_next_hops() => anyhow::bail!("the kernel's next hops ended"),
            () = watchdog::watch(self) => anyhow::bail!("the watchdog ended"),
            () = watchdog::keep_up(self) => anyhow::bail!("the watchdog ended"),
            () = settle::settle(self) => anyhow::bail!("the settling of rings ended"),
            () = events::collect(self) => anyhow::bail!("the events of sessions ended"),
            () = self.failed.notified() => anyhow::bail!(
                "a worker stopped; its reason stands above. Restart the engine when it is mended"
            ),
        }
    }

    /// Takes the XDP programs off, so that the kernel gets everything, and stops the workers. One
    /// that does not stop in time ends with the process.
    pub async fn shut_down(&self) {
        self.steering
            .close_all(self.workers.iter().map(WorkerLink::handle));
        self.steering.detach();
        self.stop_workers().await;
    }

    async fn stop_workers(&self) {
        // Left behind it would look as after a crash.
        let _ = std::fs::remove_file(self.socket());
        let vitals = || self.workers.iter().map(|w| &w.handle().vitals);
        vitals().for_each(|v| v.stop.store(true, Ordering::Relaxed));
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline && !vitals().all(|v| v.stopped.load(Ordering::Relaxed)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends for a successor, which has everything: leaves the XDP programs and their maps as they
    /// are, and stops the workers.
    pub async fn leave(&self) {
        self.steering.leave();
        self.stop_workers().await;
    }

    /// Where the API is served.
    fn socket(&self) -> PathBuf {
        self.topology.engine().socket.clone()
    }

    /// What references to services and backends stand for.
    async fn names(&self) -> Names {
        let state = self.state.lock().await;
        Names {
            tables: Arc::clone(&state.tables),
            former: Arc::clone(&state.former),
        }
    }

    fn addresses(&self) -> EngineAddresses {
        let addresses = &self.topology.engine().addresses;
        EngineAddresses {
            v4: addresses.ipv4(),
            v6: addresses.ipv6(),
        }
    }

    /// Puts a snapshot in force: returns when every live worker forwards by it, with their
    /// number.
    ///
    /// Must run to its end once begun ([`Agent::apply_whole`]).
    async fn apply(self: &Arc<Self>, snapshot: Snapshot) -> Result<(u64, usize), ApplyError> {
        self.apply_with(snapshot, &[]).await
    }

    /// The same with flows of an engine before, which the workers know before they get packets.
    async fn apply_with(
        self: &Arc<Self>,
        snapshot: Snapshot,
        flows: &[succession::Inherited],
    ) -> Result<(u64, usize), ApplyError> {
        let mut state = self.state.lock().await;
        if self.succession.load(Ordering::Relaxed) {
            return Err(ApplyError::Ended);
        }
        let (offered, current) = (snapshot.epoch(), state.snapshot.epoch());
        if offered <= current && snapshot != state.snapshot {
            return Err(ApplyError::Stale { offered, current });
        }
        // Tried before anything changes: a snapshot that this engine cannot take leaves no trace.
        let tried = self.compile(&state.tables, &snapshot).await?;
        self.equip(&tried).await?;
        self.follow(&[&state.snapshot, &snapshot]).await;
        let tables = Arc::new(self.compile(&state.tables, &snapshot).await?);
        // A VIP that goes is no longer steered before the workers forget it, one that comes is
        // steered after they know it: no packet meets a worker that does not expect it.
        self.steering.narrow(&tables)?;
        let adopted = self.adopt(&tables).await;
        if !flows.is_empty() {
            self.restore(&tables, flows).await;
        }
        state.former = Arc::new(state.former.after(&state.tables, &tables));
        state.snapshot = snapshot;
        state.tables = tables;
        if adopted < self.workers.len() {
            tracing::warn!(
                adopted,
                "not every worker took the snapshot; it is offered again"
            );
        }
        self.next_hops.follow(backends(&[&state.snapshot]));
        warn_of_own_addresses(&state.snapshot);
        self.carry(&state.tables).await;
        self.steering.widen(&state.tables)?;
        let running = self
            .workers
            .iter()
            .filter(|w| w.state() == WorkerState::Running);
        self.steering.open_all(running.map(WorkerLink::handle))?;
        // Flows that an engine before had pinned are the workers' now.
        let unpinned = self.steering.pin(&BTreeMap::new());
        if let Err(error) = unpinned.and_then(|()| self.steering.retire()) {
            tracing::warn!(%error, "the XDP program keeps what it does not need any more");
        }
        let services = state.snapshot.services().len();
        tracing::info!(epoch = offered, services, "snapshot in force");
        Ok((offered, adopted))
    }

    /// [`Agent::apply`] in a task of its own: a client that goes away in the middle must not
    /// leave workers and agent with different tables.
    async fn apply_whole(self: &Arc<Self>, snapshot: Snapshot) -> Result<(u64, usize), ApplyError> {
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move { agent.apply(snapshot).await });
        task.await.unwrap_or(Err(ApplyError::Ended))
    }

    /// Compiles a snapshot on a thread beside the agent's, which has a heartbeat to give.
    async fn compile(
        self: &Arc<Self>,
        previous: &Arc<Tables>,
        snapshot: &Snapshot,
    ) -> Result<Tables, ApplyError> {
        let (agent, previous) = (Arc::clone(self), Arc::clone(previous));
        let snapshot = snapshot.clone();
        let ways = self.next_hops.watch().borrow().clone();
        let task = tokio::task::spawn_blocking(move || {
            Tables::compile(&previous, &snapshot, agent.addresses(), |address| {
                agent.way(ways.get(&address))
            })
        });
        let compiled = task.await.map_err(|_| ApplyError::Ended)?;
        compiled.map_err(ApplyError::Compile)
    }

    /// Tells the kernel's follower which addresses matter and waits a little for the ways there.
    async fn follow(&self, snapshots: &[&Snapshot]) {
        let wanted = backends(snapshots);
        self.next_hops.follow(wanted.clone());
        let mut table = self.next_hops.watch();
        let known = table.wait_for(|table| {
            let known = |r: &Resolution| !matches!(r, Resolution::NoNeighbour { .. });
            wanted
                .iter()
                .all(|address| table.get(address).is_some_and(known))
        });
        // Without an answer in time packets are dropped as `no_neighbour` until there is one.
        let _ = tokio::time::timeout(RESOLVE, known).await;
    }

    fn way(&self, resolution: Option<&Resolution>) -> NextHop {
        match resolution {
            Some(Resolution::Reachable(hop)) => {
                let interfaces = self.topology.interfaces();
                match interfaces
                    .iter()
                    .position(|i| i.name.as_str() == hop.device)
                {
                    Some(port) => NextHop::Via(Route {
                        // No more interfaces than a worker may have queues, which a byte counts.
                        port: PortId(port as u8),
                        link: LinkHeader {
                            destination: hop.destination,
                            source: hop.source,
                            vlan: hop.vlan,
                        },
                        mtu: hop.mtu,
                    }),
                    None => NextHop::NoPort,
                }
            }
            Some(Resolution::NoNeighbour { .. }) => NextHop::NoNeighbour,
            Some(Resolution::Unsupported { .. }) => NextHop::NoPort,
            Some(Resolution::NoRoute(_) | Resolution::Down { .. }) | None => NextHop::NoRoute,
        }
    }

    /// Gives the XDP programs what they need to go on without the engine, on a thread beside the
    /// agent's. A failure leaves them with what they had, and is no reason to refuse a snapshot.
    async fn carry(self: &Arc<Self>, tables: &Arc<Tables>) {
        let (agent, tables) = (Arc::clone(self), Arc::clone(tables));
        let task = tokio::task::spawn_blocking(move || agent.steering.carry(&tables));
        if let Ok(Err(error)) = task.await {
            tracing::error!(%error, "the XDP program cannot carry these services by itself");
        }
    }

    /// Hands tables to every worker; returns how many took them in time.
    async fn adopt(&self, tables: &Arc<Tables>) -> usize {
        let taken = join_all(self.workers.iter().map(|worker| worker.adopt(tables))).await;
        taken.into_iter().filter(|&taken| taken).count()
    }

    /// Follows the kernel: every change of a next hop becomes new tables.
    async fn follow_next_hops(&self) {
        let mut changes = self.next_hops.watch();
        while changes.changed().await.is_ok() {
            // Locked first: the table read before a snapshot that is being applied would put old
            // ways back in force behind it.
            let mut state = self.state.lock().await;
            let ways = changes.borrow_and_update().clone();
            let tables = state.tables.rerouted(|address| {
                // One that is not looked up (yet, or any more) keeps the way it has.
                ways.get(&address)
                    .map(|resolution| self.way(Some(resolution)))
            });
            let tables = Arc::new(tables);
            self.adopt(&tables).await;
            let told = self.steering.reroute(&tables);
            if let Err(error) = told.and_then(|()| self.steering.widen(&tables)) {
                tracing::error!(%error, "the XDP program was not told of a changed next hop");
            }
            state.tables = tables;
        }
    }
}

fn backends(snapshots: &[&Snapshot]) -> BTreeSet<IpAddr> {
    let services = snapshots.iter().flat_map(|s| s.services());
    services
        .flat_map(|s| &s.backends)
        .map(|b| b.address)
        .collect()
}

/// The addresses of this host, but for those of its loopback interface.
fn own_addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return BTreeSet::new();
    };
    interfaces
        .filter(|i| {
            !i.flags
                .contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|i| i.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// A VIP on an address of this host takes what its kernel served there before, SSH included where
/// the VIP stands for every port. That may be meant; it must not go unsaid.
fn warn_of_own_addresses(snapshot: &Snapshot) {
    let own = own_addresses();
    for vip in snapshot.services().iter().flat_map(|s| &s.vips) {
        if own.contains(&vip.address()) {
            tracing::warn!(
                %vip,
                "a VIP is an address of this host: what its kernel serves there is out of reach now"
            );
        }
    }
}
