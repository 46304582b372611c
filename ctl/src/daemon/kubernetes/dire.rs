//! The sessions of this balancer's engine, counted by `Dire`, as its status needs them.
//!
//! The engine is asked for all sessions once a second, sooner when it tells of something that
//! changes who is in sync, and less often when there are so many that the answer takes long. Nobody
//! asks while the cluster has no Dire.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{EventsRequest, Session, SessionEvent, SessionsRequest};
use lockstep_ctl_core::kubernetes::dire::{ReplicaView, SessionView, Sessions};
use lockstep_kubernetes::resources::dire::Switchover;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// From the end of one count to the next, and so many times as long as it took at least.
const PERIOD: (Duration, u32) = (Duration::from_secs(1), 20);
/// The same after an event.
const URGENT: (Duration, u32) = (Duration::from_millis(100), 5);
/// How long one count may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Sessions that are counted at most.
const SESSIONS: u64 = 100_000;
/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

type Engine = EngineClient<Channel>;

/// Counts for as long as anybody wants to know, and there is an engine.
pub async fn run(
    mut engine: watch::Receiver<Option<Engine>>,
    mut wanted: watch::Receiver<bool>,
    tell: watch::Sender<Arc<Sessions>>,
) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        // Nothing of the channel is held while the engine is asked.
        let client = match engine.wait_for(Option::is_some).await {
            Ok(client) => client.clone(),
            Err(_) => return,
        };
        let Some(client) = client else {
            continue;
        };
        tokio::select! {
            () = count(client, &tell) => {}
            changed = engine.changed() => if changed.is_err() {
                return;
            },
            changed = wanted.wait_for(|wanted| !*wanted) => if changed.is_err() {
                return;
            },
        }
        // Sessions end with their engine.
        tell.send_replace(Arc::new(Sessions::none()));
    }
}

/// Counts until the engine does not answer any more.
async fn count(mut engine: Engine, tell: &watch::Sender<Arc<Sessions>>) {
    let mut known = Sessions::none();
    let request = EventsRequest { follow: true };
    let mut events = match engine.events(request).await {
        Ok(reply) => reply.into_inner(),
        Err(error) => return failed(&error).await,
    };
    let mut pace = Pace::new(Instant::now());
    loop {
        tokio::select! {
            event = events.message() => match event {
                Ok(Some(event)) => {
                    if let Some(switchover) = switchover(&event) {
                        known.switched(&event.service, switchover);
                    }
                    if changes_who_is_in_sync(&event) {
                        pace.hurry();
                    }
                }
                Ok(None) => return sleep(AGAIN).await,
                Err(error) => return failed(&error).await,
            },
            () = sleep_until(pace.next) => {
                let begun = Instant::now();
                let counted = timeout(ANSWER, once(&mut engine, known.begin_anew())).await;
                match counted {
                    Ok(Ok(counted)) => {
                        known = counted;
                        tell.send_replace(Arc::new(known.clone()));
                    }
                    Ok(Err(error)) => return failed(&error).await,
                    // What is known stays; a busy engine is left alone for a while.
                    Err(_) => tracing::debug!("the engine did not tell its sessions in {ANSWER:?}"),
                }
                pace.counted(begun, Instant::now());
            }
        }
    }
}

async fn failed(error: &Status) {
    tracing::debug!("cannot follow the engine's sessions: {error}");
    sleep(AGAIN).await;
}

/// All sessions at one moment.
async fn once(engine: &mut Engine, mut sessions: Sessions) -> Result<Sessions, Status> {
    let request = SessionsRequest {
        limit: SESSIONS,
        ..SessionsRequest::default()
    };
    let mut stream: Streaming<Session> = engine.sessions(request).await?.into_inner();
    while let Some(session) = stream.message().await? {
        sessions.add(&view(&session));
    }
    Ok(sessions)
}

fn view(session: &Session) -> SessionView<'_> {
    let replicas = session.replicas.iter().map(|replica| ReplicaView {
        pod: &replica.name,
        state: &replica.state,
        cause: &replica.cause,
        since: replica.since_seconds,
        primary: replica.primary,
    });
    SessionView {
        service: &session.service,
        state: &session.state,
        kept_from: session.kept_from,
        replicas: replicas.collect(),
    }
}

