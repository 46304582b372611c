//! What follows from what is known of the cluster: the pure parts, put together.

use super::leader::uptime;
use k8s_openapi::jiff::{Timestamp, Unit};
use lockstep_ctl_core::announce::ways::Advertisements;
use lockstep_ctl_core::kubernetes::access::{Way, ways};
use lockstep_ctl_core::kubernetes::advertise::advertised;
use lockstep_ctl_core::kubernetes::allocate::{
    Allocation, allocate_after, is_annotated, is_written,
};
use lockstep_ctl_core::kubernetes::dire::{self, Ages, Sessions};
use lockstep_ctl_core::kubernetes::gateway;
use lockstep_ctl_core::kubernetes::translate::{Translator, is_ours};
use lockstep_ctl_core::kubernetes::write::{Kind, Object};
use lockstep_ctl_core::kubernetes::{Change, Settings, World, Write, status};
use lockstep_ctl_core::services::sources::Offer;
use lockstep_kubernetes::facts::{Name, Service};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What may be written by what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct May {
    /// To Services and pools.
    pub addresses: bool,
    /// To Advertisements.
    pub advertisements: bool,
    /// To Dires and for them,
    pub dires: bool,
    /// but not in these namespaces.
    pub unknown: BTreeSet<Arc<str>>,
    /// To what is of the Gateway API, and for it.
    pub gateways: bool,
}

impl May {
    fn of_status(&self, write: &Write) -> bool {
        match object(write).kind {
            Kind::Advertisement => self.advertisements,
            _ => self.addresses,
        }
    }

    fn of_dire(&self, write: &Write) -> bool {
        self.dires && !self.unknown.contains(&object(write).name.namespace)
    }
}

fn object(write: &Write) -> &Object {
    match write {
        Write::Apply { object, .. }
        | Write::Part { object, .. }
        | Write::Annotate { object, .. }
        | Write::Delete { object, .. } => object,
        Write::Event(event) => &event.about,
    }
}

/// See the module.
pub struct Mind {
    settings: Settings,
    /// The name that the node of this balancer has, should there be one.
    guess: Option<String>,
    /// What is to be served, Service by Service.
    pub translator: Translator,
    /// What the leader has decided last; empty where this daemon does not lead.
    pub allocation: Allocation,
    /// How long it is that each balancer said something of Dires; likewise.
    ages: Ages,
    /// How the addresses are announced.
    advertised: Advertisements,
    new: bool,
}

impl Mind {
    /// Of a daemon with these settings. `guessed`: their node is one only while there is one of that
    /// name; without a node no endpoint is nearer than another.
    pub fn new(mut settings: Settings, guessed: bool) -> Self {
        let guess = settings.node.take_if(|_| guessed);
        Mind {
            settings,
            guess,
            translator: Translator::default(),
            allocation: Allocation::default(),
            ages: Ages::default(),
            advertised: Advertisements::new(),
            new: true,
        }
    }

    /// Follows the world. Returns whether something else is to be served now.
    pub fn update(&mut self, world: &mut World) -> bool {
        if let Some(guess) = &self.guess {
            let is = world.nodes.contains_key(guess);
            self.settings.node = is.then(|| guess.clone());
        }
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

    /// Another one decides, and not by what this one has decided or seen.
    pub fn forget(&mut self) {
        self.allocation = Allocation::default();
        self.ages = Ages::default();
    }

    /// The namespaces with a Dire of ours.
    pub fn dire_namespaces(&self, world: &World) -> BTreeSet<Arc<str>> {
        dire::namespaces(world, &self.settings)
    }

    /// Whether there is something of this installation in a Service that would have to be taken back.
    pub fn has_written(&self, service: &Service) -> bool {
        is_written(service, &self.settings) || is_annotated(service, &self.settings)
    }

    /// What is to be written, of what may be.
    pub fn writes(&mut self, world: &World, may: &May) -> Vec<Write> {
        if may.addresses {
            self.allocation = allocate_after(world, &self.settings, &self.allocation);
        }
        // Times in objects have seconds.
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now);
        let (allocation, translator) = (&self.allocation, &self.translator);
        let text = now.to_string();
        let mut writes = status::writes(world, allocation, translator, &self.settings, &text);
        writes.retain(|write| may.of_status(write));
        self.ages.look(world, uptime());
        let dires = dire::writes(world, &self.settings, &self.ages, now).into_iter();
        writes.extend(dires.filter(|write| may.of_dire(write)));
        if may.gateways {
            writes.extend(gateway::writes(world, &self.settings, now));
        }
        known(writes)
    }

    /// What this balancer alone knows, and writes whoever leads.
    pub fn parts(
        &self,
        world: &World,
        sessions: &Sessions,
        balancer: &str,
        may: &May,
    ) -> Vec<Write> {
        let mut parts = dire::parts(world, &self.settings, sessions, balancer, Timestamp::now());
        parts.retain(|write| may.of_dire(write));
        known(parts)
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
