//! One engine after another without a gap: the running one lets go of its queues, tells what it
//! remembers, and ends; the XDP program carries packets meanwhile, by the maps that both share.

use super::{Agent, convert};
use crate::mailbox::{Command, PAGE_FLOWS, Reply, RestorePage};
use anyhow::Context;
use futures::future::join_all;
use lockstep_api as api;
use lockstep_api::engine_client::EngineClient;
use lockstep_bpf::{CarriedFlow, Tunnel};
use lockstep_core::dataplane::Restored;
use lockstep_core::flows::{Entry, Key};
use lockstep_core::schedule::Selected;
use lockstep_core::{FlowState, Tables};
use lockstep_plan::{BackendId, Protocol, Snapshot};
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Endpoint;

/// How long an engine that let go waits for its successor to say that it has everything. After
/// that it takes its packets back: the other one must have failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the running engine may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What an engine takes over from the one before it.
#[derive(Debug)]
pub struct Heritage {
    /// What was in force.
    pub snapshot: Snapshot,
    /// The flows in tunnels.
    pub flows: Vec<Inherited>,
}

/// A flow of the engine before.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    key: FlowKey,
    backend: IpAddr,
    state: FlowState,
    idle: u32,
    worker: u32,
}

/// Asks the engine at `socket` for what it has, and to end.
pub async fn inherit(socket: &Path, last: impl FnOnce()) -> anyhow::Result<Heritage> {
    let told = "the running engine did not hand over";
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))?
        .timeout(ANSWER)
        .connect()
        .await
        .context(told)?;
    let mut engine = EngineClient::new(channel).max_decoding_message_size(super::server::MESSAGE);
    // From here on nothing changes there any more.
    let let_go = api::HandOverRequest { leave: false };
    engine.hand_over(let_go).await.context(told)?;
    let snapshot = engine.current(api::CurrentRequest {}).await.context(told)?;
    let snapshot = convert::snapshot_from_proto(&snapshot.into_inner()).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the running engine's snapshot: {}", errors.join("; "))
    })?;
    let stream = engine.flows(api::FlowsRequest::default()).await;
    let mut stream = stream.context(told)?.into_inner();
    let mut flows = Vec::new();
    while let Some(flow) = stream.message().await.context(told)? {
        flows.extend(inherited(&flow));
    }
    last();
    // It ends with this; whether its answer still comes through says nothing.
    let _ = engine.hand_over(api::HandOverRequest { leave: true }).await;
    Ok(Heritage { snapshot, flows })
}

/// `None` for what is no flow of this version.
fn inherited(flow: &api::Flow) -> Option<Inherited> {
    let protocol = match flow.protocol() {
        api::Protocol::Tcp => Protocol::Tcp,
        api::Protocol::Udp => Protocol::Udp,
        api::Protocol::Unspecified => return None,
    };
    let protocol = protocol.number();
    let client_port = u16::try_from(flow.client_port).ok()?;
    let vip_port = u16::try_from(flow.vip_port).ok()?;
    let key = match (flow.client.parse().ok()?, flow.vip.parse().ok()?) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => {
            FlowKey4::new(client, client_port, vip, vip_port, protocol).into()
        }
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            FlowKey6::new(client, client_port, vip, vip_port, protocol).into()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Some(Inherited {
        key,
        backend: flow.backend.parse().ok()?,
        state: FlowState::from_name(&flow.state)?,
        idle: flow.idle_seconds,
        worker: flow.worker,
    })
}

