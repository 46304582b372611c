//! Which route is attached to which listener, and what stands in the way of the others.

use crate::kubernetes::verdict::Verdict;
use crate::kubernetes::{Settings, World, selector};
use lockstep_kubernetes::facts::gateway::{
    BackendRef, GROUP, Gateway, Listener, ParentRef, Route, RouteKind,
};
use lockstep_kubernetes::facts::{Name, Protocol};
use std::collections::BTreeMap;

/// Gateways of ours, and the routes that name one of them.
pub struct Model<'a> {
    /// Gateways, by name.
    pub gateways: Vec<GatewayView<'a>>,
    /// Routes, the oldest first.
    pub routes: Vec<RouteView<'a>>,
}

/// A Gateway.
pub struct GatewayView<'a> {
    /// Its name.
    pub name: &'a Name,
    /// The object.
    pub object: &'a Gateway,
    /// Its listeners.
    pub listeners: Vec<ListenerView<'a>>,
}

/// A listener.
pub struct ListenerView<'a> {
    /// As it is asked for.
    pub listener: &'a Listener,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its port; 0 where it has none that is one.
    pub port: u16,
    /// The kinds of routes that it takes.
    pub kinds: Vec<RouteKind>,
    /// Why it is not what is asked for.
    pub problem: Option<Problem>,
    /// The listeners that it contradicts, as they contradict it.
    pub conflicts: Vec<&'a str>,
    /// Kinds that it names and that cannot be attached to it.
    pub odd_kinds: bool,
    /// The route whose Services get its flows, by its place.
    pub route: Option<usize>,
}

/// What is wrong with a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In a word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// A route that names a Gateway of ours, or did.
pub struct RouteView<'a> {
    /// Its name.
    pub name: &'a Name,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The object.
    pub object: &'a Route,
    /// Its parents that are ours: each with whether it is attached there.
    pub parents: Vec<(&'a ParentRef, Verdict)>,
    /// Whether all its Services are there.
    pub resolved: Verdict,
}

fn kind_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "UDPRoute",
        Protocol::Tcp | Protocol::Other => "TCPRoute",
    }
}

impl<'a> Model<'a> {
    /// Of all objects.
    pub fn of(world: &'a World, settings: &Settings) -> Self {
        let ours = |gateway: &&Gateway| {
            let class = world.gateway_classes.get(&gateway.spec.gateway_class_name);
            let controller = class.map(|class| &class.spec.controller_name);
            controller == Some(&settings.gateway_controller)
                && gateway.metadata.deletion_timestamp.is_none()
        };
        let gateways = world.gateways.iter();
        let gateways = gateways.filter(|(_, gateway)| ours(&gateway.as_ref()));
        let mut gateways: Vec<GatewayView<'a>> = gateways
            .map(|(name, gateway)| view(name, gateway))
            .collect();
        let tcp = world.tcp_routes.iter().map(|r| (Protocol::Tcp, r));
        let udp = world.udp_routes.iter().map(|r| (Protocol::Udp, r));
        let mut all: Vec<_> = tcp.chain(udp).collect();
        all.retain(|(_, (_, route))| route.metadata.deletion_timestamp.is_none());
        // Of several routes at a listener the oldest one has it, then the first one by name.
        all.sort_by_key(|(protocol, (name, route))| {
            let created = route.metadata.creation_timestamp.as_ref();
            (created.map(|time| time.0), *name, *protocol)
        });
        let places: BTreeMap<&Name, usize> = gateways
            .iter()
            .enumerate()
            .map(|(place, gateway)| (gateway.name, place))
            .collect();
        let mut routes: Vec<RouteView<'a>> = Vec::new();
        for (protocol, (name, object)) in all {
            let mut parents = Vec::new();
            for parent in &object.spec.parent_refs {
                let gateway = gateway_of(name, parent).and_then(|g| places.get(&g).copied());
                if let Some(gateway) = gateway {
                    let attached = Attempt {
                        world,
                        name,
                        protocol,
                        parent,
                        place: routes.len(),
                    };
                    parents.push((parent, attached.at(&mut gateways[gateway])));
                }
            }
            let mut said = object.status.iter().flat_map(|status| &status.parents);
            let was = said.any(|said| said.controller_name == settings.gateway_controller);
            if !parents.is_empty() || was {
                routes.push(RouteView {
                    name,
                    protocol,
                    object,
                    parents,
                    resolved: resolved(world, name, protocol, object),
                });
            }
        }
        Model { gateways, routes }
    }
}

