//! The difference of two lists of services, in the operator's words.

use crate::policy::{keys, settings};
use crate::spread::{Priority, Spread, Spreads};
use lockstep_plan::{Backend, BackendId, BackendState, Mode, Replicate, Service, ServiceName, Vip};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;

mod checks;

pub use checks::checks;

/// What differs in one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDiff {
    /// The service's name, the same on both sides.
    pub name: ServiceName,
    /// What happens to it.
    pub kind: DiffKind,
    /// The single changes. For a service added or removed, its VIPs and backends.
    pub changes: Vec<Change>,
}

/// What happens to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, with changes.
    Changed,
}

impl DiffKind {
    /// The kind's name in commands' output.
    pub const fn name(self) -> &'static str {
        match self {
            DiffKind::Added => "added",
            DiffKind::Removed => "removed",
            DiffKind::Changed => "changed",
        }
    }
}

/// One change in a service. Its text is a line of `lockstep diff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A VIP that is new.
    VipAdded(Vip),
    /// A VIP that goes.
    VipRemoved(Vip),
    /// A backend that is new, and its tier.
    BackendAdded(Backend, Priority),
    /// A backend that goes, and its tier.
    BackendRemoved(Backend, Priority),
    /// A backend with another name.
    BackendName {
        /// The backend as it was.
        before: Backend,
        /// Its new name.
        after: String,
    },
    /// A backend with another weight.
    BackendWeight {
        /// The backend as it was.
        before: Backend,
        /// Its new weight.
        after: u16,
    },
    /// A backend that starts or stops draining.
    BackendState {
        /// The backend as it was.
        before: Backend,
        /// Its new state.
        after: BackendState,
    },
    /// A backend in another tier.
    BackendPriority {
        /// The backend as it was.
        before: Backend,
        /// The tier it was in.
        was: Priority,
        /// The new one.
        after: Priority,
    },
    /// Another way to spread, deliver or limit new flows.
    Setting {
        /// Its key in `services.toml`.
        key: &'static str,
        /// The value as it was.
        before: Option<String>,
        /// The new one.
        after: Option<String>,
    },
    /// A backend that listens elsewhere.
    BackendPort {
        /// The backend as it was.
        before: Backend,
        /// Its new port; `None` for that of the VIP.
        after: Option<NonZeroU16>,
    },
    /// Another value in the policy of replicated sessions.
    Policy {
        /// Its key in `services.toml`.
        key: &'static str,
        /// The value as it was.
        before: String,
        /// The new one.
        after: String,
    },
    /// Another way to the backends.
    Mode {
        /// The mode as it was.
        before: Mode,
        /// The new one.
        after: Mode,
    },
    /// Another size of the Maglev table, in entries.
    TableSize {
        /// The size as it was.
        before: u32,
        /// The new one.
        after: u32,
    },
    /// Another idle time, in seconds.
    Idle {
        /// Its key in `services.toml`.
        key: &'static str,
        /// The time as it was.
        before: u32,
        /// The new one.
        after: u32,
    },
}

/// Services, and how they spread new flows.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The services.
    pub services: &'a [Service],
    /// Those of them that spread in a way of their own.
    pub spreads: &'a Spreads,
}

/// A service, and how it spreads new flows.
#[derive(Clone, Copy)]
struct One<'a> {
    service: &'a Service,
    spread: &'a Spread,
}

/// The services that differ between two lists, ordered by name. Names identify services,
/// addresses identify backends; order means nothing.
pub fn diff(before: Side<'_>, after: Side<'_>) -> Vec<ServiceDiff> {
    let default = Spread::default();
    let old = by_name(before, &default);
    let new = by_name(after, &default);
    let names: BTreeSet<&ServiceName> = old.keys().chain(new.keys()).copied().collect();
    let one = |name: &ServiceName| {
        let (kind, changes) = match (old.get(name), new.get(name)) {
            (None, None) => return None,
            (None, Some(&after)) => {
                let service = &bare(after.service);
                (DiffKind::Added, between(One { service, ..after }, after))
            }
            (Some(&before), None) => {
                let service = &bare(before.service);
                (
                    DiffKind::Removed,
                    between(before, One { service, ..before }),
                )
            }
            (Some(&before), Some(&after)) => (DiffKind::Changed, between(before, after)),
        };
        let differs = kind != DiffKind::Changed || !changes.is_empty();
        differs.then(|| ServiceDiff {
            name: name.clone(),
            kind,
            changes,
        })
    };
    names.into_iter().filter_map(one).collect()
}

