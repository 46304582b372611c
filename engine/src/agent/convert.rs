//! Snapshots as they come over gRPC ⇄ snapshots that cannot be wrong.

use lockstep_api as api;
use lockstep_plan as plan;
use plan::mask::PatternError;
use plan::{
    Backend, BackendState, Encapsulation, IdleTimeouts, Mode, ParsePrefixError, ParseVipError,
    PlanError, Protocol, Service, ServiceName, Snapshot, TableSize, Vip, Weight,
};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

mod guard;
mod replicate;

use guard::{guard, guard_to_proto, scheduler, scheduler_to_proto};
pub use replicate::health_to_proto;
use replicate::{health_from_proto, replicate_from_proto, replicate_to_proto};

/// Why a message is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field whose value cannot be.
    #[error("service {service}: {field}: {problem}")]
    Field {
        /// The service's name, or its place such as `#2` where the name is the problem.
        service: String,
        /// The path to the field, such as `backends[3].weight`.
        field: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Each field is well, but the services cannot stand together.
    #[error(transparent)]
    Conflict(#[from] PlanError),
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No service name.
    #[error("{0:?} is not 1 to 253 letters, digits, `-`, `_`, `.` or `/`")]
    Name(String),
    /// No IP address.
    #[error("{0:?} is not an IPv4 or IPv6 address")]
    Address(String),
    /// No port.
    #[error("{0} is not a port (0 to 65535)")]
    Port(u32),
    /// No VIP.
    #[error(transparent)]
    Vip(#[from] ParseVipError),
    /// No prefix.
    #[error("{text:?}: {error}")]
    Prefix {
        /// What stood there.
        text: String,
        /// What is wrong with it.
        error: ParsePrefixError,
    },
    /// No length of a prefix.
    #[error("{0} is longer than the address")]
    PrefixLength(u32),
    /// No weight.
    #[error("{0} is not a weight (1 to {max})", max = Weight::MAX)]
    Weight(u32),
    /// No number of replicas.
    #[error("{0} is not a number of replicas (1 to 255)")]
    Replicas(u32),
    /// No pattern.
    #[error("{pattern:?}: {error}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// No table size.
    #[error("{0} is not a prime from {min} to {max}", min = TableSize::MIN, max = TableSize::MAX)]
    TableSize(u32),
    /// Not set.
    #[error("is missing")]
    Missing,
    /// A value of an enumeration that this engine does not know.
    #[error("{0} is not a value this engine knows; is the daemon of a later version?")]
    Unknown(i32),
}

/// Reads a snapshot; every reason why it is none.
pub fn snapshot_from_proto(message: &api::Snapshot) -> Result<Snapshot, Vec<ConvertError>> {
    let mut errors = Vec::new();
    let services: Vec<Service> = message
        .services
        .iter()
        .enumerate()
        .filter_map(|(at, message)| service(at, message, &mut errors))
        .collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    Snapshot::new(message.epoch, services)
        .map_err(|conflicts| conflicts.into_iter().map(ConvertError::from).collect())
}

/// Writes a snapshot. [`snapshot_from_proto`] reads the same one back.
pub fn snapshot_to_proto(snapshot: &Snapshot) -> api::Snapshot {
    api::Snapshot {
        epoch: snapshot.epoch(),
        services: snapshot.services().iter().map(service_to_proto).collect(),
    }
}

/// The problems of one service's fields, as they are found.
struct Fields<'a> {
    service: String,
    errors: &'a mut Vec<ConvertError>,
}

impl Fields<'_> {
    fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Problem>) -> Option<T> {
        value
            .map_err(|problem| {
                self.errors.push(ConvertError::Field {
                    service: self.service.clone(),
                    field: field.into(),
                    problem,
                });
            })
            .ok()
    }
}

