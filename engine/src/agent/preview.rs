//! What a snapshot would change: shares of the rings, and live flows that would move.

use super::{Agent, ApplyError};
use lockstep_api as api;
use lockstep_core::Tables;
use lockstep_core::flows::Entry;
use lockstep_core::tables::{Ring, ring_share_moved};
use lockstep_plan::Snapshot;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Live flows of a service, and those whose backend would change.
#[derive(Default, Clone, Copy)]
struct Flows {
    all: u64,
    moved: u64,
}

impl Agent {
    /// Compares what is in force with a snapshot; changes nothing.
    pub(super) async fn preview(
        self: &Arc<Self>,
        snapshot: &Snapshot,
    ) -> Result<api::PreviewReply, ApplyError> {
        let current = Arc::clone(&self.state.lock().await.tables);
        let proposed = self.compile(&current, snapshot).await?;
        let flows = self.count_flows(&current, &proposed).await;
        let rings = |tables: &Tables| -> BTreeMap<String, Ring> {
            tables
                .rings()
                .iter()
                .map(|r| (r.name.to_string(), r.clone()))
                .collect()
        };
        let (before, after) = (rings(&current), rings(&proposed));
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let services = names
            .into_iter()
            .map(|name| {
                let flows = flows.get(name).copied().unwrap_or_default();
                compare(name, before.get(name), after.get(name), flows)
            })
            .collect();
        Ok(api::PreviewReply { services })
    }

    async fn count_flows(&self, current: &Tables, proposed: &Tables) -> BTreeMap<String, Flows> {
        let mut counts = BTreeMap::new();
        for worker in 0..self.workers.len() {
            let mut walk = self.walk(worker);
            while let Some(page) = walk.next().await {
                page.v4
                    .iter()
                    .for_each(|e| count(e, current, proposed, &mut counts));
                page.v6
                    .iter()
                    .for_each(|e| count(e, current, proposed, &mut counts));
            }
        }
        counts
    }
}

/// A flow moves when its backend or its VIP would be gone; the flow table keeps all others.
fn count<K>(
    entry: &Entry<K>,
    current: &Tables,
    proposed: &Tables,
    counts: &mut BTreeMap<String, Flows>,
) {
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
