//! The plan's types to those of the gRPC interface and back.

use lockstep_api as api;
use lockstep_ctl_core::spread::{Priority, Spread, Spreads};
use lockstep_plan::{
    Backend, BackendId, BackendState, Encapsulation, IdleTimeouts, Mode, PlanError, Protocol,
    Service, ServiceName, Snapshot, TableSize, Unserved, Vip, Weight,
};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

mod guard;
mod replicate;

use guard::{guard_from_proto, guard_to_proto, scheduler_from_proto, scheduler_to_proto};
pub use replicate::health_to_proto;
use replicate::{health_from_proto, replicate_from_proto, replicate_to_proto};

/// Why a message is not a snapshot. Only another version of Lockstep, or a bug, sends one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that no plan can have.
    #[error(
        "{field} {value:?} is not one this version knows; use one version of Lockstep throughout"
    )]
    Field {
        /// The message and its field.
        field: &'static str,
        /// What stood there.
        value: String,
    },
    /// Services that cannot stand together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Plan(Vec<PlanError>),
}

fn refused(field: &'static str, value: impl ToString) -> ConvertError {
    ConvertError::Field {
        field,
        value: value.to_string(),
    }
}

/// A snapshot as a message.
pub fn snapshot_to_proto(snapshot: &Snapshot) -> api::Snapshot {
    api::Snapshot {
        epoch: snapshot.epoch(),
        services: snapshot.services().iter().map(service_to_proto).collect(),
    }
}

/// A message's snapshot.
///
/// # Errors
/// When a field has a value that no snapshot can have.
pub fn snapshot_from_proto(message: &api::Snapshot) -> Result<Snapshot, ConvertError> {
    let services: Result<_, _> = message.services.iter().map(service_from_proto).collect();
    Snapshot::new(message.epoch, services?).map_err(ConvertError::Plan)
}

/// Services as a file has them: with the keys that an engine is not told.
pub fn described(epoch: u64, services: &[Service], spreads: &Spreads) -> api::Snapshot {
    let one = |service: &Service| {
        let mut message = service_to_proto(service);
        if let Some(spread) = spreads.get(&service.name) {
            let time = spread.slow_start.unwrap_or_default();
            message.slow_start_milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            for (message, backend) in message.backends.iter_mut().zip(&service.backends) {
                message.priority = spread.priority(backend.id()).get().into();
            }
        }
        message
    };
    api::Snapshot {
        epoch,
        services: services.iter().map(one).collect(),
    }
}

/// What [`described`] has beside the snapshot.
///
/// # Errors
/// When a field has a value that no file can have.
pub fn spreads_from_proto(message: &api::Snapshot) -> Result<Spreads, ConvertError> {
    let priority = |message: &api::Backend| {
        let priority = u8::try_from(message.priority).ok().and_then(Priority::new);
        let priority = priority.ok_or_else(|| refused("backend priority", message.priority))?;
        let address = message.address.parse();
        let address = address.map_err(|_| refused("backend address", &message.address))?;
        Ok((BackendId(address), priority))
    };
    let one = |message: &api::Service| {
        let name = ServiceName::new(&message.name);
        let name = name.ok_or_else(|| refused("service name", &message.name))?;
        let tiers = message.backends.iter().filter(|b| b.priority != 0);
        let spread = Spread {
            slow_start: Some(Duration::from_millis(message.slow_start_milliseconds))
                .filter(|time| !time.is_zero()),
            priorities: tiers.map(priority).collect::<Result<_, _>>()?,
        };
        Ok((name, spread))
    };
    message.services.iter().map(one).collect()
}