fn view<'a>(name: &'a Name, object: &'a Gateway) -> GatewayView<'a> {
    let listeners = object.spec.listeners.iter();
    let listeners = listeners.map(|listener| {
        let protocol = protocol_of(listener);
        let port = u16::try_from(listener.port).unwrap_or(0);
        let (kinds, odd_kinds) = kinds(listener, protocol);
        let others = object.spec.listeners.iter();
        let conflicts = others.filter(|other| conflict(listener, other));
        let conflicts: Vec<&str> = conflicts.map(|other| other.name.as_str()).collect();
        ListenerView {
            problem: problem(listener, protocol, port, &conflicts),
            listener,
            protocol,
            port,
            kinds,
            odd_kinds,
            conflicts,
            route: None,
        }
    });
    GatewayView {
        name,
        object,
        listeners: listeners.collect(),
    }
}

fn protocol_of(listener: &Listener) -> Protocol {
    match listener.protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => Protocol::Other,
    }
}

/// Whether two listeners cannot be told apart by a packet: neither of them is served then, since
/// nothing says which one was meant (Gateway API, "Distinct Listeners"). All but UDP go by TCP; what
/// protocols above it do to each other is their controllers' to say.
fn conflict(one: &Listener, other: &Listener) -> bool {
    let (of_one, of_other) = (protocol_of(one), protocol_of(other));
    let udp = |protocol| protocol == Protocol::Udp;
    let ours = of_one != Protocol::Other || of_other != Protocol::Other;
    one.name != other.name && one.port == other.port && udp(of_one) == udp(of_other) && ours
}

fn problem(
    listener: &Listener,
    protocol: Protocol,
    port: u16,
    conflicts: &[&str],
) -> Option<Problem> {
    let (reason, message) = if protocol == Protocol::Other {
        let message = format!(
            "protocol {} is not balanced here: TCP and UDP are; use another class for it",
            listener.protocol
        );
        ("UnsupportedProtocol", message)
    } else if port == 0 {
        let message = format!("{} is no port: ports are 1 to 65535", listener.port);
        ("PortUnavailable", message)
    } else if !conflicts.is_empty() {
        let message = format!(
            "port {port} is that of listener {} as well: give each its own",
            conflicts.join(", ")
        );
        ("PortUnavailable", message)
    } else {
        return None;
    };
    Some(Problem { reason, message })
}

/// The kinds of routes that a listener takes, and whether it names others.
fn kinds(listener: &Listener, protocol: Protocol) -> (Vec<RouteKind>, bool) {
    if protocol == Protocol::Other {
        return (Vec::new(), false);
    }
    let fitting = RouteKind {
        group: Some(GROUP.to_owned()),
        kind: kind_of(protocol).to_owned(),
    };
    let named = listener.allowed_routes.as_ref().map(|a| &*a.kinds);
    let named = named.unwrap_or_default();
    let fits = |kind: &RouteKind| {
        kind.group.as_deref().unwrap_or(GROUP) == GROUP && kind.kind == fitting.kind
    };
    let odd = named.iter().any(|kind| !fits(kind));
    let taken = named.is_empty() || named.iter().any(fits);
    (taken.then_some(fitting).into_iter().collect(), odd)
}

fn gateway_of(route: &Name, parent: &ParentRef) -> Option<Name> {
    let is_gateway = parent.to.is_of(GROUP, "Gateway");
    is_gateway.then(|| parent.to.named_in(&route.namespace))
}

/// A route at one of its parents.
struct Attempt<'a> {
    world: &'a World,
    name: &'a Name,
    protocol: Protocol,
    parent: &'a ParentRef,
    place: usize,
}

