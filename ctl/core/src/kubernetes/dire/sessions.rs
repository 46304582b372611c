//! Sessions of this balancer's engine, counted, and what of them it writes into the status.

use super::ages::Ages;
use super::{object, service_name};
use crate::kubernetes::{Settings, World, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::{DireBalancer, DireBalancerReplica, Switchover, most};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a balancer says that what it has written still holds.
const RENEWAL: SignedDuration = SignedDuration::from_secs(30);
/// What a balancer has not renewed for this long does not count.
const STALE: Duration = Duration::from_secs(100);
/// What it has not renewed for this long is taken away.
const GONE: Duration = Duration::from_secs(600);
/// From one write to the next, where only numbers of sessions have changed.
const NUMBERS: SignedDuration = SignedDuration::from_secs(5);
/// From one write to the next at least.
const PAUSE: SignedDuration = SignedDuration::from_millis(900);
/// A replica that is out for longer than the engine ever waits with trying it again is not tried.
const LONG_OUT: f64 = 60.0;

/// A session, as the engine reports it.
#[derive(Debug, Clone, Default)]
pub struct SessionView<'a> {
    /// Its service.
    pub service: &'a str,
    /// `opening`, `protected`, `degraded`, `unprotected`, `orphaned` or `closed`.
    pub state: &'a str,
    /// The first byte that is kept; 0 while replicas can join.
    pub kept_from: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaView<'a>>,
}

/// A replica of a session, as the engine reports it.
#[derive(Debug, Clone, Default)]
pub struct ReplicaView<'a> {
    /// The backend's name: the pod's.
    pub pod: &'a str,
    /// `joining`, `in-sync`, `lagging` or `evicted`.
    pub state: &'a str,
    /// Why it was evicted.
    pub cause: &'a str,
    /// Seconds in this state.
    pub since: f64,
    /// Whether the client gets its bytes.
    pub primary: bool,
}

/// Causes of an eviction that say nothing against the replica itself: it was taken out (the pod is
/// not ready, or ends), or the daemon's pings are not answered, which a filter can do as well.
const NO_FAULT: [&str; 2] = ["removed from the service", "down by its health check"];

/// Services whose last switchover is remembered.
const SWITCHED: usize = 4_096;

/// The sessions of an engine, counted by service. By default nothing is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    is_known: bool,
    services: BTreeMap<String, Tally>,
    switched: BTreeMap<String, Switchover>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    sessions: i64,
    degraded: i64,
    unprotected: i64,
    replicas: BTreeMap<String, Replica>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Replica {
    counts: DireBalancerReplica,
    /// Evicted, and tried again while the policy has replicas rejoin.
    out: i64,
    out_because: String,
}

impl Sessions {
    /// There are none.
    pub fn none() -> Self {
        Sessions {
            is_known: true,
            ..Sessions::default()
        }
    }

    /// Counts a session. One that has not begun, or is over, is none.
    pub fn add(&mut self, session: &SessionView<'_>) {
        self.is_known = true;
        if matches!(session.state, "opening" | "closed") {
            return;
        }
        let tally = match self.services.get_mut(session.service) {
            Some(tally) => tally,
            None => self.services.entry(session.service.to_owned()).or_default(),
        };
        tally.sessions += 1;
        match session.state {
            "degraded" => tally.degraded += 1,
            "unprotected" | "orphaned" => tally.unprotected += 1,
            _ => {}
        }
        let spare = session.state == "protected";
        for view in &session.replicas {
            let replica = tally.replicas.entry(view.pod.to_owned()).or_default();
            replica.add(view, spare, session.kept_from > 0);
        }
    }

    /// Notes that another replica became primary in a session of a service.
    pub fn switched(&mut self, service: &str, switchover: Switchover) {
        let known = self.switched.get(service);
        let newer = known.is_none_or(|known| known.time.0 <= switchover.time.0);
        if newer && (known.is_some() || self.switched.len() < SWITCHED) {
            self.switched.insert(service.to_owned(), switchover);
        }
    }

    /// Keeps what is known of switchovers, for the next count.
    pub fn begin_anew(&self) -> Sessions {
        Sessions {
            is_known: true,
            services: BTreeMap::new(),
            switched: self.switched.clone(),
        }
    }

    fn balancer(&self, service: &str, dire: &Dire, name: &str) -> Option<DireBalancer> {
        let tally = self.services.get(service)?;
        let replicas = tally.replicas.iter().map(|(pod, replica)| {
            let mut counts = replica.counts.clone();
            counts.pod.clone_from(pod);
            if dire.spec.rejoin {
                counts.joining += replica.out;
            } else if replica.out > 0 {
                counts.evicted += replica.out;
                counts.cause.get_or_insert(replica.out_because.clone());
            }
            counts
        });
        Some(DireBalancer {
            name: name.to_owned(),
            renew_time: MicroTime(Timestamp::UNIX_EPOCH),
            sessions: tally.sessions,
            degraded: tally.degraded,
            unprotected: tally.unprotected,
            last_switchover: self.switched.get(service).cloned(),
            replicas: replicas.take(most::REPLICAS).collect(),
        })
    }
}