impl Agent {
    /// Puts in force what the engine before had, its flows first of all.
    pub async fn succeed(self: &Arc<Self>, heritage: Heritage) -> anyhow::Result<()> {
        let Heritage { snapshot, flows } = heritage;
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move { agent.apply_with(snapshot, &flows).await });
        let (epoch, _) = task.await??;
        tracing::info!(epoch, "taken over from the engine before");
        Ok(())
    }

    /// Gives the workers flows of the engine before: each to the worker that had it.
    pub(super) async fn restore(&self, tables: &Tables, flows: &[Inherited]) {
        let mut shares: Vec<Vec<Restored>> = self.workers.iter().map(|_| Vec::new()).collect();
        let backends = backends(tables);
        for flow in flows {
            let vip = (flow.key.destination_address(), flow.key.destination_port());
            let ring = tables
                .vip(vip.0, vip.1, flow.key.protocol())
                .and_then(|vip| tables.ring(vip));
            let name = ring.map(|ring| ring.name.as_str());
            let backend = name.and_then(|name| backends.get(&(name, BackendId(flow.backend))));
            let share = shares.get_mut(flow.worker as usize);
            if let (Some(&backend), Some(share)) = (backend, share) {
                share.push(Restored {
                    key: flow.key,
                    backend,
                    state: flow.state,
                    idle: flow.idle,
                });
            }
        }
        let given = self
            .workers
            .iter()
            .zip(&shares)
            .map(|(worker, share)| async {
                let mut restored = 0;
                for flows in share.chunks(PAGE_FLOWS) {
                    let page = Box::new(RestorePage {
                        flows: flows.to_vec(),
                        restored: 0,
                    });
                    match worker.ask(Command::Restore(page)).await {
                        Some(Reply::Restored(page)) => restored += page.restored,
                        Some(_) | None => break,
                    }
                }
                restored
            });
        let restored: usize = join_all(given).await.into_iter().sum();
        if restored < flows.len() {
            let others = flows.len() - restored;
            tracing::warn!(
                others,
                "flows were not taken over: rewritten ones, or those of workers that are not there"
            );
        }
    }

    /// Lets go of the queues for a successor; after [`PATIENCE`] without its word takes them back.
    pub(super) async fn let_go(self: &Arc<Self>) -> Result<(), Status> {
        // Locked: nothing is applied meanwhile, and not afterwards either.
        let state = self.state.lock().await;
        if self.succession.swap(true, Ordering::Relaxed) {
            return Err(Status::failed_precondition(
                "another engine is taking over already",
            ));
        }
        let pins = self.pins(&state.tables).await;
        let agent = Arc::clone(self);
        let pinned = tokio::task::spawn_blocking(move || agent.steering.pin(&pins));
        if let Ok(Err(error)) = pinned.await {
            tracing::warn!(%error, "flows of draining backends may break while nobody is here");
        }
        let workers = self.workers.iter();
        self.steering
            .suspend(workers.map(super::WorkerLink::handle));
        drop(state);
        tracing::info!("the queues are let go for a new engine");
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            agent.take_back();
        });
        Ok(())
    }

    fn take_back(&self) {
        let running = |w: &&super::WorkerLink| w.state() == super::WorkerState::Running;
        let workers = self.workers.iter().filter(running);
        let opened = self
            .steering
            .open_all(workers.map(super::WorkerLink::handle));
        self.succession.store(false, Ordering::Relaxed);
        match opened.and_then(|()| self.steering.pin(&BTreeMap::new())) {
            Ok(()) => tracing::error!("the new engine did not come; this one goes on"),
            Err(error) => tracing::error!(%error, "the queues were not taken back"),
        }
    }

    /// The flows that the XDP program would carry to another backend than they have.
    async fn pins(&self, tables: &Arc<Tables>) -> BTreeMap<CarriedFlow, Tunnel> {
        let mut pins = BTreeMap::new();
        for worker in 0..self.workers.len() {
            let mut walk = self.walk(worker);
            while let Ok(Some(page)) = walk.next().await {
                let v4 = page.v4.iter();
                pins.extend(v4.filter_map(|e| self.pin(tables, e, e.key.into())));
                let v6 = page.v6.iter();
                pins.extend(v6.filter_map(|e| self.pin(tables, e, e.key.into())));
            }
        }
        pins
    }

    fn pin<K: Key>(
        &self,
        tables: &Tables,
        entry: &Entry<K>,
        key: FlowKey,
    ) -> Option<(CarriedFlow, Tunnel)> {
        let ring = tables.ring(entry.vip)?;
        let hash = key.selection_hash(ring.scheduler);
        if ring.select(hash) == Some(entry.backend) {
            return None;
        }
        let flow = CarriedFlow {
            source: key.source_address(),
            destination: key.destination_address(),
            source_port: key.source_port(),
            destination_port: key.destination_port(),
            protocol: key.protocol(),
        };
        Some((flow, self.steering.tunnel(tables, entry.backend)?))
    }
}

/// The backends of each service, by their addresses.
fn backends(tables: &Tables) -> BTreeMap<(&str, BackendId), lockstep_core::tables::BackendRef> {
    let rings = tables.rings().iter();
    rings
        .flat_map(|ring| {
            let name = ring.name.as_str();
            let members = ring.members.iter();
            members.map(move |m| ((name, m.backend.id()), m.backend_ref))
        })
        .collect()
}