fn by_name<'a>(side: Side<'a>, default: &'a Spread) -> BTreeMap<&'a ServiceName, One<'a>> {
    let one = |service: &'a Service| {
        let spread = side.spreads.get(&service.name).unwrap_or(default);
        (&service.name, One { service, spread })
    };
    side.services.iter().map(one).collect()
}

/// The service without what makes up its size, to show a whole service as added or removed.
fn bare(service: &Service) -> Service {
    Service {
        vips: Vec::new(),
        backends: Vec::new(),
        ..service.clone()
    }
}

fn between(before: One<'_>, after: One<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    vips(before.service, after.service, &mut changes);
    own_settings(before.service, after.service, &mut changes);
    let old = settings(before.service, before.spread);
    let new = settings(after.service, after.spread);
    for ((key, before), (_, after)) in old.into_iter().zip(new) {
        if before != after && !is_mere_default(before.as_deref(), after.as_deref()) {
            changes.push(Change::Setting { key, before, after });
        }
    }
    backends(before, after, &mut changes);
    changes
}

/// Whether a mode that has such a setting meets one that has none, without a word about it.
fn is_mere_default(before: Option<&str>, after: Option<&str>) -> bool {
    let default = |value| matches!(value, "\"ipip\"" | "\"maglev\"");
    match (before, after) {
        (Some(value), None) | (None, Some(value)) => default(value),
        (Some(_), Some(_)) | (None, None) => false,
    }
}

fn vips(before: &Service, after: &Service, changes: &mut Vec<Change>) {
    let old: BTreeSet<Vip> = before.vips.iter().copied().collect();
    let new: BTreeSet<Vip> = after.vips.iter().copied().collect();
    changes.extend(old.difference(&new).map(|&v| Change::VipRemoved(v)));
    changes.extend(new.difference(&old).map(|&v| Change::VipAdded(v)));
}

fn own_settings(before: &Service, after: &Service, changes: &mut Vec<Change>) {
    if before.mode.name() != after.mode.name() {
        changes.push(Change::Mode {
            before: before.mode.clone(),
            after: after.mode.clone(),
        });
    }
    policy(&before.mode, &after.mode, changes);
    let (old, new) = (before.table_size.get(), after.table_size.get());
    if old != new {
        changes.push(Change::TableSize {
            before: old,
            after: new,
        });
    }
    for (key, before, after) in [
        ("tcp_syn", before.idle.tcp_syn, after.idle.tcp_syn),
        (
            "tcp_established",
            before.idle.tcp_established,
            after.idle.tcp_established,
        ),
        ("tcp_fin", before.idle.tcp_fin, after.idle.tcp_fin),
        ("udp", before.idle.udp, after.idle.udp),
    ] {
        if before != after {
            changes.push(Change::Idle { key, before, after });
        }
    }
}

/// A service that begins to replicate is compared with the defaults.
fn policy(before: &Mode, after: &Mode, changes: &mut Vec<Change>) {
    let Some(new) = after.replicate() else { return };
    let defaults = Replicate::DEFAULT;
    let old = before.replicate().map_or(&defaults, |p| p);
    for ((key, before), (_, after)) in keys(old).into_iter().zip(keys(new)) {
        if before != after {
            changes.push(Change::Policy { key, before, after });
        }
    }
}

fn backends(before: One<'_>, after: One<'_>, changes: &mut Vec<Change>) {
    let (old, new) = (by_id(before.service), by_id(after.service));
    let ids: BTreeSet<&BackendId> = old.keys().chain(new.keys()).collect();
    for id in ids {
        match (old.get(id), new.get(id)) {
            (None, None) => {}
            (Some(&backend), None) => {
                let tier = before.spread.priority(*id);
                changes.push(Change::BackendRemoved(backend.clone(), tier));
            }
            (None, Some(&backend)) => {
                let tier = after.spread.priority(*id);
                changes.push(Change::BackendAdded(backend.clone(), tier));
            }
            (Some(&old), Some(&new)) => {
                backend(old, new, changes);
                let (was, is) = (before.spread.priority(*id), after.spread.priority(*id));
                if was != is {
                    changes.push(Change::BackendPriority {
                        before: old.clone(),
                        was,
                        after: is,
                    });
                }
            }
        }
    }
}

