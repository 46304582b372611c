//! `services.toml`: the services as an operator writes them.
//!
//! ```toml
//! [[service]]
//! name = "web"
//! vips = ["203.0.113.10:80/tcp", "[2001:db8::10]:80/tcp"]
//! mode = "tunnel"                                       # the default
//! encapsulation = "ipip"                                # or "gue", with gue_port = 6080
//! scheduler = "maglev"                                  # or "wrr", "wlc", "source-hash", "random"
//! table_size = 65537                                    # Maglev table, a prime
//! slow_start = "30s"                                    # else new backends have their share at once
//! deny = ["192.0.2.0/24"]                               # and allow, the only ones that are served
//! rate = { new_flows = 10000, packets = 1000000 }       # a second, either or both
//! source_rate = { new_flows = 100 }                     # of a prefix: prefix_ipv4 = 24, prefix_ipv6 = 56
//! idle = { tcp_established = "15m", udp = "300s" }      # also tcp_syn, tcp_fin
//! health = { type = "http", path = "/health" }          # what their health is found by
//! all_down = "keep"                                     # or "drop", "reset"
//! backends = [
//!     { address = "10.0.1.11" },
//!     { address = "10.0.1.12", name = "web-2", weight = 50 },
//!     { address = "10.0.1.13", priority = 1 },          # takes over as those of 0 fail
//! ]
//!
//! [[service]]
//! name = "shop"
//! vips = ["203.0.113.11:443/tcp", "203.0.113.11:30000-30999/udp"]
//! mode = "full-nat"                                     # or "nat"; both rewrite addresses
//! sticky = "client"                                     # all flows of a client to one backend
//! backends = [{ address = "10.0.1.31" }]
//!
//! [[service]]
//! name = "game"
//! vips = ["203.0.113.20:5201/tcp"]                      # TCP only
//! mode = "replicate"                                    # every backend gets what the client sends
//! backends = [
//!     { address = "10.0.1.21" },
//!     { address = "10.0.1.22", port = 5202 },           # else that of the VIP
//! ]
//! [service.replicate]                                   # each with its default:
//! commit = "primary"                                    # or { quorum = 2 }
//! min_sync = 1                                          # where none is given, the quorum
//! open_timeout = "3s"
//! stall_timeout = "20ms"
//! dead_after = "3s"
//! fin_timeout = "1s"
//! orphan_timeout = "10s"
//! max_lag = "1MiB"
//! grace = "200ms"
//! lag_timeout = "1m"
//! divergence = "count"                                  # or "ignore", "evict", "reset"
//! masks = []                                            # { offset = 0, length = 8 }, { pattern = 'Date: [^\r]*' }
//! group = "connection"                                  # or "client"
//! proxy_protocol = false
//! rejoin = true
//! log_memory = "1MiB"
//! log_disk = "64MiB"
//! keepalive = "15s"
//! client_timeout = "1m"
//! ```
//!
//! What each key means is in the book, under `services.toml`; [`Replicate`] says it too.
//! `weight` is 1 to 10,000 and 100 where none is given. A backend with `weight = 0` is draining:
//! it keeps the flows it has and takes no new ones. A file without services says so with
//! `service = []`; an empty one is refused, since it is more often a mishap than a wish.

use crate::checks::Policy;
use crate::spread::{Priority, Spread, Spreads};
use lockstep_plan::mask::MAX_MASKS;
use lockstep_plan::{
    Backend, BackendId, BackendState, Encapsulation, Guard, Health, Mode, Replicate, Scheduler,
    Service, ServiceName, Snapshot, TableSize, Unserved, Weight, too_few_backends,
};
use lockstep_topology::diagnostics::{Diagnostics, Source, read_toml};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;

pub(crate) mod bytes;
mod conflicts;
mod flows;
pub(crate) mod health;
mod meaningless;
mod replicate;
pub mod sources;
pub(crate) mod values;

use flows::{FileEncapsulation, FilePriority, FileScheduler, FileSticky, SlowStart};
use flows::{PrefixText, Rate, SourceLimit};
use replicate::FileReplicate;
use values::{Address, BackendName, FileMode, FilePort, FileWeight, Idle, Name, Size, VipText};

/// The services of a file, and what is odd about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesFile {
    /// They stand together in one snapshot; in the order of the file.
    pub services: Vec<Service>,
    /// How each of them spreads new flows, as far as the engine is not to know it.
    pub spreads: Spreads,
    /// How the backends of each are checked.
    pub health: BTreeMap<ServiceName, Policy>,
    /// What is allowed, but hardly meant. No errors.
    pub warnings: Diagnostics,
}

