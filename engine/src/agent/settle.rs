//! Rings settle: the ring before a change is kept for a while and then forgotten.

use super::Agent;
use lockstep_core::Tables;
use lockstep_plan::ServiceName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How long, from the first change on (ADR 0009): longer than it takes until a router knows of a
/// lost balancer and until both balancers have a change, shorter than most long connections live.
const WINDOW: Duration = Duration::from_secs(60);
/// How exact that is.
const LOOK: Duration = Duration::from_secs(1);

/// Since when the ring before is kept, by service.
pub type Changed = BTreeMap<ServiceName, Instant>;

/// Takes from the workers what their tables have kept for long enough, for ever.
pub async fn settle(agent: &Arc<Agent>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = interval.tick().await;
        let mut state = agent.state.lock().await;
        let state = &mut *state;
        follow(&mut state.changed, &state.tables, now);
        let due = |name: &ServiceName| state.changed.get(name).is_some_and(|&s| now - s >= WINDOW);
        if state.changed.keys().any(due) {
            let tables = Arc::new(state.tables.settled(due));
            agent.adopt(&tables).await;
            state.tables = tables;
            state.changed.retain(|_, since| now - *since < WINDOW);
        }
    }
}

/// Notes the services that have a ring before, and forgets those that have none.
fn follow(changed: &mut Changed, tables: &Tables, now: Instant) {
    let mut kept = Changed::new();
    for ring in tables.rings().iter().filter(|ring| ring.has_before()) {
        let since = changed.get(&ring.name).copied().unwrap_or(now);
        kept.insert(ring.name.clone(), since);
    }
    *changed = kept;
}
