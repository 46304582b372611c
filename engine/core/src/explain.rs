//! Why a packet goes where it goes, in sentences, by the same functions that forward it.

mod cookies;
mod guard;
mod seen;
mod unusual;

pub use seen::{Seen, as_received, seen};

use crate::dataplane::{KnownFlow, admit, reason};
use crate::schedule::{LEAST_OF_ALL, LEAST_OF_SOME, Selected};
use crate::tables::{BackendRef, Delivery, Member, Ring, Tables, Translation};
use crate::tracking::{self, Segment, Transition};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use lockstep_plan::{BackendState, Commit, DropReason, Protocol, Replicate, Scheduler, Unserved};
use lockstep_wire::{FlowKey, Headers, ParseError};

/// What would become of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes to this backend.
    Forward {
        /// The service's name.
        service: String,
        /// The backend's name.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// It is none of ours: the XDP program leaves it to the kernel.
    Pass,
    /// It goes to a session of the engine's own.
    Session,
    /// It is a backend's answer, and goes to the client.
    Answer {
        /// The service's name.
        service: String,
        /// The client.
        client: SocketAddr,
    },
    /// The engine answers it itself.
    Reply,
    /// It depends on packets that came before.
    Unsettled,
    /// It was sent on, by tables that are no longer in force: to whom cannot be told.
    Sent,
    /// It is dropped.
    Drop(DropReason),
}

/// A fate with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What would become of the packet.
    pub fate: Fate,
    /// The service concerned, when the packet is for one.
    pub service: Option<String>,
    /// The packet in short.
    pub packet: String,
    /// The reasoning, a sentence per step, in the order of a packet's walk.
    pub steps: Vec<String>,
}

/// The flow of a frame, for looking it up in the flow tables: of an ICMP error, the one that it
/// quotes, as its client sends it.
pub fn flow_of(frame: &[u8]) -> Option<FlowKey> {
    match lockstep_wire::parse(frame) {
        Ok(headers) => Some(headers.key),
        Err(error) => unusual::flow_of(frame, error),
    }
}

/// Explains a frame, from its Ethernet header on, as a network carries it.
///
/// `ports` are the interfaces' names, in the order of [`crate::PortId`]; `known` is the flow's
/// entry where a worker has one ([`crate::Dataplane::known`]).
pub fn frame(
    tables: &Tables,
    ports: &[&str],
    frame: &[u8],
    known: Option<KnownFlow>,
) -> Explanation {
    match lockstep_wire::parse(frame) {
        Ok(headers) => {
            let mut steps = alloc::vec![format!(
                "parsed: IP packet of {} bytes at offset {}",
                headers.length, headers.network
            )];
            let fate = walk(
                tables,
                ports,
                &headers.key,
                Some(&headers),
                known,
                &mut steps,
            );
            finish(tables, fate, &headers.key, steps)
        }
        Err(error) => unusual::explain(tables, ports, frame, error, known),
    }
}

/// The fate of a frame that the engine does not parse: the XDP program steers only what is for a
/// VIP's or an engine address.
fn refused(tables: &Tables, frame: &[u8], error: ParseError) -> (Fate, String) {
    let reason = reason(error);
    let passes = |why: &str| {
        let step = format!("{error}{why}: the XDP program leaves it to the kernel");
        (Fate::Pass, step)
    };
    let ours = |address| {
        tables.is_engine_address(address) || tables.vips().any(|(_, v, _)| v.address() == address)
    };
    match lockstep_wire::destination(frame) {
        _ if matches!(reason, DropReason::NotIp | DropReason::NotTransport) => passes(""),
        None => passes(", and no destination address can be read"),
        Some(address) if !ours(address) => passes(&format!(
            ", but {address} has no VIP and is no engine address"
        )),
        Some(address) => {
            let step = format!("{error}: dropped as {reason} when it is for a VIP of {address}");
            (Fate::Drop(reason), step)
        }
    }
}

/// Explains a packet given by its addresses alone.
pub fn tuple(
    tables: &Tables,
    ports: &[&str],
    key: &FlowKey,
    known: Option<KnownFlow>,
) -> Explanation {
    let mut steps = Vec::new();
    let fate = walk(tables, ports, key, None, known, &mut steps);
    finish(tables, fate, key, steps)
}