fn service_to_proto(service: &Service) -> api::Service {
    let IdleTimeouts {
        tcp_syn,
        tcp_established,
        tcp_fin,
        udp,
    } = service.idle;
    api::Service {
        name: service.name.as_str().to_owned(),
        vips: service.vips.iter().map(|&v| vip_to_proto(v)).collect(),
        mode: match service.mode {
            Mode::Tunnel(_) => api::Mode::Tunnel.into(),
            Mode::Nat => api::Mode::Nat.into(),
            Mode::FullNat => api::Mode::FullNat.into(),
            Mode::Replicate(_) => api::Mode::Replicate.into(),
        },
        backends: service.backends.iter().map(backend_to_proto).collect(),
        table_size: service.table_size.get(),
        idle: Some(api::IdleTimeouts {
            tcp_syn,
            tcp_established,
            tcp_fin,
            udp,
        }),
        replicate: service.mode.replicate().map(|p| replicate_to_proto(p)),
        gue_port: match service.mode {
            Mode::Tunnel(Encapsulation::Gue { port }) => port.get().into(),
            Mode::Tunnel(Encapsulation::Ipip) | Mode::Nat | Mode::FullNat | Mode::Replicate(_) => 0,
        },
        scheduler: scheduler_to_proto(service.scheduler).into(),
        guard: guard_to_proto(&service.guard),
        slow_start_milliseconds: 0,
        reset_unserved: service.unserved == Unserved::Reset,
    }
}

fn service_from_proto(message: &api::Service) -> Result<Service, ConvertError> {
    let mode = match message.mode() {
        api::Mode::Tunnel => Mode::Tunnel(encapsulation_from_proto(message.gue_port)?),
        api::Mode::Nat => Mode::Nat,
        api::Mode::FullNat => Mode::FullNat,
        api::Mode::Replicate => {
            let policy = message.replicate.as_ref();
            let policy = policy.ok_or_else(|| refused("service replicate", "nothing"))?;
            Mode::Replicate(Arc::new(replicate_from_proto(policy)?))
        }
        api::Mode::Unspecified => return Err(refused("service mode", message.mode)),
    };
    let idle = message
        .idle
        .map_or(IdleTimeouts::DEFAULT, |idle| IdleTimeouts {
            tcp_syn: idle.tcp_syn,
            tcp_established: idle.tcp_established,
            tcp_fin: idle.tcp_fin,
            udp: idle.udp,
        });
    let vips: Result<_, _> = message.vips.iter().map(vip_from_proto).collect();
    let backends: Result<_, _> = message.backends.iter().map(backend_from_proto).collect();
    Ok(Service {
        name: ServiceName::new(&message.name)
            .ok_or_else(|| refused("service name", &message.name))?,
        vips: vips?,
        mode,
        backends: backends?,
        table_size: TableSize::new(message.table_size)
            .ok_or_else(|| refused("service table_size", message.table_size))?,
        idle,
        scheduler: scheduler_from_proto(message.scheduler)?,
        guard: guard_from_proto(message.guard.as_ref())?,
        unserved: match message.reset_unserved {
            true => Unserved::Reset,
            false => Unserved::Drop,
        },
    })
}

fn encapsulation_from_proto(gue_port: u32) -> Result<Encapsulation, ConvertError> {
    let port = u16::try_from(gue_port).map_err(|_| refused("service gue_port", gue_port))?;
    Ok(NonZeroU16::new(port).map_or(Encapsulation::Ipip, |port| Encapsulation::Gue { port }))
}

/// A protocol as a message's number.
pub fn protocol_to_proto(protocol: Protocol) -> api::Protocol {
    match protocol {
        Protocol::Tcp => api::Protocol::Tcp,
        Protocol::Udp => api::Protocol::Udp,
    }
}

/// A message's protocol; `None` when it names none.
pub fn protocol_from_proto(message: api::Protocol) -> Option<Protocol> {
    match message {
        api::Protocol::Tcp => Some(Protocol::Tcp),
        api::Protocol::Udp => Some(Protocol::Udp),
        api::Protocol::Unspecified => None,
    }
}

fn vip_to_proto(vip: Vip) -> api::Vip {
    api::Vip {
        address: vip.address().to_string(),
        port: vip.port().into(),
        protocol: protocol_to_proto(vip.protocol()).into(),
        last_port: last_port(&vip).into(),
    }
}

/// The end of a range; 0 where there is none.
fn last_port(vip: &Vip) -> u16 {
    if vip.port() == vip.last_port() {
        0
    } else {
        vip.last_port()
    }
}