fn by_id(service: &Service) -> BTreeMap<BackendId, &Backend> {
    service.backends.iter().map(|b| (b.id(), b)).collect()
}

fn backend(before: &Backend, after: &Backend, changes: &mut Vec<Change>) {
    if before.name != after.name {
        changes.push(Change::BackendName {
            before: before.clone(),
            after: after.name.clone(),
        });
    }
    if before.weight != after.weight {
        let after = after.weight.get();
        changes.push(Change::BackendWeight {
            before: before.clone(),
            after,
        });
    }
    if before.state != after.state {
        changes.push(Change::BackendState {
            before: before.clone(),
            after: after.state,
        });
    }
    if before.port != after.port {
        changes.push(Change::BackendPort {
            before: before.clone(),
            after: after.port,
        });
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::VipAdded(vip) => write!(f, "+ vip {vip}"),
            Change::VipRemoved(vip) => write!(f, "- vip {vip}"),
            Change::BackendAdded(b, tier) => {
                write!(f, "+ backend {}{}", label(b), details(b, *tier))
            }
            Change::BackendRemoved(b, tier) => {
                write!(f, "- backend {}{}", label(b), details(b, *tier))
            }
            Change::BackendName { before, after } => {
                write!(
                    f,
                    "~ backend {}: name {} -> {after}",
                    before.address, before.name
                )
            }
            Change::BackendWeight { before, after } => {
                write!(
                    f,
                    "~ backend {}: weight {} -> {after}",
                    label(before),
                    before.weight.get()
                )
            }
            Change::BackendState { before, after } => {
                let (old, new) = (state_name(before.state), state_name(*after));
                write!(f, "~ backend {}: {old} -> {new}", label(before))
            }
            Change::BackendPort { before, after } => {
                let (old, new) = (port(before.port), port(*after));
                write!(f, "~ backend {}: port {old} -> {new}", label(before))
            }
            Change::BackendPriority { before, was, after } => {
                let (was, after) = (was.get(), after.get());
                write!(f, "~ backend {}: priority {was} -> {after}", label(before))
            }
            Change::Setting { key, before, after } => {
                let shown = |value: &Option<String>| value.clone().unwrap_or("none".to_owned());
                write!(f, "~ {key}: {} -> {}", shown(before), shown(after))
            }
            Change::Policy { key, before, after } => {
                write!(f, "~ replicate.{key}: {before} -> {after}")
            }
            Change::Mode { before, after } => {
                write!(f, "~ mode: {} -> {}", before.name(), after.name())
            }
            Change::TableSize { before, after } => write!(f, "~ table_size: {before} -> {after}"),
            Change::Idle { key, before, after } => {
                write!(f, "~ idle.{key}: {before}s -> {after}s")
            }
        }
    }
}

/// A backend in a line of text: its name, and its address where that is not its name.
fn label(backend: &Backend) -> String {
    let address = backend.address.to_string();
    if backend.name == address {
        address
    } else {
        format!("{} ({address})", backend.name)
    }
}

fn details(backend: &Backend, tier: Priority) -> String {
    let tier = match tier.get() {
        0 => String::new(),
        tier => format!(" priority {tier}"),
    };
    let weight = backend.weight.get();
    let port = backend.port.map_or(String::new(), |p| format!(" port {p}"));
    match backend.state {
        BackendState::Active => format!("{port} weight {weight}{tier}"),
        BackendState::Draining => format!("{port} weight {weight}{tier} draining"),
    }
}

fn port(port: Option<NonZeroU16>) -> String {
    port.map_or_else(|| "of the VIP".to_owned(), |p| p.to_string())
}

/// A state's name in commands' output.
pub const fn state_name(state: BackendState) -> &'static str {
    match state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
    }
}

#[cfg(test)]
mod tests;