fn finish(tables: &Tables, fate: Fate, key: &FlowKey, steps: Vec<String>) -> Explanation {
    let tuple = Tuple::of(key);
    let vip = tables.vip(tuple.to.ip(), tuple.to.port(), tuple.protocol);
    let service = match &fate {
        Fate::Forward { service, .. } | Fate::Answer { service, .. } => Some(service.clone()),
        Fate::Pass | Fate::Session | Fate::Reply | Fate::Unsettled | Fate::Sent | Fate::Drop(_) => {
            vip.and_then(|v| tables.service_name(v))
        }
    };
    Explanation {
        fate,
        service,
        packet: tuple.to_string(),
        steps,
    }
}

fn walk(
    tables: &Tables,
    ports: &[&str],
    key: &FlowKey,
    headers: Option<&Headers>,
    known: Option<KnownFlow>,
    steps: &mut Vec<String>,
) -> Fate {
    let tuple = Tuple::of(key);
    if let Some(fate) = answer(tables, &tuple, known, steps) {
        return fate;
    }
    let vip = tables.vip(tuple.to.ip(), tuple.to.port(), tuple.protocol);
    let Some(ring) = vip.and_then(|v| tables.ring(v)) else {
        let name = tuple.protocol_name();
        if tables.is_session(tuple.to.ip(), tuple.to.port(), tuple.protocol) {
            steps.push(format!(
                "{} is an engine address and a port of connections to replicas: the packet goes \
                 to the session of that connection, or is dropped as {} where there is none",
                tuple.to,
                DropReason::NoSession
            ));
            return Fate::Session;
        }
        if tables.is_engine_address(tuple.to.ip()) {
            steps.push(format!(
                "{} is an engine address and no session has this flow",
                tuple.to
            ));
            return Fate::Drop(DropReason::NoSession);
        }
        steps.push(format!(
            "{}/{name} is no VIP of the snapshot with epoch {}: left to the kernel",
            tuple.to,
            tables.epoch()
        ));
        return Fate::Pass;
    };
    steps.push(format!(
        "{}/{} is a VIP of service {}",
        tuple.to,
        tuple.protocol_name(),
        ring.name
    ));
    if let Some(fate) = guard::guard(ring, tuple.from.ip(), steps) {
        return fate;
    }
    if let Some(flow) = known
        && let Some((ring, backend)) = keep(tables, key, headers, flow, steps)
    {
        return reach(tables, ports, ring, backend, (headers, known), steps);
    }
    if let Some(policy) = &ring.replicate {
        steps.push(replicates(ring, policy));
        return Fate::Session;
    }
    if known.is_none() {
        steps.push("the flow table does not have it: a new flow".to_string());
    }
    // Addresses alone, of a flow that is not known, are a new connection's.
    let first = headers.map_or(Segment::Open, |_| segment(key, headers));
    let flags = headers.map(|h| h.tcp);
    match choose(tables, ring, key, first, steps) {
        Some(backend) => match cookies::cookies(tables, backend, (first, flags), steps) {
            Some(fate) => fate,
            None => reach(tables, ports, ring, backend, (headers, None), steps),
        },
        None => {
            steps.push(format!(
                "service {} has no backend that takes flows",
                ring.name
            ));
            if ring.unserved == Unserved::Reset {
                steps.push(told(key));
            }
            Fate::Drop(DropReason::NoBackend)
        }
    }
}

/// How the sender of a packet hears that there is no backend.
fn told(key: &FlowKey) -> String {
    let is_tcp = match key {
        FlowKey::V4(key) => key.protocol == Protocol::Tcp.number(),
        FlowKey::V6(key) => key.protocol == Protocol::Tcp.number(),
    };
    let how = match is_tcp {
        true => "a RST",
        false => "an ICMP error: port unreachable",
    };
    format!(
        "all_down = \"reset\": it is dropped, and its sender gets {how}, as far as the rate allows"
    )
}

/// The fate of what a backend of a rewriting service answers.
fn answer(
    tables: &Tables,
    tuple: &Tuple,
    known: Option<KnownFlow>,
    steps: &mut Vec<String>,
) -> Option<Fate> {
    let (from, name) = (tuple.from, tuple.protocol_name());
    if let Some(flow) = known.filter(|flow| flow.is_answer) {
        let ring = tables
            .rings()
            .iter()
            .find(|r| r.member(flow.backend).is_some())?;
        steps.push(format!(
            "the flow table has it: an answer of backend {} of service {} ({}, last packet {} s \
             ago)",
            ring.member(flow.backend).map(label).unwrap_or_default(),
            ring.name,
            flow.state.name(),
            flow.idle
        ));
        steps.push(format!(
            "rewritten: from {} to {}, and sent the way that the client's packets come",
            flow.vip, flow.client
        ));
        return Some(Fate::Answer {
            service: ring.name.to_string(),
            client: flow.client,
        });
    }
    let is_vip = tables
        .vip(tuple.to.ip(), tuple.to.port(), tuple.protocol)
        .is_some();
    if known.is_some() || is_vip || !tables.is_answer(from.ip(), from.port(), tuple.protocol) {
        return None;
    }
    steps.push(format!(
        "{from}/{name} is a backend of a service that rewrites, and no flow has this answer: \
         the XDP program leaves it to the kernel where it is for this host, the engine drops it as \
         {} otherwise",
        DropReason::NoFlow
    ));
    Some(Fate::Drop(DropReason::NoFlow))
}