/// A message's VIP.
///
/// # Errors
/// When a field has a value that no VIP can have.
pub fn vip_from_proto(message: &api::Vip) -> Result<Vip, ConvertError> {
    let address: IpAddr = message
        .address
        .parse()
        .map_err(|_| refused("VIP address", &message.address))?;
    let port = u16::try_from(message.port).map_err(|_| refused("VIP port", message.port))?;
    let protocol = protocol_from_proto(message.protocol())
        .ok_or_else(|| refused("VIP protocol", message.protocol))?;
    let last = match message.last_port {
        0 => port,
        last => u16::try_from(last).map_err(|_| refused("VIP last_port", last))?,
    };
    Vip::with_ports(address, port, last, protocol)
        .map_err(|error| refused("VIP", format!("{address}, ports {port} to {last}: {error}")))
}

fn backend_to_proto(backend: &Backend) -> api::Backend {
    api::Backend {
        name: backend.name.clone(),
        address: backend.address.to_string(),
        weight: backend.weight.get().into(),
        state: match backend.state {
            BackendState::Active => api::BackendState::Active.into(),
            BackendState::Draining => api::BackendState::Draining.into(),
        },
        port: backend.port.map_or(0, |p| p.get().into()),
        health: health_to_proto(backend.health),
        priority: 0,
    }
}

