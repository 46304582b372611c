//! `lockstep drain` and `lockstep undrain`: of a backend, and of the whole balancer.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api::{
    Announcement, DrainBalancerRequest, DrainReply, DrainRequest, DrainStatus, UndrainRequest,
};
use lockstep_topology::duration;
use serde::Serialize;
use std::time::Duration;

/// Arguments of `lockstep drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// The backend's name or address.
    #[arg(required_unless_present = "balancer")]
    backend: Option<String>,
    /// This whole balancer: its VIPs are withdrawn from routers and neighbors, its flows go on.
    #[arg(long, conflicts_with_all = ["backend", "service", "deadline"])]
    balancer: bool,
    /// In this service only, not in every one that has it.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// When it is removed with what flows it has left, such as 60s; 0s never removes it.
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline, required_unless_present = "balancer")]
    deadline: Option<Duration>,
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

/// Arguments of `lockstep undrain`.
#[derive(Debug, Args)]
pub struct UndrainArguments {
    /// The backend's name or address.
    #[arg(required_unless_present = "balancer")]
    backend: Option<String>,
    /// This whole balancer: its VIPs are announced again.
    #[arg(long, conflicts_with_all = ["backend", "service"])]
    balancer: bool,
    /// In this service only, not in every one that has it.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// A drain as JSON.
#[derive(Debug, Serialize)]
pub struct Entry {
    service: String,
    backend: String,
    address: String,
    /// Null when there is no deadline.
    remaining_seconds: Option<f64>,
    removed: bool,
}

impl Entry {
    /// A drain of a reply.
    pub fn new(drain: DrainStatus) -> Self {
        let remaining = drain.remaining_seconds;
        Entry {
            service: drain.service,
            backend: drain.backend_name,
            address: drain.address,
            remaining_seconds: (remaining >= 0.0).then_some(remaining),
            removed: drain.removed,
        }
    }
}

/// Drains as a table.
pub fn drains_table(drains: &[Entry]) -> String {
    let left = |drain: &Entry| match drain.remaining_seconds {
        _ if drain.removed => "removed".to_owned(),
        Some(seconds) => format!("removed in {}", units::time(seconds.ceil())),
        None => "draining, no deadline".to_owned(),
    };
    let rows = drains.iter().map(|d| {
        vec![
            d.service.clone(),
            d.backend.clone(),
            d.address.clone(),
            left(d),
        ]
    });
    table(&["SERVICE", "BACKEND", "ADDRESS", "DRAIN"], rows)
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    epoch: u64,
    drains: Vec<Entry>,
    warnings: Vec<String>,
}

impl Report {
    fn new(reply: DrainReply) -> Self {
        Report {
            epoch: reply.epoch,
            drains: reply.drains.into_iter().map(Entry::new).collect(),
            warnings: reply.warnings,
        }
    }

    fn warn(&self) {
        for warning in &self.warnings {
            super::output::say(format!("lockstep: warning: {warning}"));
        }
    }
}

/// Begins a drain.
pub async fn drain(
    global: &Global,
    arguments: DrainArguments,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let Some(backend) = arguments.backend else {
        return balancer(global, true, out).await;
    };
    let request = DrainRequest {
        backend,
        service: arguments.service.unwrap_or_default(),
        deadline_seconds: arguments.deadline.unwrap_or_default().as_secs_f64(),
    };
    let mut daemon = ask::daemon(global).await?;
    let report = Report::new(ask::answer(Peer::Daemon, daemon.drain(request)).await?);
    report.warn();
    out.answer(&report, || {
        format!(
            "{}\nin force as epoch {}",
            drains_table(&report.drains),
            report.epoch
        )
    })?;
    Ok(Answer::Yes)
}

/// Ends a drain.
pub async fn undrain(
    global: &Global,
    arguments: UndrainArguments,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let Some(backend) = arguments.backend else {
        return balancer(global, false, out).await;
    };
    let request = UndrainRequest {
        backend,
        service: arguments.service.unwrap_or_default(),
    };
    let mut daemon = ask::daemon(global).await?;
    let report = Report::new(ask::answer(Peer::Daemon, daemon.undrain(request)).await?);
    report.warn();
    out.answer(&report, || {
        let active = |d: &Entry| {
            vec![
                d.service.clone(),
                d.backend.clone(),
                d.address.clone(),
                "ended".to_owned(),
            ]
        };
        let columns = ["SERVICE", "BACKEND", "ADDRESS", "DRAIN"];
        let rows = table(&columns, report.drains.iter().map(active));
        format!("{rows}\nin force as epoch {}", report.epoch)
    })?;
    Ok(Answer::Yes)
}

/// The answer for the whole balancer as JSON.
#[derive(Debug, Serialize)]
struct BalancerReport {
    drained: bool,
    announcements: Vec<Announced>,
}

/// A VIP's address as JSON.
#[derive(Debug, Serialize)]
pub struct Announced {
    address: String,
    /// Why it is not announced; null where it is.
    withheld: Option<String>,
}

impl Announced {
    /// One of a reply.
    pub fn new(announcement: Announcement) -> Self {
        Announced {
            address: announcement.address,
            withheld: Some(announcement.withheld).filter(|w| !w.is_empty()),
        }
    }
}

async fn balancer(global: &Global, drain: bool, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let call = daemon.drain_balancer(DrainBalancerRequest { drain });
    let reply = ask::answer(Peer::Daemon, call).await?;
    let report = BalancerReport {
        drained: reply.drained,
        announcements: reply
            .announcements
            .into_iter()
            .map(Announced::new)
            .collect(),
    };
    out.answer(&report, || {
        let state = match report.drained {
            true => "the balancer is drained: none of its VIPs is announced, its flows go on",
            false => "the balancer is back",
        };
        let row = |a: &Announced| {
            let state = a.withheld.as_deref().unwrap_or("announced");
            vec![a.address.clone(), state.to_owned()]
        };
        let rows = table(&["VIP", "STATE"], report.announcements.iter().map(row));
        format!("{rows}\n{state}")
    })?;
    Ok(Answer::Yes)
}
