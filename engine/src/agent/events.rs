//! What happens to sessions: gathered from the workers, kept for a while, told to who listens.

use super::Agent;
use super::former::Names;
use super::sessions::{names, replica_name};
use crate::workers::WorkerHandle;
use futures::{Stream, StreamExt};
use lockstep_api as api;
use lockstep_core::replicate::event::EventKind;
use lockstep_core::replicate::replicator::SessionEvent;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;

/// Events that are kept for who asks later.
const KEPT: usize = 1_000;
/// Events that a slow listener may be behind.
const BEHIND: usize = 4_096;
/// How often events are gathered. Workers cannot wake anybody: that would be a system call.
const GATHER: Duration = Duration::from_millis(5);

/// The last events, and who listens for the next ones.
pub struct Events {
    kept: Mutex<VecDeque<api::SessionEvent>>,
    listeners: broadcast::Sender<api::SessionEvent>,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            kept: Mutex::default(),
            listeners: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Events {
    /// The events that are kept, oldest first; then, to `follow`, those to come.
    pub fn read(&self, follow: bool) -> impl Stream<Item = api::SessionEvent> + use<> {
        // Both under one lock: no event is missing between them, and none is there twice.
        let kept = self.kept();
        let receiver = follow.then(|| self.listeners.subscribe());
        let past = futures::stream::iter(kept.iter().cloned().collect::<Vec<_>>());
        past.chain(futures::stream::unfold((receiver, 0), next))
    }

    fn publish(&self, event: api::SessionEvent) {
        let mut kept = self.kept();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Fails when nobody listens.
        let _ = self.listeners.send(event);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<api::SessionEvent>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Listening = (Option<broadcast::Receiver<api::SessionEvent>>, u64);

/// The next event, with the number of those that were lost before it.
async fn next((receiver, mut lost): Listening) -> Option<(api::SessionEvent, Listening)> {
    let mut receiver = receiver?;
    loop {
        match receiver.recv().await {
            Ok(mut event) => {
                event.lost += lost;
                return Some((event, (Some(receiver), 0)));
            }
            Err(RecvError::Lagged(count)) => lost += count,
            Err(RecvError::Closed) => return None,
        }
    }
}

/// Gathers the workers' events, for ever.
pub async fn collect(agent: &Agent) {
    let mut interval = tokio::time::interval(GATHER);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What each worker had lost when it was last looked at.
    let mut lost = vec![0; agent.workers.len()];
    loop {
        interval.tick().await;
        if agent.workers.iter().all(|w| w.handle().events.is_empty()) {
            continue;
        }
        let known = agent.names().await;
        for (worker, lost) in agent.workers.iter().zip(&mut lost) {
            let all_lost = worker.sessions().map_or(0, |c| c.events_lost.get());
            let mut before = all_lost - *lost;
            *lost = all_lost;
            // No more than there are: a worker may add while they are taken.
            for _ in 0..worker.handle().events.len() {
                let Some(event) = worker.handle().events.pop() else {
                    break;
                };
                let mut message = message(&event, &known, worker.handle());
                message.lost = std::mem::take(&mut before);
                agent.events.publish(message);
            }
        }
    }
}

fn message(told: &SessionEvent, known: &Names, worker: &WorkerHandle) -> api::SessionEvent {
    let ring = known.tables.ring(told.vip);
    let name = |backend| replica_name(known, told.vip, backend);
    let about = told.replica.map(name).unwrap_or_default();
    let mut message = api::SessionEvent {
        time: time(worker, Duration::from_micros(told.event.at.get())),
        session: told.event.session.to_string(),
        service: ring.map(|r| r.name.to_string()).unwrap_or_default(),
        client: told.client.ip().to_string(),
        client_port: told.client.port().into(),
        kind: names::kind(&told.event.kind).to_owned(),
        replica: about.clone(),
        ..api::SessionEvent::default()
    };
    match told.event.kind {
        EventKind::Switched { cause, .. } => {
            message.from = told.from.map(name).unwrap_or_default();
            message.to = about;
            message.cause = names::switch(cause).to_owned();
        }
        EventKind::Resumed { gap } => message.gap_microseconds = Some(gap),
        EventKind::Diverged { offset, .. } => message.offset = Some(offset),
        EventKind::Evicted { cause, .. } => message.cause = names::evict(cause).to_owned(),
        EventKind::Ended(cause) => message.cause = names::end(cause).to_owned(),
        EventKind::Opened { .. }
        | EventKind::Lagging { .. }
        | EventKind::Joined { .. }
        | EventKind::LogCut
        | EventKind::Orphaned => {}
    }
    message
}

/// A moment of a worker's clock, in seconds since 1970.
fn time(worker: &WorkerHandle, at: Duration) -> f64 {
    let began = SystemTime::now().checked_sub(worker.epoch.elapsed());
    let at = began.unwrap_or(UNIX_EPOCH) + at;
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::FutureExt;

    fn event(number: u64) -> api::SessionEvent {
        api::SessionEvent {
            session: format!("0-{number}"),
            ..api::SessionEvent::default()
        }
    }

    #[tokio::test]
    async fn the_last_events_are_kept_and_no_more() {
        let events = Events::default();
        (0..KEPT as u64 + 5).for_each(|n| events.publish(event(n)));
        let kept: Vec<_> = events.read(false).collect().await;
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0], event(5));
        assert_eq!(kept[KEPT - 1], event(KEPT as u64 + 4));
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_kept_and_then_what_comes_each_once() {
        let events = Events::default();
        events.publish(event(1));
        let mut follower = Box::pin(events.read(true));
        events.publish(event(2));
        assert_eq!(follower.next().await, Some(event(1)));
        assert_eq!(follower.next().await, Some(event(2)));
        assert_eq!(follower.next().now_or_never(), None);
        events.publish(event(3));
        assert_eq!(follower.next().await, Some(event(3)));
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let events = Events::default();
        let mut follower = Box::pin(events.read(true));
        (0..BEHIND as u64 + 7).for_each(|n| events.publish(event(n)));
        let first = follower.next().await.unwrap();
        assert_eq!((first.session.as_str(), first.lost), ("0-7", 7));
        assert_eq!(follower.next().await.unwrap().lost, 0);
    }
}