impl Attempt<'_> {
    fn at(&self, gateway: &mut GatewayView<'_>) -> Verdict {
        let verdict = |holds, reason, message: &str| Verdict {
            kind: "Accepted",
            holds,
            reason,
            message: message.to_owned(),
        };
        let (name, section, port) = (gateway.name, &self.parent.section_name, self.parent.to.port);
        let meant = |l: &&mut ListenerView<'_>| {
            let named = section.as_ref().is_none_or(|name| *name == l.listener.name);
            named && port.is_none_or(|port| port == l.listener.port)
        };
        let mut meant: Vec<_> = gateway.listeners.iter_mut().filter(meant).collect();
        if meant.is_empty() {
            let message =
                format!("Gateway {name} has no listener that is meant: check sectionName and port");
            return verdict(false, "NoMatchingParent", &message);
        }
        meant.retain(|listener| self.is_allowed(name, listener));
        if meant.is_empty() {
            let message = format!(
                "the listeners of Gateway {name} that are meant take no {}s of namespace {}: see \
                 their protocol and allowedRoutes",
                kind_of(self.protocol),
                self.name.namespace
            );
            return verdict(false, "NotAllowedByListeners", &message);
        }
        meant.retain(|l| l.problem.is_none());
        if meant.is_empty() {
            let message = format!(
                "no listener of Gateway {name} that is meant is served: its status.listeners say why"
            );
            return verdict(false, "NoMatchingParent", &message);
        }
        let mut attached = false;
        for listener in meant {
            // An older route may be there.
            let route = *listener.route.get_or_insert(self.place);
            attached |= route == self.place;
        }
        if attached {
            verdict(true, "Accepted", "its listeners send to its Services")
        } else {
            let message = "an older route has every listener that is meant: a listener of TCP or UDP \
                           sends to one route; delete that one, or name another listener";
            verdict(false, "ListenerInUse", message)
        }
    }

    fn is_allowed(&self, gateway: &Name, listener: &ListenerView<'_>) -> bool {
        // Of what it takes there is one kind, that of its protocol.
        if listener.kinds.is_empty() || listener.protocol != self.protocol {
            return false;
        }
        let allowed = listener.listener.allowed_routes.as_ref();
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.and_then(|n| n.from.as_deref()).unwrap_or("Same");
        match from {
            "All" => true,
            "Same" => gateway.namespace == self.name.namespace,
            "Selector" => {
                let selector = namespaces.and_then(|n| n.selector.as_ref());
                let namespace = self.world.namespaces.get(&*self.name.namespace);
                let pair = selector.zip(namespace);
                pair.is_some_and(|(s, n)| selector::matches(s, &n.labels))
            }
            _ => false,
        }
    }
}

/// Whether all Services of a route are there, and may be sent to.
fn resolved(world: &World, name: &Name, protocol: Protocol, route: &Route) -> Verdict {
    let verdict = |holds, reason, message| Verdict {
        kind: "ResolvedRefs",
        holds,
        reason,
        message,
    };
    for reference in references(route) {
        if let Err((reason, message)) = service_of(world, name, protocol, reference) {
            return verdict(false, reason, message);
        }
    }
    let message = "its Services are there".to_owned();
    verdict(true, "ResolvedRefs", message)
}

/// The Services that a route names.
pub fn references(route: &Route) -> impl Iterator<Item = &BackendRef> {
    // Routes of TCP and UDP have one rule: there is nothing in a packet to tell more apart by.
    route
        .spec
        .rules
        .iter()
        .take(1)
        .flat_map(|r| &r.backend_refs)
}

/// The Service that is meant, and its port.
pub fn service_of(
    world: &World,
    route: &Name,
    protocol: Protocol,
    reference: &BackendRef,
) -> Result<(Name, usize), (&'static str, String)> {
    let reference = &reference.to;
    if !reference.is_of("", "Service") {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or_default();
        let message = format!("{kind} {group} is not sent to: name a Service");
        return Err(("InvalidKind", message));
    }
    let name = reference.named_in(&route.namespace);
    if route.namespace != name.namespace && !is_granted(world, route, kind_of(protocol), &name) {
        let message = format!(
            "Service {name} is of another namespace, and no ReferenceGrant there allows {} of {} to \
             send to it",
            kind_of(protocol),
            route.namespace
        );
        return Err(("RefNotPermitted", message));
    }
    let Some(service) = world.services.get(&name) else {
        return Err(("BackendNotFound", format!("there is no Service {name}")));
    };
    let port = service
        .ports
        .iter()
        .position(|port| Some(i32::from(port.port)) == reference.port && port.protocol == protocol);
    let port = port.ok_or_else(|| {
        let port = reference.port.map_or("none".to_owned(), |p| p.to_string());
        let message = format!("Service {name} has no such port of this protocol: {port}");
        ("BackendNotFound", message)
    })?;
    Ok((name, port))
}

fn is_granted(world: &World, route: &Name, kind: &str, service: &Name) -> bool {
    let grants = world.grants.range(Name::new(&service.namespace, "")..);
    let mut grants = grants.take_while(|(name, _)| name.namespace == service.namespace);
    grants.any(|(_, grant)| {
        let from = grant.spec.from.iter().any(|from| {
            (&*from.group, &*from.kind, &*from.namespace) == (GROUP, kind, &*route.namespace)
        });
        let to = grant.spec.to.iter().any(|to| {
            let named = to.name.as_ref().is_none_or(|name| **name == *service.name);
            to.group.is_empty() && to.kind == "Service" && named
        });
        from && to
    })
}
