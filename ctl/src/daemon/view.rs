//! What the daemon tells about itself: a copy that can be read while the actor waits for the
//! engine.

use super::clock::Clock;
use lockstep_api as api;
use lockstep_api::{BackendSpread, DaemonStatusReply, DrainStatus};
use lockstep_ctl_core::announce::{Announcements, Withheld};
use lockstep_ctl_core::drains::{Drains, Phase, Target, Timestamp};
use lockstep_ctl_core::spread::Share;
use lockstep_plan::Service;
use std::net::IpAddr;

/// The state of the daemon at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// To tell how much time is left.
    pub clock: Clock,
    /// The services file's path.
    pub services_file: String,
    /// The configuration file's path.
    pub config_file: String,
    /// The engine's socket.
    pub engine_socket: String,
    /// The last epoch that the engine is known to have in force.
    pub epoch: u64,
    /// Whether there is an engine.
    pub engine_connected: bool,
    /// Whether it has got its services since it is there.
    pub engine_settled: bool,
    /// Why the engine does not have what it should; empty when it has.
    pub engine_error: String,
    /// Why the file is not in force; empty when it is.
    pub file_error: String,
    /// Why the configuration file is not in force; empty when it is.
    pub config_error: String,
    /// Whether the whole balancer is drained.
    pub drained: bool,
    /// What is announced, and why the rest is not.
    pub announcements: Announcements,
    /// The drains under way.
    pub drains: Vec<DrainView>,
    /// The backends with a tier or a slow start.
    pub shares: Vec<Share>,
}

/// A drain, with the backend's name.
#[derive(Debug, Clone)]
pub struct DrainView {
    target: Target,
    name: String,
    phase: Phase,
}

impl DrainView {
    /// Every drain, with names from the services.
    pub fn all(drains: &Drains, services: &[Service]) -> Vec<Self> {
        let view = |(target, phase): (&Target, Phase)| DrainView::new(target, phase, services);
        drains.iter().map(view).collect()
    }

    /// A drain, with its backend's name from the services.
    pub fn new(target: &Target, phase: Phase, services: &[Service]) -> Self {
        let service = services.iter().find(|s| s.name == target.service);
        let backend = service.and_then(|s| s.backends.iter().find(|b| b.id() == target.backend));
        let name = backend.map_or_else(|| target.backend.to_string(), |b| b.name.clone());
        DrainView {
            target: target.clone(),
            name,
            phase,
        }
    }

    /// Whether the backend is removed.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Removed)
    }

    /// As a message.
    pub fn to_proto(&self, now: Timestamp) -> DrainStatus {
        let (remaining_seconds, removed) = match self.phase {
            Phase::Draining {
                deadline: Some(deadline),
            } => (deadline.since(now).as_secs_f64(), false),
            Phase::Draining { deadline: None } => (-1.0, false),
            Phase::Removed => (0.0, true),
        };
        DrainStatus {
            service: self.target.service.as_str().to_owned(),
            backend_name: self.name.clone(),
            address: self.target.backend.to_string(),
            remaining_seconds,
            removed,
        }
    }
}

impl View {
    /// Of a daemon that has only begun to start.
    pub fn new(clock: Clock) -> Self {
        View {
            clock,
            services_file: String::new(),
            config_file: String::new(),
            engine_socket: String::new(),
            epoch: 0,
            engine_connected: false,
            engine_settled: false,
            engine_error: String::new(),
            file_error: String::new(),
            config_error: String::new(),
            drained: false,
            announcements: Announcements::new(),
            drains: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// As a message.
    pub fn to_proto(&self) -> DaemonStatusReply {
        let now = self.clock.now();
        DaemonStatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.clock.uptime().as_secs_f64(),
            services_file: self.services_file.clone(),
            epoch: self.epoch,
            engine_connected: self.engine_connected,
            file_error: self.file_error.clone(),
            drains: self.drains.iter().map(|d| d.to_proto(now)).collect(),
            engine_error: self.engine_error.clone(),
            engine_socket: self.engine_socket.clone(),
            spreads: self.shares.iter().map(share_to_proto).collect(),
            config_file: self.config_file.clone(),
            config_error: self.config_error.clone(),
            drained: self.drained,
            metrics_error: String::new(),
        }
    }
}

fn share_to_proto(share: &Share) -> BackendSpread {
    BackendSpread {
        service: share.service.as_str().to_owned(),
        address: share.backend.to_string(),
        priority: share.priority.get().into(),
        tier_load: share.tier_load.into(),
        ramp: share.ramp.into(),
        weight: share.weight.get().into(),
        draining: share.draining,
    }
}

/// A VIP's address, as a message.
pub fn announcement_to_proto(
    (address, withheld): (&IpAddr, &Option<Withheld>),
) -> api::Announcement {
    let service = withheld.as_ref().and_then(Withheld::service);
    let service = service.map_or_else(String::new, |name| name.as_str().to_owned());
    api::Announcement {
        address: address.to_string(),
        withheld: withheld.as_ref().map_or("", Withheld::name).to_owned(),
        service,
    }
}