fn switchover(event: &SessionEvent) -> Option<Switchover> {
    let is = event.kind == "switched" && event.from != event.to && !event.to.is_empty();
    // Seconds, as a float: exact to the microsecond for some centuries.
    let time = Timestamp::from_microsecond((event.time * 1e6) as i64).ok()?;
    is.then(|| Switchover {
        time: MicroTime(time),
        from: event.from.clone(),
        to: event.to.clone(),
        cause: event.cause.clone(),
    })
}

fn changes_who_is_in_sync(event: &SessionEvent) -> bool {
    let kinds = [
        "switched", "evicted", "joined", "lagging", "orphaned", "log-cut",
    ];
    kinds.contains(&event.kind.as_str())
}

/// When sessions are counted: the longer it takes, the less often.
#[derive(Debug)]
struct Pace {
    next: Instant,
    /// Not before this, whatever happens.
    earliest: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Pace {
            next: now,
            earliest: now,
        }
    }

    fn counted(&mut self, begun: Instant, ended: Instant) {
        let took = ended.duration_since(begun);
        self.next = ended + PERIOD.0.max(took * PERIOD.1);
        self.earliest = ended + URGENT.0.max(took * URGENT.1);
    }

    fn hurry(&mut self) {
        self.next = self.next.min(self.earliest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::Replica;

    #[test]
    fn counts_come_once_a_second_and_sooner_after_an_event() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        // What it took, when the next count is due, and when after an event.
        for (took, due, urgent) in [(0, 1_000, 100), (40, 1_040, 240), (500, 10_500, 3_000)] {
            let mut pace = Pace::new(begun);
            pace.counted(begun, after(took));
            assert_eq!(pace.next, after(due), "{took} ms");
            pace.hurry();
            assert_eq!(pace.next, after(urgent), "{took} ms");
            pace.hurry();
            assert_eq!(pace.next, after(urgent), "{took} ms");
        }
    }

    #[test]
    fn a_session_is_seen_as_the_engine_reports_it() {
        let replica = |name: &str, state: &str, cause: &str| Replica {
            name: name.to_owned(),
            state: state.to_owned(),
            cause: cause.to_owned(),
            since_seconds: 2.5,
            primary: name == "a",
            ..Replica::default()
        };
        let session = Session {
            service: "default/game-dire".to_owned(),
            state: "protected".to_owned(),
            kept_from: 7,
            replicas: vec![
                replica("a", "in-sync", ""),
                replica("b", "evicted", "differs"),
            ],
            ..Session::default()
        };
        let seen = view(&session);
        assert_eq!(seen.service, "default/game-dire");
        assert_eq!((seen.state, seen.kept_from), ("protected", 7));
        let replicas = seen.replicas.iter();
        let replicas = replicas.map(|r| (r.pod, r.state, r.cause, r.since, r.primary));
        let wanted = [
            ("a", "in-sync", "", 2.5, true),
            ("b", "evicted", "differs", 2.5, false),
        ];
        assert_eq!(replicas.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_switchover_is_told_with_its_time_and_nothing_else_is_one() {
        let event = |kind: &str, to: &str| SessionEvent {
            time: 1_795_262_400.25,
            kind: kind.to_owned(),
            from: "a".to_owned(),
            to: to.to_owned(),
            cause: "its connection was reset".to_owned(),
            ..SessionEvent::default()
        };
        let told = switchover(&event("switched", "b")).expect("it is one");
        assert_eq!(told.time.0.to_string(), "2026-11-21T12:00:00.25Z");
        assert_eq!((&*told.from, &*told.to), ("a", "b"));
        for (kind, to) in [("evicted", "b"), ("switched", "a"), ("switched", "")] {
            assert_eq!(switchover(&event(kind, to)), None, "{kind} {to}");
        }
        assert!(changes_who_is_in_sync(&event("joined", "")));
        assert!(!changes_who_is_in_sync(&event("opened", "")));
    }
}
