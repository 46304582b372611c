//! What a snapshot would change: shares of the rings, and live flows that would move.

use super::Agent;
use super::flows::Silent;
use futures::future::try_join_all;
use lockstep_api as api;
use lockstep_core::Tables;
use lockstep_core::flows::Entry;
use lockstep_core::tables::{Ring, ring_share_moved};
use lockstep_plan::Snapshot;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tonic::Status;

/// Live flows of a service, and those whose backend would change.
#[derive(Default, Clone, Copy)]
struct Flows {
    all: u64,
    moved: u64,
}

/// By service.
type Counts = BTreeMap<String, Flows>;

impl Agent {
    /// Compares what is in force with a snapshot; changes nothing.
    ///
    /// Tables are made and compared on another thread: this one also gives the heartbeat without
    /// which the XDP programs pass everything to the kernel.
    pub(super) async fn preview(
        self: &Arc<Self>,
        snapshot: Snapshot,
    ) -> Result<api::PreviewReply, Status> {
        let current = Arc::clone(&self.state.lock().await.tables);
        let proposed = Arc::new(self.compile(&current, &snapshot).await?);
        let flows = self.count_flows(&current, &proposed).await?;
        elsewhere(move || compare_all(&current, &proposed, &flows)).await
    }

    /// Counts the flows of all workers at once.
    async fn count_flows(&self, current: &Tables, proposed: &Tables) -> Result<Counts, Silent> {
        let walks = (0..self.workers.len()).map(|worker| async move {
            let mut counts = Counts::new();
            let mut walk = self.walk(worker);
            while let Some(page) = walk.next().await? {
                page.v4
                    .iter()
                    .for_each(|e| count(e, current, proposed, &mut counts));
                page.v6
                    .iter()
                    .for_each(|e| count(e, current, proposed, &mut counts));
            }
            Ok(counts)
        });
        let mut all = Counts::new();
        for (name, flows) in try_join_all(walks).await?.into_iter().flatten() {
            let sum = all.entry(name).or_default();
            sum.all += flows.all;
            sum.moved += flows.moved;
        }
        Ok(all)
    }
}

/// Runs what takes long on a thread of its own.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("the preview was not made: {error}")))
}

fn compare_all(current: &Tables, proposed: &Tables, flows: &Counts) -> api::PreviewReply {
    let (before, after) = (rings(current), rings(proposed));
    let mut names: Vec<&str> = before.keys().chain(after.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let services = names
        .into_iter()
        .map(|name| {
            let flows = flows.get(name).copied().unwrap_or_default();
            compare(
                name,
                before.get(name).copied(),
                after.get(name).copied(),
                flows,
            )
        })
        .collect();
    api::PreviewReply { services }
}

fn rings(tables: &Tables) -> BTreeMap<&str, &Ring> {
    tables
        .rings()
        .iter()
        .map(|r| (r.name.as_str(), r))
        .collect()
}

/// A flow moves when its backend or its VIP would be gone; the flow table keeps all others.
fn count<K>(entry: &Entry<K>, current: &Tables, proposed: &Tables, counts: &mut Counts) {
    if let (Some(name), Some(_)) = (current.service_name(entry.vip), current.hop(entry.backend)) {
        let stays = proposed.hop(entry.backend).is_some() && proposed.vip_slot(entry.vip).is_some();
        let flows = counts.entry(name).or_default();
        flows.all += 1;
        flows.moved += u64::from(!stays);
    }
}

fn compare(
    name: &str,
    before: Option<&Ring>,
    after: Option<&Ring>,
    flows: Flows,
) -> api::ServicePreview {
    let mut backends: BTreeMap<IpAddr, api::BackendPreview> = BTreeMap::new();
    for (ring, is_after) in [(before, false), (after, true)] {
        for (ring, member) in ring
            .into_iter()
            .flat_map(|r| r.members.iter().map(move |m| (r, m)))
        {
            let address = member.backend.address;
            let row = backends.entry(address).or_default();
            row.name.clone_from(&member.backend.name);
            row.address = address.to_string();
            let share = if is_after {
                &mut row.share_after
            } else {
                &mut row.share_before
            };
            *share = ring.share(member);
        }
    }
    api::ServicePreview {
        name: name.to_owned(),
        in_current: before.is_some(),
        in_proposed: after.is_some(),
        ring_share_moved: ring_share_moved(before, after),
        flows: flows.all,
        flows_moved: flows.moved,
        backends: backends.into_values().collect(),
    }
}
