//! `lockstep health`: what the checks of backends have found.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api as api;
use lockstep_api::{HealthRequest, HealthVerdict};
use serde::Serialize;
use std::time::SystemTime;

/// Arguments of `lockstep health`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Of this service only.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// What is known as JSON.
#[derive(Debug, Serialize)]
struct Report {
    backends: Vec<Backend>,
}

/// A backend as JSON. Times are seconds since 1970.
#[derive(Debug, Serialize)]
struct Backend {
    service: String,
    backend: String,
    address: String,
    check: String,
    /// "unknown", "up" or "down".
    state: &'static str,
    since: f64,
    /// Checks in a row that speak against the state, and how many change it.
    against: u32,
    against_needed: u32,
    /// What was wrong last; null where nothing ever was.
    error: Option<String>,
    error_at: Option<f64>,
    latency_seconds: Option<f64>,
    /// When it is asked next; null while it is being asked.
    next: Option<f64>,
    flaps: u64,
    /// Until when damping holds it down; null where it does not.
    held_until: Option<f64>,
    passed: u64,
    failed: u64,
}

impl From<api::BackendHealth> for Backend {
    fn from(seen: api::BackendHealth) -> Self {
        let time = |seconds: f64| (seconds > 0.0).then_some(seconds);
        Backend {
            state: state(seen.verdict()),
            service: seen.service,
            backend: seen.backend_name,
            address: seen.address,
            check: seen.check,
            since: seen.since,
            against: seen.against,
            against_needed: seen.against_needed,
            error: Some(seen.error).filter(|e| !e.is_empty()),
            error_at: time(seen.error_at),
            latency_seconds: seen.latency_microseconds.map(|us| us as f64 / 1e6),
            next: time(seen.next),
            flaps: seen.flaps,
            held_until: time(seen.held_until),
            passed: seen.passed,
            failed: seen.failed,
        }
    }
}

fn state(verdict: HealthVerdict) -> &'static str {
    match verdict {
        HealthVerdict::Unknown => "unknown",
        HealthVerdict::Up => "up",
        HealthVerdict::Down => "down",
    }
}

/// The system's time, in seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

impl Backend {
    fn row(&self, now: f64) -> Vec<String> {
        let state = match (self.held_until, self.against) {
            (Some(until), _) => format!("{}, held {}", self.state, units::time(until - now)),
            (None, 0) => self.state.to_owned(),
            (None, n) => format!("{}, {n}/{} against", self.state, self.against_needed),
        };
        let latency = self.latency_seconds.map(units::moment);
        let next = match self.next {
            None => "now".to_owned(),
            Some(at) if at <= now => "now".to_owned(),
            Some(at) => units::moment(at - now),
        };
        vec![
            self.service.clone(),
            self.backend.clone(),
            self.check.clone(),
            state,
            units::time(now - self.since),
            latency.unwrap_or_else(|| "-".to_owned()),
            next,
            self.flaps.to_string(),
            self.complaint(now).unwrap_or_default(),
        ]
    }

    /// What was wrong last, and how long ago that was.
    fn complaint(&self, now: f64) -> Option<String> {
        let error = self.error.as_ref()?;
        let ago = self.error_at.map_or(0.0, |at| now - at);
        Some(format!("{error} ({} ago)", units::time(ago)))
    }
}

impl Report {
    fn text(&self) -> String {
        let now = now();
        if self.backends.is_empty() {
            return "no service has `health` in services.toml: nothing is checked".to_owned();
        }
        table(
            &[
                "SERVICE",
                "BACKEND",
                "CHECK",
                "STATE",
                ">SINCE",
                ">LATENCY",
                ">NEXT",
                ">FLAPS",
                "LAST ERROR",
            ],
            self.backends.iter().map(|b| b.row(now)),
        )
    }
}

/// Shows what is known of every backend.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::present(Peer::Daemon, daemon.health(HealthRequest {})).await?;
    let backends = reply.backends.into_iter().map(Backend::from);
    let wanted = |b: &Backend| arguments.service.as_ref().is_none_or(|s| *s == b.service);
    let report = Report {
        backends: backends.filter(wanted).collect(),
    };
    if let Some(service) = &arguments.service
        && report.backends.is_empty()
    {
        return Err(Failure::Refused(format!(
            "service {service} is not there, or has no `health` in services.toml"
        )));
    }
    out.answer(&report, || report.text())?;
    match report.backends.iter().any(|b| b.state == "down") {
        true => Ok(Answer::No),
        false => Ok(Answer::Yes),
    }
}

/// The backends that are down, a line each, and where there are many, how many more.
pub fn troubles(reply: &api::HealthReply) -> Vec<String> {
    const MOST: usize = 10;
    let now = now();
    let down = |b: &&api::BackendHealth| b.verdict() == HealthVerdict::Down;
    let all: Vec<String> = reply
        .backends
        .iter()
        .filter(down)
        .map(|b| {
            let (service, name, address) = (&b.service, &b.backend_name, &b.address);
            let (since, error) = (units::time(now - b.since), &b.error);
            format!("service {service}: backend {name} ({address}) is down for {since}: {error}")
        })
        .collect();
    let more = all.len().saturating_sub(MOST);
    let rest = (more > 0).then(|| format!("{more} more backends are down, see `lockstep health`"));
    all.into_iter().take(MOST).chain(rest).collect()
}
