//! The agent: everything of the engine that may block.
//!
//! It holds the snapshot in force, compiles it into tables, hands those to the workers, keeps the
//! XDP programs' maps in step, follows the kernel's next hops, and answers the gRPC interface.

mod api;
pub mod convert;
mod explain;
mod flows;
mod link;
mod metrics;
pub mod nexthop;
mod preview;
mod server;
mod status;
mod steering;
mod watchdog;

pub use link::{WorkerLink, WorkerState};
pub use server::is_served;

use crate::workers::WorkerHandle;
use futures::future::join_all;
use lockstep_bpf::Steer;
use lockstep_core::tables::CompileError;
use lockstep_core::{EngineAddresses, NextHop, PortId, Route, Tables};
use lockstep_plan::Snapshot;
use lockstep_topology::Topology;
use lockstep_wire::LinkHeader;
use nexthop::{NextHops, Resolution};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use steering::Steering;
use tokio::sync::{Mutex, Notify};

/// How long a new snapshot waits for the kernel to find the ways to new backends, so that their
/// first packets are not dropped. It is put in force then in any case.
const RESOLVE: Duration = Duration::from_millis(300);

/// The engine, as everything but the workers sees it.
pub struct Agent {
    topology: Topology,
    started: Instant,
    workers: Vec<WorkerLink>,
    steering: Steering,
    next_hops: NextHops,
    state: Mutex<State>,
    failed: Notify,
}

/// What is in force. Locked by whoever changes it, one at a time.
struct State {
    snapshot: Snapshot,
    tables: Arc<Tables>,
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
    /// The XDP program's map was not updated.
    #[error(transparent)]
    Steer(#[from] lockstep_bpf::BpfError),
}

impl Agent {
    /// An agent over running workers. Puts their sockets into the XDP programs' maps.
    pub async fn new(
        topology: Topology,
        workers: Vec<WorkerHandle>,
        steers: Vec<Steer>,
    ) -> anyhow::Result<Arc<Self>> {
        let next_hops = NextHops::start().await?;
        let workers: Vec<WorkerLink> = workers.into_iter().map(WorkerLink::new).collect();
        let steering = Steering::new(steers, topology.engine().addresses.all().to_vec());
        steering.beat();
        for worker in &workers {
            steering.open(worker.handle())?;
        }
        // Engine addresses are steered from the start, VIPs come with snapshots.
        steering.widen(std::iter::empty())?;
        Ok(Arc::new(Agent {
            topology,
            started: Instant::now(),
            workers,
            steering,
            next_hops,
            state: Mutex::new(State {
                snapshot: Snapshot::empty(),
                tables: Arc::new(Tables::default()),
            }),
            failed: Notify::new(),
        }))
    }

    /// Serves the API and keeps everything in step. Returns when the engine has to stop: a worker
    /// ended, or the API cannot be served.
    pub async fn run(self: &Arc<Self>) -> anyhow::Result<()> {
        tokio::select! {
            result = server::serve(Arc::clone(self)) => result,
            () = self.follow_next_hops() => anyhow::bail!("the kernel's next hops ended"),
            () = watchdog::watch(self) => anyhow::bail!("the watchdog ended"),
            () = self.failed.notified() => anyhow::bail!(
                "a worker stopped; its reason stands above. Restart the engine when it is mended"
            ),
        }
    }

    /// Stops the workers and takes the XDP programs off. From then on the kernel gets everything.
    pub fn shut_down(&self) {
        self.steering
            .close_all(self.workers.iter().map(WorkerLink::handle));
        for worker in &self.workers {
            worker.handle().stop();
        }
        self.steering.detach();
    }

    /// Where the API is served.
    fn socket(&self) -> PathBuf {
        self.topology.engine().socket.clone()
    }

    fn addresses(&self) -> EngineAddresses {
        let addresses = &self.topology.engine().addresses;
        EngineAddresses {
            v4: addresses.ipv4(),
            v6: addresses.ipv6(),
        }
    }

    /// Puts a snapshot in force: returns when every live worker forwards by it.
    async fn apply(&self, snapshot: Snapshot) -> Result<(u64, usize), ApplyError> {
        let mut state = self.state.lock().await;
        let (offered, current) = (snapshot.epoch(), state.snapshot.epoch());
        if offered <= current && snapshot != state.snapshot {
            return Err(ApplyError::Stale { offered, current });
        }
        self.follow(&snapshot).await;
        let tables = Arc::new(self.compile(&state.tables, &snapshot)?);
        // A VIP that goes is no longer steered before the workers forget it, one that comes is
        // steered after they know it: no packet meets a worker that does not expect it.
        self.steering.narrow(tables.rooms())?;
        let adopted = self.adopt(&tables).await;
        self.steering.widen(tables.rooms())?;
        tracing::info!(
            epoch = offered,
            services = snapshot.services().len(),
            "snapshot in force"
        );
        *state = State { snapshot, tables };
        Ok((offered, adopted))
    }

    fn compile(&self, previous: &Tables, snapshot: &Snapshot) -> Result<Tables, CompileError> {
        let ways = self.next_hops.watch().borrow().clone();
        Tables::compile(previous, snapshot, self.addresses(), |address| {
            self.way(ways.get(&address))
        })
    }

    /// Tells the kernel's follower which addresses matter and waits a little for the ways there.
    async fn follow(&self, snapshot: &Snapshot) {
        let wanted: BTreeSet<IpAddr> = snapshot
            .services()
            .iter()
            .flat_map(|s| &s.backends)
            .map(|b| b.address)
            .collect();
        self.next_hops.follow(wanted.clone());
        let mut table = self.next_hops.watch();
        let known = table.wait_for(|table| {
            wanted.iter().all(|address| {
                table
                    .get(address)
                    .is_some_and(|r| !matches!(r, Resolution::NoNeighbour { .. }))
            })
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
                        // topology.toml allows fewer interfaces than a byte counts.
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
            let tables = Arc::new(
                state
                    .tables
                    .rerouted(|address| self.way(ways.get(&address))),
            );
            self.adopt(&tables).await;
            if let Err(error) = self.steering.widen(tables.rooms()) {
                tracing::error!(%error, "the XDP program was not told of a changed next hop");
            }
            state.tables = tables;
        }
    }
}
