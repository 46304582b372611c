//! What follows from what is known of the cluster: the pure parts, put together.

use k8s_openapi::jiff::{Timestamp, Unit};
use lockstep_ctl_core::announce::ways::Advertisements;
use lockstep_ctl_core::kubernetes::access::{Way, ways};
use lockstep_ctl_core::kubernetes::advertise::advertised;
use lockstep_ctl_core::kubernetes::allocate::{Allocation, allocate};
use lockstep_ctl_core::kubernetes::dire::{self, Sessions};
use lockstep_ctl_core::kubernetes::gateway;
use lockstep_ctl_core::kubernetes::translate::{Translator, is_ours};
use lockstep_ctl_core::kubernetes::{Change, Settings, World, Write, status};
use lockstep_ctl_core::services::sources::Offer;
use lockstep_kubernetes::facts::{Name, Service};
use std::collections::BTreeSet;

/// See the module.
pub struct Mind {
    settings: Settings,
    /// What is to be served, Service by Service.
    pub translator: Translator,
    /// What the leader has decided last; empty where this daemon does not lead.
    pub allocation: Allocation,
    /// How the addresses are announced.
    advertised: Advertisements,
    new: bool,
}

impl Mind {
    /// Of a daemon with these settings.
    pub fn new(settings: Settings) -> Self {
        Mind {
            settings,
            translator: Translator::default(),
            allocation: Allocation::default(),
            advertised: Advertisements::new(),
            new: true,
        }
    }

    /// Follows the world. Returns whether something else is to be served now.
    pub fn update(&mut self, world: &mut World) -> bool {
        let served = self.translator.update(world, &self.settings);
        let advertised = advertised(world, &self.settings);
        let differs = advertised != self.advertised;
        self.advertised = advertised;
        served || differs
    }

    /// Whether nothing was offered yet.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// All that is to be served.
    pub fn offer(&mut self, _world: &World) -> Offer {
        self.new = false;
        Offer {
            advertised: self.advertised.clone(),
            ..self.translator.offer()
        }
    }

    /// What is to be written.
    pub fn writes(&mut self, world: &World) -> Vec<Write> {
        self.allocation = allocate(world, &self.settings);
        // Times in objects have seconds.
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now);
        let (allocation, translator) = (&self.allocation, &self.translator);
        let text = now.to_string();
        let mut writes = status::writes(world, allocation, translator, &self.settings, &text);
        writes.extend(dire::writes(world, &self.settings, now));
        writes.extend(gateway::writes(world, &self.settings, now));
        known(writes)
    }

    /// What this balancer alone knows, and writes whoever leads.
    pub fn parts(&self, world: &World, sessions: &Sessions, balancer: &str) -> Vec<Write> {
        known(dire::parts(world, sessions, balancer, Timestamp::now()))
    }

    /// Whether a Service is for us.
    pub fn is_ours(&self, service: &Service) -> bool {
        is_ours(service, &self.settings)
    }

    /// The endpoints of a Service on this node that take new flows.
    pub fn local_endpoints(&self, world: &World, name: &Name) -> usize {
        let Some(node) = self.settings.node.as_deref() else {
            return 0;
        };
        let slices = world.slices.get(name).into_iter().flat_map(|s| s.values());
        let here = slices
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| {
                endpoint.ready && !endpoint.terminating && endpoint.node.as_deref() == Some(node)
            });
        let pods: BTreeSet<_> = here.map(|endpoint| endpoint.address).collect();
        pods.len()
    }

    /// Whether the world has the object that a change is about.
    pub fn has(&self, world: &World, change: &Change) -> bool {
        match change {
            Change::Service(name, _) => world.services.contains_key(name),
            Change::Slice(name, slice) => {
                let owner = slice.as_ref().and_then(|slice| slice.service.as_ref());
                let slices = owner.and_then(|owner| world.slices.get(owner));
                slices.is_some_and(|slices| slices.contains_key(name))
            }
            Change::Pool(name, _) => world.pools.contains_key(name),
            Change::Advertisement(name, _) => world.advertisements.contains_key(name),
            Change::Namespace(name, _) => world.namespaces.contains_key(name),
            Change::Node(name, _) => world.nodes.contains_key(name),
            Change::Dire(name, _) => world.dires.contains_key(name),
            Change::Deployment(name, _) => world.deployments.contains_key(name),
            Change::Pod(name, _) => world.pods.contains_key(name),
            Change::GatewayClass(name, _) => world.gateway_classes.contains_key(name),
            Change::Gateway(name, _) => world.gateways.contains_key(name),
            Change::TcpRoute(name, _) => world.tcp_routes.contains_key(name),
            Change::UdpRoute(name, _) => world.udp_routes.contains_key(name),
            Change::Grant(name, _) => world.grants.contains_key(name),
        }
    }
}

/// The same writes: of each kind there are only those that [`ways`] says, and roles allow.
fn known(writes: Vec<Write>) -> Vec<Write> {
    for write in &writes {
        debug_assert!(is_known(write), "no role allows this: {write:?}");
    }
    writes
}

fn is_known(write: &Write) -> bool {
    let (kind, known): (_, &[Way]) = match write {
        Write::Apply { object, status, .. } => match status {
            true => (object.kind, &[Way::Status]),
            false => (object.kind, &[Way::Make, Way::Apply]),
        },
        Write::Part { object, .. } => (object.kind, &[Way::Status]),
        Write::Annotate { object, .. } => (object.kind, &[Way::Make, Way::Apply]),
        Write::Delete { object, .. } => (object.kind, &[Way::Delete]),
        Write::Event(_) => return true,
    };
    ways(kind).iter().any(|way| known.contains(way))
}
