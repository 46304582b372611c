//! What is known of each backend, for the command line.

use lockstep_api::{BackendHealth, HealthReply, HealthVerdict};
use lockstep_ctl_core::checks::{Checks, Probe, Seen, Subject, Via};
use lockstep_ctl_core::drains::{Target, Timestamp};
use lockstep_plan::health::Verdict;
use std::net::SocketAddr;

/// Everything, as a message.
pub fn reply(checks: &Checks, now: Timestamp) -> HealthReply {
    HealthReply {
        backends: checks.seen(now).map(|seen| one(&seen)).collect(),
    }
}

fn one(seen: &Seen<'_>) -> BackendHealth {
    let pace = &seen.subject.pace;
    let needed = match seen.verdict {
        Verdict::Unknown => 1,
        Verdict::Up => pace.fall,
        Verdict::Down => pace.rise,
    };
    BackendHealth {
        service: seen.target.service.as_str().to_owned(),
        backend_name: seen.subject.name.clone(),
        address: seen.target.backend.to_string(),
        check: described(seen.target, seen.subject),
        verdict: verdict(seen.verdict).into(),
        since: seconds(Some(seen.since)),
        against: seen.against.into(),
        against_needed: needed.into(),
        error: seen.error.to_owned(),
        error_at: seconds(seen.error_at),
        latency_microseconds: seen
            .latency
            .map(|l| u64::try_from(l.as_micros()).unwrap_or(u64::MAX)),
        next: seconds(seen.next),
        flaps: seen.flaps,
        held_until: seconds(seen.held_until),
        passed: seen.passed,
        failed: seen.failed,
    }
}

fn verdict(verdict: Verdict) -> HealthVerdict {
    match verdict {
        Verdict::Unknown => HealthVerdict::Unknown,
        Verdict::Up => HealthVerdict::Up,
        Verdict::Down => HealthVerdict::Down,
    }
}

/// Since 1970; 0 for never.
fn seconds(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.0 as f64 / 1_000.0)
}

/// What is asked, in short.
fn described(target: &Target, subject: &Subject) -> String {
    let (address, way) = match subject.check.via {
        Via::Address => (target.backend.0, ""),
        Via::Tunnel => (subject.vip.address(), " through the tunnel"),
    };
    let to = SocketAddr::new(address, subject.asked_port());
    let probe = &subject.check.probe;
    let name = probe.name();
    match probe {
        Probe::Tcp(_) | Probe::Udp(_) => format!("{name} {to}{way}"),
        Probe::Http(http) => format!("{name} {to}{}{way}", http.path),
        Probe::Grpc { service, .. } if service.is_empty() => format!("{name} {to}{way}"),
        Probe::Grpc { service, .. } => format!("{name} {to} {service}{way}"),
        Probe::Icmp => format!("{name} {address}"),
        Probe::Script { command } => format!("{name} {}", command.join(" ")),
    }
}