impl Replica {
    fn add(&mut self, view: &ReplicaView<'_>, spare: bool, cut: bool) {
        self.counts.primary += i64::from(view.primary);
        match view.state {
            "in-sync" => {
                self.counts.in_sync += 1;
                self.counts.needed += i64::from(!spare);
            }
            "joining" => self.counts.joining += 1,
            "lagging" => self.counts.lagging += 1,
            _ if NO_FAULT.contains(&view.cause) => {}
            _ if cut || view.since > LONG_OUT => {
                self.counts.evicted += 1;
                self.counts
                    .cause
                    .get_or_insert_with(|| view.cause.to_owned());
            }
            _ => {
                self.out += 1;
                view.cause.clone_into(&mut self.out_because);
            }
        }
    }
}

/// What this balancer writes of its own sessions, as `balancer`. Changes that matter are written
/// within a second, numbers every five.
pub fn parts(
    world: &World,
    settings: &Settings,
    sessions: &Sessions,
    balancer: &str,
    now: Timestamp,
) -> Vec<Write> {
    if !sessions.is_known {
        return Vec::new();
    }
    let now = micros(now);
    let dires = super::ours(world, settings);
    let dires = dires.filter(|(_, dire)| dire.metadata.deletion_timestamp.is_none());
    let part = |(name, dire): (&Name, &std::sync::Arc<Dire>)| {
        let service = service_name(name)?;
        let wanted = sessions.balancer(service.as_str(), dire, balancer);
        let status = dire.status.as_ref();
        let all = status.map_or(&[][..], |status| &status.balancers);
        let there = all.iter().find(|there| there.name == balancer);
        let body = match (wanted, there) {
            (None, None) => return None,
            (None, Some(_)) => json!({}),
            // The API server would refuse one more.
            (Some(_), None) if all.len() >= most::BALANCERS => return None,
            (Some(wanted), there) => {
                if there.is_some_and(|there| !is_due(there, &wanted, now)) {
                    return None;
                }
                let part = DireBalancer {
                    renew_time: MicroTime(now),
                    ..wanted
                };
                json!({ "status": { "balancers": [part] } })
            }
        };
        Some(Write::Part {
            object: object(name),
            manager: manager(balancer),
            body,
        })
    };
    dires.filter_map(part).collect()
}

/// The field manager of a balancer. Of a long name the end is kept, by a rule of the API server
/// that managers have at most 128 characters.
fn manager(balancer: &str) -> String {
    let from = balancer.len().saturating_sub(100);
    let tail = balancer.get(from..).unwrap_or(balancer);
    format!("lockstepd-{tail}")
}

fn is_due(there: &DireBalancer, wanted: &DireBalancer, now: Timestamp) -> bool {
    let age = now.duration_since(there.renew_time.0);
    let same = DireBalancer {
        renew_time: there.renew_time.clone(),
        ..wanted.clone()
    };
    // The API server keeps replicas by their pods, in an order of its own.
    let mut there = there.clone();
    there.replicas.sort_by(|a, b| a.pod.cmp(&b.pod));
    // A clock that was set back is as good as a long time.
    if age.is_negative() || age >= RENEWAL {
        return true;
    }
    same != there && age >= PAUSE && (age >= NUMBERS || shape(&there) != shape(wanted))
}

/// What of a part matters at once: not how many, but whether.
fn shape(part: &DireBalancer) -> impl PartialEq + use<'_> {
    let replicas = part.replicas.iter().map(|r| {
        let counts = [r.in_sync, r.joining, r.lagging, r.evicted];
        (r.pod.as_str(), counts.map(|count| count > 0))
    });
    let primary = part.replicas.iter().max_by_key(|r| r.primary);
    (
        part.unprotected > 0,
        part.last_switchover.as_ref(),
        primary.map(|r| r.pod.as_str()),
        replicas.collect::<Vec<_>>(),
    )
}

/// The parts that count.
pub fn fresh<'a>(
    name: &'a Name,
    dire: &'a Dire,
    ages: &'a Ages,
) -> impl Iterator<Item = &'a DireBalancer> {
    let status = dire.status.as_ref();
    let all = status.map_or(&[][..], |status| &status.balancers);
    all.iter().filter(|part| ages.of(name, part) < STALE)
}

/// Takes away parts of balancers that are no more, as if these did it.
pub fn stale(name: &Name, dire: &Dire, ages: &Ages) -> Vec<Write> {
    let status = dire.status.as_ref();
    let all = status.map_or(&[][..], |status| &status.balancers);
    let gone = all.iter().filter(|part| ages.of(name, part) >= GONE);
    gone.map(|part| Write::Part {
        object: object(name),
        manager: manager(&part.name),
        body: json!({}),
    })
    .collect()
}

/// As the API server keeps it.
pub fn micros(time: Timestamp) -> Timestamp {
    time.round(Unit::Microsecond).unwrap_or(time)
}
