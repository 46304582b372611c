//! Signs beside the checks: what the engine's own counters and events say against backends.

use lockstep_api::engine_client::EngineClient;
use lockstep_api::{BackendStatus, EngineStatus, EventsRequest, SessionEvent, StatusRequest};
use lockstep_ctl_core::checks::Sign;
use lockstep_ctl_core::drains::Target;
use lockstep_plan::{BackendId, ServiceName};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

/// From one look at the engine's counters to the next.
const LOOK: Duration = Duration::from_secs(1);

/// What speaks against somebody. A replica is known by the name that its service gives it.
#[derive(Debug)]
pub enum Found {
    /// A backend.
    Of(Target, Sign),
    /// A replica, by service and name.
    OfReplica(ServiceName, String),
}

/// Looks at the engine's counters once a second, and hears its events, while `watching` says that
/// anybody is checked. Ends with whoever reads the signs.
pub async fn follow(
    engine: watch::Receiver<Option<EngineClient<Channel>>>,
    mut watching: watch::Receiver<bool>,
    signs: mpsc::Sender<Found>,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Resets::new();
    let mut events: Option<Streaming<SessionEvent>> = None;
    let started = now();
    loop {
        if watching.wait_for(|watching| *watching).await.is_err() {
            return;
        }
        tokio::select! {
            _ = looks.tick() => {
                let Some(mut engine) = engine.borrow().clone() else { continue };
                let status = timeout(LOOK, engine.status(StatusRequest {})).await;
                let Ok(Ok(status)) = status else { continue };
                for (target, sign) in signs_of(status.get_ref(), &mut before) {
                    if signs.send(Found::Of(target, sign)).await.is_err() {
                        return;
                    }
                }
                if events.is_none() {
                    let stream = timeout(LOOK, engine.events(EventsRequest { follow: true })).await;
                    events = stream.ok().and_then(Result::ok).map(tonic::Response::into_inner);
                }
            }
            event = next(&mut events) => match event {
                Some(event) if event.kind == "evicted" && event.time >= started => {
                    let Some(service) = ServiceName::new(&event.service) else { continue };
                    let found = Found::OfReplica(service, event.replica);
                    if signs.send(found).await.is_err() {
                        return;
                    }
                }
                Some(_) => {}
                None => events = None,
            },
            closed = signs.closed() => return closed,
        }
    }
}

/// The next event; `None` where the engine tells no more.
async fn next(events: &mut Option<Streaming<SessionEvent>>) -> Option<SessionEvent> {
    match events {
        Some(stream) => stream.message().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Resets that were seen of each backend.
type Resets = BTreeMap<Target, u64>;

/// What a status says against backends, as compared with the one before.
fn signs_of(status: &EngineStatus, before: &mut Resets) -> Vec<(Target, Sign)> {
    let mut found = Vec::new();
    let mut seen = Resets::new();
    for service in &status.services {
        let Some(name) = ServiceName::new(&service.name) else {
            continue;
        };
        for backend in &service.backends {
            let Ok(address) = backend.address.parse() else {
                continue;
            };
            let target = Target {
                service: name.clone(),
                backend: BackendId(address),
            };
            if let Some(sign) = sign_of(backend, before.get(&target).copied()) {
                found.push((target.clone(), sign));
            }
            seen.insert(target, backend.resets);
        }
    }
    *before = seen;
    found
}

/// Resets that are new speak against a backend, and connections that wait for an answer. One that
/// is seen for the first time has resets from before.
fn sign_of(backend: &BackendStatus, resets_before: Option<u64>) -> Option<Sign> {
    if resets_before.is_some_and(|before| backend.resets > before) {
        return Some(Sign::Resets);
    }
    (backend.unanswered_flows > 0).then_some(Sign::Silence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::ServiceStatus;

    fn status(resets: u64, unanswered_flows: u64) -> EngineStatus {
        let backend = BackendStatus {
            address: "10.0.0.1".to_owned(),
            resets,
            unanswered_flows,
            ..BackendStatus::default()
        };
        EngineStatus {
            services: vec![ServiceStatus {
                name: "web".to_owned(),
                backends: vec![backend],
                ..ServiceStatus::default()
            }],
            ..EngineStatus::default()
        }
    }

    #[test]
    fn new_resets_and_connections_without_an_answer_are_signs() {
        let mut before = Resets::new();
        let mut signs = |resets, unanswered| {
            let found = signs_of(&status(resets, unanswered), &mut before);
            found.into_iter().map(|(_, sign)| sign).collect::<Vec<_>>()
        };
        assert_eq!(signs(7, 0), [], "from before the daemon");
        assert_eq!(signs(7, 0), []);
        assert_eq!(signs(8, 0), [Sign::Resets]);
        assert_eq!(signs(8, 3), [Sign::Silence]);
        assert_eq!(signs(8, 3), [Sign::Silence], "as long as it lasts");
        // An engine that was started again counts anew.
        assert_eq!(signs(1, 0), []);
    }
}