fn backend_from_proto(message: &api::Backend) -> Result<Backend, ConvertError> {
    let weight = u16::try_from(message.weight).ok().and_then(Weight::new);
    Ok(Backend {
        name: message.name.clone(),
        address: message
            .address
            .parse()
            .map_err(|_| refused("backend address", &message.address))?,
        weight: weight.ok_or_else(|| refused("backend weight", message.weight))?,
        state: match message.state() {
            api::BackendState::Active => BackendState::Active,
            api::BackendState::Draining => BackendState::Draining,
            api::BackendState::Unspecified => return Err(refused("backend state", message.state)),
        },
        port: NonZeroU16::new(
            u16::try_from(message.port).map_err(|_| refused("backend port", message.port))?,
        ),
        health: health_from_proto(message.health.as_ref())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_plan::Health;
    use lockstep_plan::health::Verdict;

    /// Where the service that replicates stands in [`snapshot`].
    const REPLICATES: usize = 6;

    fn snapshot() -> Snapshot {
        let text = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp", "[2001:db8::10]:0/udp"]
table_size = 251
idle = { tcp_syn = "1s", tcp_established = "2s", tcp_fin = "3s", udp = "4s" }
backends = [{ address = "fd00::1", weight = 7 }, { address = "fd00::2", name = "b", weight = 0 }]

[[service]]
name = "gue"
vips = ["203.0.113.10:30000-30999/udp"]
encapsulation = "gue"
gue_port = 6081
scheduler = "wlc"
allow = ["192.0.2.0/24"]
deny = ["2001:db8::/32", "192.0.2.7"]
rate = { new_flows = 1, packets = 2 }
source_rate = { new_flows = 3, prefix_ipv4 = 4, prefix_ipv6 = 5 }
backends = [{ address = "10.0.0.1" }]

[[service]]
name = "nat"
vips = ["203.0.113.13:80/tcp"]
mode = "nat"
scheduler = "wrr"
rate = { packets = 4294967295 }
backends = [{ address = "10.0.0.1", port = 8080 }]

[[service]]
name = "full"
vips = ["203.0.113.14:80/tcp"]
mode = "full-nat"
sticky = "client"
backends = [{ address = "10.0.0.1" }]

[[service]]
name = "any"
vips = ["203.0.113.15:80/tcp"]
scheduler = "random"
backends = [{ address = "10.0.0.1" }]

[[service]]
name = "bare"
vips = ["203.0.113.11:80/tcp"]
backends = []

[[service]]
name = "game"
vips = ["203.0.113.12:80/tcp"]
mode = "replicate"
backends = [{ address = "10.0.0.1" }, { address = "fd00::2", port = 81 }]
[service.replicate]
commit = { quorum = 2 }
open_timeout = "1ms"
stall_timeout = "2ms"
dead_after = "3ms"
fin_timeout = "4ms"
orphan_timeout = "5ms"
max_lag = "6B"
grace = "7ms"
lag_timeout = "8ms"
divergence = "reset"
masks = [{ offset = 1, length = 2 }, { pattern = 'Date: .*' }]
group = "client"
proxy_protocol = true
rejoin = false
log_memory = "9KiB"
log_disk = "10B"
keepalive = "11ms"
client_timeout = "12ms"
"#;
        let mut services = lockstep_ctl_core::services::parse("t.toml", text)
            .unwrap()
            .services;
        services[REPLICATES].backends[0].health = Health {
            verdict: Verdict::Down,
            rtt: None,
        };
        services[REPLICATES].backends[1].health = Health {
            verdict: Verdict::Up,
            rtt: Some(Duration::from_micros(250)),
        };
        Snapshot::new(17, services).unwrap()
    }

    #[test]
    fn a_snapshot_reads_back_from_its_message() {
        assert_eq!(
            snapshot_from_proto(&snapshot_to_proto(&snapshot())),
            Ok(snapshot())
        );
    }

    #[test]
    fn a_described_file_reads_back_with_its_tiers_and_slow_starts() {
        let text = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp"]
slow_start = "1500ms"
backends = [{ address = "fd00::1", priority = 15 }, { address = "fd00::2" }]

[[service]]
name = "bare"
vips = ["203.0.113.11:80/tcp"]
backends = []
"#;
        let file = lockstep_ctl_core::services::parse("t.toml", text).unwrap();
        let mut message = described(3, &file.services, &file.spreads);
        assert_eq!(spreads_from_proto(&message), Ok(file.spreads));
        let snapshot = Snapshot::new(3, file.services).unwrap();
        assert_eq!(snapshot_from_proto(&message), Ok(snapshot));
        message.services[0].backends[0].priority = 16;
        assert!(spreads_from_proto(&message).is_err());
    }

    #[test]
    fn a_message_that_is_no_snapshot_is_refused_by_its_field() {
        type Damage = fn(&mut api::Service);
        let rows: [(&str, Damage); 13] = [
            ("service scheduler", |s| s.scheduler = 99),
            ("service gue_port", |s| s.gue_port = 65_536),
            ("VIP last_port", |s| s.vips[0].last_port = 65_536),
            ("service name", |s| s.name = "a b".to_owned()),
            ("service mode", |s| s.mode = 0),
            ("service table_size", |s| s.table_size = 65_536),
            ("VIP address", |s| s.vips[0].address = "x".to_owned()),
            ("VIP", |s| s.vips[0].address = "127.0.0.1".to_owned()),
            ("VIP port", |s| s.vips[0].port = 65_536),
            ("VIP protocol", |s| s.vips[0].protocol = 99),
            ("backend address", |s| {
                s.backends[0].address = "x".to_owned()
            }),
            ("backend weight", |s| s.backends[0].weight = 0),
            ("backend state", |s| s.backends[0].state = 0),
        ];
        for (expected, damage) in rows {
            let mut message = snapshot_to_proto(&snapshot());
            damage(&mut message.services[0]);
            match snapshot_from_proto(&message) {
                Err(ConvertError::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_message_that_is_no_policy_is_refused_by_its_field() {
        type Damage = fn(&mut api::Service, &mut api::Replicate);
        let rows: [(&str, Damage); 9] = [
            ("replicate quorum", |_, p| p.quorum = 256),
            ("replicate min_sync", |_, p| p.min_sync = 0),
            ("replicate divergence", |_, p| p.divergence = 0),
            ("replicate group", |_, p| p.group = 0),
            ("replicate mask", |_, p| p.masks[0].mask = None),
            ("replicate mask", |_, p| {
                p.masks[0].mask = Some(api::mask::Mask::Pattern("(".to_owned()));
            }),
            ("backend port", |s, _| s.backends[0].port = 65_536),
            ("backend health", |s, _| {
                s.backends[0].health = Some(api::Health {
                    verdict: 7,
                    rtt_microseconds: None,
                });
            }),
            ("service mode", |s, _| s.mode = 0),
        ];
        for (expected, damage) in rows {
            let mut message = snapshot_to_proto(&snapshot());
            let service = &mut message.services[REPLICATES];
            let mut policy = service.replicate.take().unwrap();
            damage(service, &mut policy);
            service.replicate = Some(policy);
            match snapshot_from_proto(&message) {
                Err(ConvertError::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn services_that_cannot_stand_together_are_refused() {
        let mut message = snapshot_to_proto(&snapshot());
        message.services[1].vips = message.services[0].vips.clone();
        let refused = snapshot_from_proto(&message);
        assert!(
            matches!(&refused, Err(ConvertError::Plan(errors)) if errors.len() == 2),
            "{refused:?}"
        );
    }
}