fn replicates(ring: &Ring, policy: &Replicate) -> String {
    let backends = ring.members.len();
    let commit = match policy.commit {
        Commit::Primary => "what the primary answers".to_string(),
        Commit::Quorum(quorum) => format!("what {quorum} of them answer alike"),
    };
    format!(
        "the service replicates: the packet goes to a session, all {backends} backends get what \
         the client sends and the client gets {commit}"
    )
}

/// The service and the backend of a flow's entry, when the dataplane goes by it.
fn keep<'a>(
    tables: &'a Tables,
    key: &FlowKey,
    headers: Option<&Headers>,
    flow: KnownFlow,
    steps: &mut Vec<String>,
) -> Option<(&'a Ring, BackendRef)> {
    let state = flow.state.name();
    let found = tables
        .hop(flow.backend)
        .and_then(|_| owner(tables, key, flow.backend));
    let Some((ring, member)) = found else {
        steps.push(format!(
            "the flow table has it ({state}), but its backend or its VIP is gone: chosen afresh"
        ));
        return None;
    };
    match tracking::next(flow.state, segment(key, headers)) {
        Transition::To(_) => {
            steps.push(format!(
                "the flow table has it: {state}, last packet {} s ago, backend {}",
                flow.idle,
                label(member)
            ));
            Some((ring, flow.backend))
        }
        Transition::Restart => {
            steps.push(format!(
                "the flow table has it ({state}), and this opens a new connection: chosen afresh"
            ));
            None
        }
    }
}

/// The service whose flow an entry is, by its backend: of the VIP of this port, or of a wider one,
/// which an entry keeps when its port gets a VIP of its own.
fn owner<'a>(
    tables: &'a Tables,
    key: &FlowKey,
    backend: BackendRef,
) -> Option<(&'a Ring, &'a Member)> {
    let Tuple { protocol, to, .. } = Tuple::of(key);
    tables
        .vip_candidates(to.ip(), to.port(), protocol)
        .filter_map(|vip| tables.ring(vip))
        .filter(|ring| ring.replicate.is_none())
        .find_map(|ring| Some((ring, ring.member(backend)?)))
}

/// What the packet does to tracking. A 5-tuple alone stands for a packet in the middle of a
/// connection.
fn segment(key: &FlowKey, headers: Option<&Headers>) -> Segment {
    if Tuple::of(key).protocol == Protocol::Tcp.number() {
        headers.map_or(Segment::Data, |h| Segment::of_tcp(h.tcp))
    } else {
        Segment::Datagram
    }
}

fn choose(
    tables: &Tables,
    ring: &Ring,
    key: &FlowKey,
    segment: Segment,
    steps: &mut Vec<String>,
) -> Option<BackendRef> {
    let hash = key.selection_hash(ring.scheduler);
    if let Some(backend) = tables.backend_before(ring, hash, segment) {
        steps.push(format!(
            "it is from the middle of a connection, and the service's backends changed a short \
             while ago: by the ring before that, so that connections another balancer had stay: \
             backend {}",
            ring.member(backend).map(label).unwrap_or_default()
        ));
        return Some(backend);
    }
    let backend = ring.select(hash)?;
    let entry = ((hash >> 32) * u64::from(ring.table_entries())) >> 32;
    let name = ring.member(backend).map(label).unwrap_or_default();
    let hashed = match ring.scheduler {
        Scheduler::Maglev => "hash",
        Scheduler::SourceHash => "the client's address alone has hash",
        Scheduler::RoundRobin | Scheduler::LeastConnections | Scheduler::Random => {
            steps.push(unpredictable(ring));
            "hash"
        }
    };
    steps.push(format!(
        "Maglev: {hashed} {hash:#018x} is entry {entry} of {}: backend {name}",
        ring.table_entries()
    ));
    Some(backend)
}

