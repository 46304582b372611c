//! What a Service says about how it is balanced: its annotations, in the words of `services.toml`, and
//! the fields of its spec that say such things.

use super::Problem;
use crate::services::replicate_policy;
use crate::services::values::Size;
use lockstep_kubernetes::annotations::{MODE, REPLICATE, SCHEDULER, TABLE_SIZE};
use lockstep_kubernetes::facts::Service;
use lockstep_plan::{Guard, Mode, Prefix, Scheduler, TableSize, guard::masked};
use lockstep_topology::diagnostics::suggest;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// How packets reach pods.
    pub mode: Mode,
    /// How a pod is chosen.
    pub scheduler: Scheduler,
    /// The size of its Maglev tables, where it names one.
    pub table_size: Option<TableSize>,
    /// Whom it serves.
    pub guard: Guard,
}

/// Why nothing of a Service can be served: a reason and a sentence.
pub type Refusal = (&'static str, String);

const MODES: [&str; 4] = ["full-nat", "nat", "tunnel", "replicate"];

impl Wishes {
    /// Those of a Service. What is wrong with one that says how well it is served is a problem, and
    /// the default is used; where packets would go another way than is asked for, nothing is served.
    pub fn of(service: &Service, problems: &mut Vec<Problem>) -> Result<Self, Refusal> {
        let mode = mode(service, problems)?;
        affinity(service, problems);
        Ok(Wishes {
            scheduler: scheduler(service, &mode, problems),
            table_size: table_size(service, &mode, problems),
            guard: guard(service, problems),
            mode,
        })
    }
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.annotations.get(key).map(|text| text.trim())
}

fn mode(service: &Service, problems: &mut Vec<Problem>) -> Result<Mode, Refusal> {
    let policy = annotation(service, REPLICATE);
    let mode = match annotation(service, MODE).unwrap_or("full-nat") {
        "full-nat" => Mode::FullNat,
        "nat" => Mode::Nat,
        "tunnel" => Mode::TUNNEL,
        "replicate" => {
            let policy = replicate_policy(policy.unwrap_or_default());
            let policy = policy.map_err(|why| ("InvalidPolicy", format!("{REPLICATE}: {why}")))?;
            return Ok(Mode::Replicate(Arc::new(policy)));
        }
        other => {
            let help = suggest(other, MODES);
            return Err((
                "InvalidMode",
                format!("{MODE}: {other:?} is no mode; {help}"),
            ));
        }
    };
    if policy.is_some() {
        let message = format!(
            "{REPLICATE} says how a Service replicates, but this one does not; set {MODE}: replicate, or \
             leave it out"
        );
        problems.push(about("AnnotationIgnored", message));
    }
    Ok(mode)
}

/// What a Service has that asks for no other time: the API server writes it there.
const AFFINITY: Duration = Duration::from_secs(10_800);

/// The choice by the client's address has no table of clients, so that no time ends it. Whoever asks
/// for one is told.
fn affinity(service: &Service, problems: &mut Vec<Problem>) {
    if let Some(time) = service.affinity.filter(|time| *time != AFFINITY) {
        let message = format!(
            "sessionAffinity: ClientIP holds as long as the pods are the same, and not for {} s: leave \
             out timeoutSeconds",
            time.as_secs()
        );
        problems.push(about("AffinityWithoutTimeout", message));
    }
}

fn scheduler(service: &Service, mode: &Mode, problems: &mut Vec<Problem>) -> Scheduler {
    let Some(text) = annotation(service, SCHEDULER) else {
        return match service.affinity {
            Some(_) => Scheduler::SourceHash,
            None => Scheduler::default(),
        };
    };
    let named = Scheduler::ALL.iter().find(|s| s.name() == text).copied();
    let Some(named) = named else {
        let help = suggest(text, Scheduler::ALL.iter().map(|s| s.name()));
        let message = format!("{SCHEDULER}: {text:?} is no scheduler; {help}");
        problems.push(about("InvalidScheduler", message));
        return match service.affinity {
            Some(_) => Scheduler::SourceHash,
            None => Scheduler::default(),
        };
    };
    if is_ignored(SCHEDULER, mode, problems) {
        return Scheduler::default();
    }
    match (named, service.affinity) {
        (named, None) => named,
        // Its choice by the client's address alone.
        (Scheduler::Maglev | Scheduler::SourceHash, Some(_)) => Scheduler::SourceHash,
        (Scheduler::RoundRobin | Scheduler::LeastConnections | Scheduler::Random, Some(_)) => {
            let message = format!(
                "sessionAffinity: ClientIP needs a choice by the client's address alone, and {SCHEDULER}: \
                 {text} chooses anew for each flow: the affinity is kept; leave one of both out"
            );
            problems.push(about("AnnotationIgnored", message));
            Scheduler::SourceHash
        }
    }
}

fn table_size(service: &Service, mode: &Mode, problems: &mut Vec<Problem>) -> Option<TableSize> {
    let text = annotation(service, TABLE_SIZE)?;
    match Size::from_text(text) {
        Ok(size) => (!is_ignored(TABLE_SIZE, mode, problems)).then_some(size),
        Err(why) => {
            problems.push(about("InvalidTableSize", format!("{TABLE_SIZE}: {why}")));
            None
        }
    }
}

/// Every pod is chosen where a Service replicates.
fn is_ignored(key: &str, mode: &Mode, problems: &mut Vec<Problem>) -> bool {
    let ignored = mode.replicate().is_some();
    if ignored {
        let message = format!(
            "{key} is about the choice of a pod, and {MODE}: replicate takes all; leave it out"
        );
        problems.push(about("AnnotationIgnored", message));
    }
    ignored
}

/// `loadBalancerSourceRanges`. A range that cannot be read allows nobody, and where there is no
/// other nobody is served: a slip of the pen opens no door.
fn guard(service: &Service, problems: &mut Vec<Problem>) -> Guard {
    let mut allow = Vec::with_capacity(service.source_ranges.len());
    for text in &service.source_ranges {
        match range(text) {
            Some(prefix) => allow.push(prefix),
            None => {
                let message = format!(
                    "loadBalancerSourceRanges: {text:?} is no range and allows nobody; write one such as \
                     192.0.2.0/24 or 2001:db8::/32"
                );
                problems.push(about("InvalidSourceRange", message));
            }
        }
    }
    let everybody = [IpAddr::from([0; 4]), IpAddr::from([0_u16; 8])];
    let nobody = allow.is_empty() && !service.source_ranges.is_empty();
    let deny = everybody.iter().filter(|_| nobody);
    Guard {
        deny: deny.filter_map(|all| Prefix::new(*all, 0).ok()).collect(),
        allow,
        ..Guard::default()
    }
}

/// As Kubernetes reads it: spaces around it and bits behind its length mean nothing.
fn range(text: &str) -> Option<Prefix> {
    let (address, length) = text.trim().split_once('/')?;
    let (address, length) = (address.parse().ok()?, length.parse().ok()?);
    let most = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (length <= most).then(|| Prefix::new(masked(address, length), length).ok())?
}

fn about(reason: &'static str, message: String) -> Problem {
    Problem {
        port: None,
        reason,
        message,
    }
}
