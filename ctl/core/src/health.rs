//! The health of replicas: from answers to pings, and answers that are missing, to verdicts, and
//! to the moments at which an engine should hear of them.
//!
//! A backend is [`Verdict::Unknown`] until it has answered twice: one that never answers, because
//! something on the way drops pings, is not held to be down for it. From there on three answers
//! that are missing in a row make it [`Verdict::Down`], two that come make it [`Verdict::Up`]. No
//! clock in here: the caller passes the time and waits for [`Monitor::due`].

use crate::drains::Timestamp;
use lockstep_plan::health::Verdict;
use lockstep_plan::{Health, Service};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

/// Answers in a row that make a backend up.
pub const RISE: u8 = 2;
/// Missing answers in a row that make a backend down which was up.
pub const FALL: u8 = 3;
/// The share that a new round-trip time has in the smoothed one: 1 in so many (as RFC 6298's).
const SMOOTHING: u32 = 8;
/// A round-trip time has changed when it is more than so many times the published one, or the
/// other way round.
const FACTOR: u32 = 2;
/// Less than this is the scheduler's noise, whatever the factor.
const NOISE: Duration = Duration::from_micros(100);
/// Snapshots for the sake of health have this between them: backends that come up together, one
/// after the other, make two of them and not one each.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, after this time.
    Answered(Duration),
    /// No answer in time.
    Missed,
    /// It could not be sent: nothing is known of the backend any more.
    Unasked,
}

/// What is known of each backend that is pinged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Monitor {
    backends: BTreeMap<IpAddr, Backend>,
    /// When something changed that is not published, the first of such changes.
    changed: Option<Timestamp>,
    published: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Backend {
    verdict: Verdict,
    /// Outcomes in a row that speak against the verdict.
    against: u8,
    rtt: Option<Duration>,
    /// What was told last.
    told: Health,
}

impl Backend {
    fn new(health: Health) -> Self {
        Backend {
            verdict: health.verdict,
            against: 0,
            rtt: health.rtt,
            told: health,
        }
    }

    /// One more outcome. Exhaustive: every verdict under every outcome.
    fn note(&mut self, outcome: Outcome) {
        if let Outcome::Answered(rtt) = outcome {
            self.rtt = Some(smoothed(self.rtt, rtt));
        }
        match (self.verdict, outcome) {
            (Verdict::Unknown | Verdict::Down, Outcome::Answered(_)) => {
                self.speak_against(RISE, Verdict::Up);
            }
            (Verdict::Up, Outcome::Missed) => self.speak_against(FALL, Verdict::Down),
            (Verdict::Up, Outcome::Answered(_))
            | (Verdict::Unknown | Verdict::Down, Outcome::Missed) => self.against = 0,
            (Verdict::Unknown | Verdict::Up | Verdict::Down, Outcome::Unasked) => {
                *self = Backend {
                    told: self.told,
                    ..Backend::new(Health::UNKNOWN)
                };
            }
        }
    }

    fn speak_against(&mut self, enough: u8, verdict: Verdict) {
        self.against += 1;
        if self.against >= enough {
            self.verdict = verdict;
            self.against = 0;
            // The way back is measured anew: the old times may be those of another path.
            if verdict == Verdict::Down {
                self.rtt = None;
            }
        }
    }

    /// In whole microseconds, as it travels.
    fn health(&self) -> Health {
        let rtt = self.rtt.filter(|_| self.verdict == Verdict::Up);
        Health {
            verdict: self.verdict,
            rtt: rtt.map(|rtt| Duration::from_micros(rtt.as_micros() as u64)),
        }
    }

    /// Whether an engine should hear of it.
    fn has_changed(&self) -> bool {
        let now = self.health();
        match (now.rtt, self.told.rtt) {
            _ if now.verdict != self.told.verdict => true,
            (Some(now), Some(told)) => {
                let (less, more) = (now.min(told), now.max(told));
                more > less * FACTOR && more - less > NOISE
            }
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// RFC 6298's smoothing of round-trip times.
fn smoothed(before: Option<Duration>, now: Duration) -> Duration {
    match before {
        None => now,
        Some(before) if now >= before => before + (now - before) / SMOOTHING,
        Some(before) => before - (before - now) / SMOOTHING,
    }
}

impl Monitor {
    /// Follows exactly these backends. What an engine holds of one is where a new one begins: a
    /// daemon that starts anew has nothing to correct then.
    pub fn watch(&mut self, wanted: &BTreeMap<IpAddr, Health>) {
        self.backends
            .retain(|address, _| wanted.contains_key(address));
        for (&address, &health) in wanted {
            let backend = self
                .backends
                .entry(address)
                .or_insert_with(|| Backend::new(health));
            if backend.health() == Health::UNKNOWN && backend.told == Health::UNKNOWN {
                let against = backend.against;
                *backend = Backend {
                    against,
                    ..Backend::new(health)
                };
            }
        }
    }

    /// Notes what became of a ping. Returns the new verdict where it is another one.
    pub fn note(&mut self, now: Timestamp, address: IpAddr, outcome: Outcome) -> Option<Verdict> {
        let backend = self.backends.get_mut(&address)?;
        let before = backend.verdict;
        backend.note(outcome);
        if backend.has_changed() {
            self.changed.get_or_insert(now);
        }
        (backend.verdict != before).then_some(backend.verdict)
    }

    /// When what is known should be told, if it should.
    pub fn due(&self) -> Option<Timestamp> {
        let earliest = self.published.map(|at| at.after(PAUSE));
        self.changed.map(|at| earliest.map_or(at, |e| e.max(at)))
    }

    /// What is known, to be told now.
    pub fn publish(&mut self, now: Timestamp) -> BTreeMap<IpAddr, Health> {
        self.changed = None;
        self.published = Some(now);
        for backend in self.backends.values_mut().filter(|b| b.has_changed()) {
            backend.told = backend.health();
        }
        let told = self.backends.iter();
        told.map(|(&address, backend)| (address, backend.told))
            .collect()
    }

    /// How many backends are followed.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// The backend whose turn is after that of another, which may be followed no more.
    pub fn next_after(&self, last: Option<IpAddr>) -> Option<IpAddr> {
        let later = last.and_then(|last| {
            let later = (Bound::Excluded(last), Bound::Unbounded);
            self.backends.range(later).next()
        });
        let next = later.or_else(|| self.backends.first_key_value());
        next.map(|(&address, _)| address)
    }
}

/// The backends to follow: those of services that replicate.
pub fn replicas(services: &[Service]) -> impl Iterator<Item = &lockstep_plan::Backend> {
    services
        .iter()
        .filter(|s| s.mode.replicate().is_some())
        .flat_map(|s| &s.backends)
}

/// Lays what is known of replicas over services.
pub fn lay_over(services: &mut [Service], known: &BTreeMap<IpAddr, Health>) {
    for service in services {
        if service.mode.replicate().is_some() {
            for backend in &mut service.backends {
                backend.health = known.get(&backend.address).copied().unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests;