/// Reads the text of a `services.toml`. `file` is the name errors are reported under.
///
/// # Errors
/// Everything that is wrong with the keys and their values, and with the services together, at
/// once; of a service with a wrong key or value that alone.
pub fn parse(file: &str, text: &str) -> Result<ServicesFile, Diagnostics> {
    let source = Source::new(file, text);
    let judge = |document: Document, found: &mut Diagnostics| judge(source, &document, found);
    let (mut parsed, warnings) = read_toml(file, text, judge)?;
    parsed.warnings = warnings;
    Ok(parsed)
}

/// The services of a document, where they have no errors.
fn judge(source: Source<'_>, document: &Document, found: &mut Diagnostics) -> Option<ServicesFile> {
    let services: Vec<Service> = document
        .service
        .iter()
        .map(|s| s.get_ref().to_plan())
        .collect();
    found.extend(conflicts::in_names(source, document));
    found.extend(conflicts::in_policies(source, document));
    found.extend(meaningless::keys(source, document));
    found.extend(health::all(source, document, &services));
    let mut errors = Snapshot::new(0, services.clone()).err().unwrap_or_default();
    errors.extend(too_few_backends(&services));
    found.extend(conflicts::located(source, document, &errors));
    if found.has_errors() {
        return None;
    }
    found.extend(document.service.iter().filter_map(|s| {
        let service = s.get_ref();
        let active = service
            .backends
            .get_ref()
            .iter()
            .any(|b| b.get_ref().is_active());
        let message = format!("service {} has no active backend", service.name.get_ref().0);
        let warning = source.warning(service.backends.span(), message);
        let help = match service.mode {
            FileMode::Tunnel | FileMode::Nat | FileMode::FullNat => {
                "its packets are dropped as no_backend"
            }
            FileMode::Replicate => "its clients are refused",
        };
        (!active).then(|| warning.help(help))
    }));
    let spreads = document.service.iter().map(|s| {
        let service = s.get_ref();
        (service.name.get_ref().0.clone(), service.spread())
    });
    let policies = document.service.iter().map(|s| {
        let service = s.get_ref();
        (service.name.get_ref().0.clone(), service.health_policy())
    });
    Some(ServicesFile {
        services,
        spreads: spreads.collect(),
        health: policies.collect(),
        warnings: Diagnostics::new(),
    })
}