/// A service, `None` when one of its fields is wrong. All of them are looked at.
fn service(at: usize, message: &api::Service, errors: &mut Vec<ConvertError>) -> Option<Service> {
    let name = ServiceName::new(&message.name);
    let shown = name.as_ref().map(ToString::to_string);
    let mut fields = Fields {
        service: shown.unwrap_or_else(|| format!("#{}", at + 1)),
        errors,
    };
    let name = fields.take(
        "name",
        name.ok_or_else(|| Problem::Name(message.name.clone())),
    );
    let mode = mode(message, &mut fields);
    let size = message.table_size;
    let table_size = fields.take(
        "table_size",
        TableSize::new(size).ok_or(Problem::TableSize(size)),
    );
    let idle = fields.take("idle", message.idle.ok_or(Problem::Missing));
    let scheduler = fields.take("scheduler", scheduler(message.scheduler));
    let guard = guard(message.guard.as_ref(), &mut fields);
    let vips: Vec<Option<Vip>> = message
        .vips
        .iter()
        .enumerate()
        .map(|(at, message)| vip(at, message, &mut fields))
        .collect();
    let backends: Vec<Option<Backend>> = message
        .backends
        .iter()
        .enumerate()
        .map(|(at, message)| backend(at, message, &mut fields))
        .collect();
    let idle = idle?;
    Some(Service {
        name: name?,
        vips: vips.into_iter().collect::<Option<_>>()?,
        mode: mode?,
        backends: backends.into_iter().collect::<Option<_>>()?,
        table_size: table_size?,
        idle: IdleTimeouts {
            tcp_syn: idle.tcp_syn,
            tcp_established: idle.tcp_established,
            tcp_fin: idle.tcp_fin,
            udp: idle.udp,
        },
        scheduler: scheduler?,
        guard: guard?,
        unserved: match message.reset_unserved {
            true => plan::Unserved::Reset,
            false => plan::Unserved::Drop,
        },
    })
}

fn vip(at: usize, message: &api::Vip, fields: &mut Fields<'_>) -> Option<Vip> {
    let field = |name| format!("vips[{at}].{name}");
    let address = fields.take(field("address"), address(&message.address));
    let port = u16::try_from(message.port).map_err(|_| Problem::Port(message.port));
    let port = fields.take(field("port"), port);
    let protocol = fields.take(field("protocol"), protocol(message.protocol));
    let last = match message.last_port {
        0 => port,
        last => fields.take(
            field("last_port"),
            u16::try_from(last).map_err(|_| Problem::Port(last)),
        ),
    };
    let vip = Vip::with_ports(address?, port?, last?, protocol?).map_err(Problem::from);
    fields.take(field("address"), vip)
}

fn backend(at: usize, message: &api::Backend, fields: &mut Fields<'_>) -> Option<Backend> {
    let field = |name| format!("backends[{at}].{name}");
    let address = fields.take(field("address"), address(&message.address));
    let weight = u16::try_from(message.weight).ok().and_then(Weight::new);
    let weight = weight.ok_or(Problem::Weight(message.weight));
    let weight = fields.take(field("weight"), weight);
    let state = fields.take(field("state"), backend_state(message.state));
    let port = u16::try_from(message.port).map_err(|_| Problem::Port(message.port));
    let port = fields.take(field("port"), port);
    let health = fields.take(field("health"), health_from_proto(message.health.as_ref()));
    let address = address?;
    let name = match message.name.as_str() {
        "" => address.to_string(),
        name => name.to_owned(),
    };
    Some(Backend {
        name,
        address,
        weight: weight?,
        state: state?,
        port: NonZeroU16::new(port?),
        health: health?,
    })
}

fn address(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::Address(text.to_owned()))
}