/// What a scheduler would do that decides by more than the packet.
fn unpredictable(ring: &Ring) -> String {
    let active = ring.members.iter();
    let active = active.filter(|m| m.backend.state == BackendState::Active);
    let how = match (ring.scheduler, active.count()) {
        (Scheduler::RoundRobin, _) => "the next one in turn of the worker it comes to".to_string(),
        (Scheduler::LeastConnections, active) if active > LEAST_OF_ALL => format!(
            "the one with the fewest flows for its weight, of {LEAST_OF_SOME} drawn by the worker \
             it comes to"
        ),
        (Scheduler::LeastConnections, _) => {
            "the one with the fewest flows for its weight on the worker it comes to".to_string()
        }
        (Scheduler::Random | Scheduler::Maglev | Scheduler::SourceHash, _) => {
            "one drawn by weight".to_string()
        }
    };
    format!(
        "scheduler {}: the packet that opens a flow goes to {how}, which cannot be predicted; any other \
         packet without an entry goes by the hash, as here",
        ring.scheduler.name()
    )
}

fn reach(
    tables: &Tables,
    ports: &[&str],
    ring: &Ring,
    backend: BackendRef,
    (headers, known): (Option<&Headers>, Option<KnownFlow>),
    steps: &mut Vec<String>,
) -> Fate {
    let (Some(hop), Some(member)) = (tables.hop(backend), ring.member(backend)) else {
        return Fate::Drop(DropReason::NoBackend);
    };
    let route = match (headers, hop.route) {
        (Some(headers), _) => admit(hop, headers).copied(),
        (None, route) => route,
    };
    match route {
        Ok(route) => {
            let vlan = route
                .link
                .vlan
                .map(|v| format!(", VLAN {v}"))
                .unwrap_or_default();
            let how = match &hop.delivery {
                Delivery::Tunnel(outer) => format!("tunnelled in {} more bytes", outer.len()),
                Delivery::Nat(to) => rewritten(to, None),
                Delivery::FullNat(to) => {
                    let from = known.and_then(|flow| flow.inside).map(|(from, _)| from);
                    rewritten(to, Some(from))
                }
                Delivery::Session => "given to a session".to_string(),
            };
            steps.push(format!(
                "{how} to next hop {} by {} (MTU {}{vlan})",
                mac(route.link.destination),
                ports
                    .get(usize::from(route.port.0))
                    .unwrap_or(&"an unknown interface"),
                route.mtu
            ));
            Fate::Forward {
                service: ring.name.to_string(),
                name: member.backend.name.clone(),
                address: member.backend.address,
            }
        }
        Err(reason) => {
            steps.push(format!("{}: {}", reason, reason.help()));
            Fate::Drop(reason)
        }
    }
}

/// What becomes of a packet's ends. In full NAT also the client's: an address and port of the
/// engine, which are known when the flow is.
fn rewritten(to: &Translation, source: Option<Option<SocketAddr>>) -> String {
    let destination = match to.port {
        Some(port) => SocketAddr::new(to.address, port.get()).to_string(),
        None => format!("{}, at the port that the client names,", to.address),
    };
    match source {
        None => format!("rewritten to {destination}"),
        Some(Some(source)) => format!("rewritten to {destination} from {source}"),
        Some(None) => format!("rewritten to {destination} from a free port of the engine"),
    }
}

fn label(member: &Member) -> String {
    let state = match member.backend.state {
        BackendState::Active => "",
        BackendState::Draining => ", draining",
    };
    if member.backend.name == member.backend.address.to_string() {
        format!("{}{state}", member.backend.name)
    } else {
        format!(
            "{} ({}{state})",
            member.backend.name, member.backend.address
        )
    }
}

fn mac(address: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = address;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// A flow key as people write it.
struct Tuple {
    protocol: u8,
    from: SocketAddr,
    to: SocketAddr,
}

impl Tuple {
    fn of(key: &FlowKey) -> Self {
        let (protocol, source, from, destination, to) = match key {
            FlowKey::V4(k) => (
                k.protocol,
                k.source_address(),
                k.source_port(),
                k.destination_address(),
                k.destination_port(),
            ),
            FlowKey::V6(k) => (
                k.protocol,
                k.source_address(),
                k.source_port(),
                k.destination_address(),
                k.destination_port(),
            ),
        };
        Tuple {
            protocol,
            from: SocketAddr::new(source, from),
            to: SocketAddr::new(destination, to),
        }
    }

    fn protocol_name(&self) -> String {
        match Protocol::from_number(self.protocol) {
            Some(protocol) => protocol.to_string(),
            None => self.protocol.to_string(),
        }
    }
}

impl core::fmt::Display for Tuple {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {} > {}", self.protocol_name(), self.from, self.to)
    }
}

#[cfg(test)]
mod tests;