/// Reads the keys of a `[service.replicate]` by themselves.
///
/// # Errors
/// What is wrong with them, in a line.
pub fn replicate_policy(text: &str) -> Result<Replicate, String> {
    let keys: FileReplicate = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if let Some(problem) = keys.masks().find_map(|(_, mask)| mask.problem()) {
        return Err(problem.to_owned());
    }
    if keys.masks().count() > MAX_MASKS {
        return Err(format!(
            "more than {MAX_MASKS} masks; alternatives fit in one pattern"
        ));
    }
    let policy = keys.to_plan();
    if policy.min_sync.get() < policy.quorum() {
        let (min_sync, quorum) = (policy.min_sync, policy.quorum());
        return Err(format!(
            "min_sync = {min_sync} is less than the quorum of {quorum}; raise it, or leave it out"
        ));
    }
    Ok(policy)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    service: Vec<Spanned<FileService>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileService {
    name: Spanned<Name>,
    vips: Spanned<Vec<Spanned<VipText>>>,
    #[serde(default)]
    mode: FileMode,
    encapsulation: Option<Spanned<FileEncapsulation>>,
    gue_port: Option<Spanned<FilePort>>,
    scheduler: Option<Spanned<FileScheduler>>,
    sticky: Option<Spanned<FileSticky>>,
    slow_start: Option<Spanned<SlowStart>>,
    table_size: Option<Spanned<Size>>,
    #[serde(default)]
    idle: Idle,
    allow: Option<Spanned<Vec<PrefixText>>>,
    #[serde(default)]
    deny: Vec<PrefixText>,
    rate: Option<Spanned<Rate>>,
    source_rate: Option<SourceLimit>,
    health: Option<Spanned<health::FileHealth>>,
    all_down: Option<Spanned<health::FileAllDown>>,
    replicate: Option<Spanned<FileReplicate>>,
    backends: Spanned<Vec<Spanned<FileBackend>>>,
}

impl FileService {
    fn to_plan(&self) -> Service {
        Service {
            name: self.name.get_ref().0.clone(),
            vips: self.vips.get_ref().iter().map(|v| v.get_ref().0).collect(),
            mode: match self.mode {
                FileMode::Tunnel => Mode::Tunnel(self.encapsulation()),
                FileMode::Nat => Mode::Nat,
                FileMode::FullNat => Mode::FullNat,
                FileMode::Replicate => Mode::Replicate(Arc::new(self.policy())),
            },
            backends: self
                .backends
                .get_ref()
                .iter()
                .map(|b| b.get_ref().to_plan())
                .collect(),
            table_size: (self.table_size.as_ref()).map_or(TableSize::DEFAULT, |s| s.get_ref().0),
            idle: self.idle.to_plan(),
            scheduler: self.scheduler(),
            guard: self.guard(),
            unserved: self.unserved(),
        }
    }

    fn encapsulation(&self) -> Encapsulation {
        let named = self.encapsulation.as_ref();
        match named.map_or(FileEncapsulation::Ipip, |e| *e.get_ref()) {
            FileEncapsulation::Ipip => Encapsulation::Ipip,
            FileEncapsulation::Gue => Encapsulation::Gue {
                port: self
                    .gue_port
                    .as_ref()
                    .map_or(Encapsulation::GUE_PORT, |p| p.get_ref().0),
            },
        }
    }

    fn scheduler(&self) -> Scheduler {
        let named = self.scheduler.as_ref().map(|s| s.get_ref().to_plan());
        match (named.unwrap_or_default(), &self.sticky) {
            // Its choice by the client's address alone.
            (Scheduler::Maglev, Some(_)) => Scheduler::SourceHash,
            (scheduler, _) => scheduler,
        }
    }

    fn guard(&self) -> Guard {
        let prefixes = |texts: &[PrefixText]| texts.iter().map(|p| p.0).collect();
        let rate = self.rate.as_ref().map(Spanned::get_ref);
        Guard {
            allow: prefixes(self.allow.as_ref().map_or(&[], |allow| allow.get_ref())),
            deny: prefixes(&self.deny),
            new_flows: rate.and_then(|r| r.new_flows()),
            packets: rate.and_then(|r| r.packets()),
            source: self.source_rate.as_ref().map(SourceLimit::to_plan),
        }
    }

    fn unserved(&self) -> Unserved {
        match self.all_down.as_ref().map(|policy| policy.get_ref()) {
            Some(health::FileAllDown::Reset) => Unserved::Reset,
            None | Some(health::FileAllDown::Keep | health::FileAllDown::Drop) => Unserved::Drop,
        }
    }

    fn spread(&self) -> Spread {
        let priority = |b: &Spanned<FileBackend>| {
            let priority = b.get_ref().priority.as_ref()?.get_ref().0;
            (priority != Priority::default())
                .then_some((BackendId(b.get_ref().address.get_ref().0), priority))
        };
        Spread {
            slow_start: self.slow_start.as_ref().map(|s| s.get_ref().0),
            priorities: self
                .backends
                .get_ref()
                .iter()
                .filter_map(priority)
                .collect(),
        }
    }

    fn policy(&self) -> Replicate {
        let named = self.replicate.as_ref();
        named.map_or(Replicate::DEFAULT, |policy| policy.get_ref().to_plan())
    }

    /// Where the file names it: what its errors point at.
    fn span(&self) -> Range<usize> {
        self.name.span()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBackend {
    address: Spanned<Address>,
    port: Option<Spanned<FilePort>>,
    name: Option<Spanned<BackendName>>,
    #[serde(default)]
    weight: FileWeight,
    priority: Option<Spanned<FilePriority>>,
}

impl FileBackend {
    fn to_plan(&self) -> Backend {
        let (weight, state) = match Weight::new(self.weight.0) {
            Some(weight) => (weight, BackendState::Active),
            None => (Weight::DEFAULT, BackendState::Draining),
        };
        Backend {
            name: self.name(),
            address: self.address.get_ref().0,
            weight,
            state,
            port: self.port.as_ref().map(|p| p.get_ref().0),
            health: Health::UNKNOWN,
        }
    }

    fn name(&self) -> String {
        match &self.name {
            Some(name) => name.get_ref().0.clone(),
            None => self.address.get_ref().0.to_string(),
        }
    }

    fn is_active(&self) -> bool {
        self.weight.0 != 0
    }
}

#[cfg(test)]
mod tests;