fn mode(message: &api::Service, fields: &mut Fields<'_>) -> Option<Mode> {
    match api::Mode::try_from(message.mode) {
        Ok(api::Mode::Tunnel) => {
            let port = message.gue_port;
            let port = u16::try_from(port).map_err(|_| Problem::Port(port));
            let port = NonZeroU16::new(fields.take("gue_port", port)?);
            Some(Mode::Tunnel(port.map_or(Encapsulation::Ipip, |port| {
                Encapsulation::Gue { port }
            })))
        }
        Ok(api::Mode::Nat) => Some(Mode::Nat),
        Ok(api::Mode::FullNat) => Some(Mode::FullNat),
        Ok(api::Mode::Replicate) => {
            let policy = message.replicate.as_ref().ok_or(Problem::Missing);
            let policy = replicate_from_proto(fields.take("replicate", policy)?, fields)?;
            Some(Mode::Replicate(Arc::new(policy)))
        }
        Ok(api::Mode::Unspecified) => fields.take("mode", Err(Problem::Missing)),
        Err(_) => fields.take("mode", Err(Problem::Unknown(message.mode))),
    }
}

fn protocol(number: i32) -> Result<Protocol, Problem> {
    match api::Protocol::try_from(number) {
        Ok(api::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(api::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(api::Protocol::Unspecified) => Err(Problem::Missing),
        Err(_) => Err(Problem::Unknown(number)),
    }
}

fn backend_state(number: i32) -> Result<BackendState, Problem> {
    match api::BackendState::try_from(number) {
        Ok(api::BackendState::Active) => Ok(BackendState::Active),
        Ok(api::BackendState::Draining) => Ok(BackendState::Draining),
        Ok(api::BackendState::Unspecified) => Err(Problem::Missing),
        Err(_) => Err(Problem::Unknown(number)),
    }
}

fn service_to_proto(service: &Service) -> api::Service {
    let mode = match service.mode {
        Mode::Tunnel(_) => api::Mode::Tunnel,
        Mode::Nat => api::Mode::Nat,
        Mode::FullNat => api::Mode::FullNat,
        Mode::Replicate(_) => api::Mode::Replicate,
    };
    api::Service {
        name: service.name.to_string(),
        vips: service.vips.iter().map(vip_to_proto).collect(),
        mode: mode.into(),
        backends: service.backends.iter().map(backend_to_proto).collect(),
        table_size: service.table_size.get(),
        idle: Some(api::IdleTimeouts {
            tcp_syn: service.idle.tcp_syn,
            tcp_established: service.idle.tcp_established,
            tcp_fin: service.idle.tcp_fin,
            udp: service.idle.udp,
        }),
        replicate: service.mode.replicate().map(|p| replicate_to_proto(p)),
        gue_port: match service.mode {
            Mode::Tunnel(Encapsulation::Gue { port }) => port.get().into(),
            Mode::Tunnel(Encapsulation::Ipip) | Mode::Nat | Mode::FullNat | Mode::Replicate(_) => 0,
        },
        scheduler: scheduler_to_proto(service.scheduler).into(),
        guard: guard_to_proto(&service.guard),
        reset_unserved: service.unserved == plan::Unserved::Reset,
        ..api::Service::default()
    }
}

/// Writes a VIP, as status and flows have it too.
pub fn vip_to_proto(vip: &Vip) -> api::Vip {
    api::Vip {
        address: vip.address().to_string(),
        port: vip.port().into(),
        protocol: protocol_to_proto(vip.protocol()).into(),
        last_port: if vip.port() == vip.last_port() {
            0
        } else {
            vip.last_port().into()
        },
    }
}

/// A transport protocol's value.
pub const fn protocol_to_proto(protocol: Protocol) -> api::Protocol {
    match protocol {
        Protocol::Tcp => api::Protocol::Tcp,
        Protocol::Udp => api::Protocol::Udp,
    }
}

/// A backend state's value.
pub const fn backend_state_to_proto(state: BackendState) -> api::BackendState {
    match state {
        BackendState::Active => api::BackendState::Active,
        BackendState::Draining => api::BackendState::Draining,
    }
}

fn backend_to_proto(backend: &Backend) -> api::Backend {
    api::Backend {
        name: backend.name.clone(),
        address: backend.address.to_string(),
        weight: backend.weight.get().into(),
        state: backend_state_to_proto(backend.state).into(),
        port: backend.port.map_or(0, |p| p.get().into()),
        health: health_to_proto(backend.health),
        ..api::Backend::default()
    }
}

#[cfg(test)]
mod tests;
