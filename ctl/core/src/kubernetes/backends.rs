//! The backends of a Service's port: its slices as one.
//!
//! | endpoint | new flows | flows it has |
//! |---|---|---|
//! | ready | yes | kept |
//! | terminating, serving | where none is ready | kept |
//! | terminating, not serving | no | kept, of TCP: many programs fail their readiness to be drained |
//! | neither ready nor terminating | no | go to another one |
//!
//! A datagram of a client that never stops would follow a pod that does not answer for ever, so UDP
//! leaves those at once, as kube-proxy does.

use lockstep_kubernetes::facts::{Endpoint, Family, Protocol, ServicePort, Slice};
use lockstep_plan::{Backend, BackendState, Health, Vip, Weight};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// Which endpoints this balancer chooses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice<'a> {
    /// The node that the balancer is on. A balancer on none has no endpoints nearer than others, so
    /// that `local` means nothing to it.
    pub node: Option<&'a str>,
    /// The zone of that node: endpoints that are meant for it are preferred.
    pub zone: Option<&'a str>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Endpoints that are not ready serve too.
    pub publish_not_ready: bool,
}

/// The backends of a port, and what was found beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gathered {
    /// In the order of their addresses.
    pub backends: Vec<Backend>,
    /// Addresses that the slices know for this port, whatever state they are in: it changes less
    /// often than the number of backends does.
    pub known: usize,
    /// Addresses that have several ports, as far as they are backends. An engine knows a backend
    /// by its address.
    pub several_ports: usize,
    /// Addresses that no packet can be sent to.
    pub unusable: usize,
}

/// The backends of a port at addresses of a family.
pub fn backends<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    choice: &Choice<'_>,
) -> Vec<Backend> {
    gather(slices, port, family, choice).backends
}

/// The same, with what else was found.
pub fn gather<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    choice: &Choice<'_>,
) -> Gathered {
    let mut found = Gathered::default();
    let mut candidates = candidates(slices, port, family, choice, &mut found.unusable);
    // Slices may have one endpoint twice while it moves: its best state counts, and of several
    // ports the lowest one.
    candidates.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    let mut known = None;
    candidates.retain(|candidate| {
        let another = known.replace(candidate.address) != Some(candidate.address);
        found.known += usize::from(another);
        is_near(candidate.endpoint, choice) && candidate.state != State::Unserved
    });
    candidates.dedup_by(|later, first| {
        let same = later.address == first.address;
        if same && later.port != first.port && !first.ports_differ {
            first.ports_differ = true;
            found.several_ports += 1;
        }
        same
    });
    let prefers = Preference::of(&candidates, choice);
    let mut names = BTreeSet::new();
    found.backends = candidates
        .iter()
        .map(|candidate| Backend {
            name: name(candidate, &mut names),
            address: candidate.address,
            weight: Weight::DEFAULT,
            state: prefers.state(candidate),
            port: candidate.port,
            health: Health::UNKNOWN,
        })
        .collect();
    found
}

/// Leaves the first `most` backends, those that take new flows before others. Returns how many are
/// left out. By their order alone: all balancers leave out the same, and another endpoint changes
/// one backend only.
pub fn limit(backends: &mut Vec<Backend>, most: usize) -> usize {
    let too_many = backends.len().saturating_sub(most);
    if too_many > 0 {
        backends.sort_by_key(|b| (Reverse(b.state == BackendState::Active), b.address));
        backends.truncate(most);
        backends.sort_by_key(|b| b.address);
    }
    too_many
}

/// How good an endpoint is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ready,
    /// It is about to end, and serves.
    Closing,
    /// It is about to end, and says that it does not serve; it may have flows.
    Ending,
    Unserved,
}

struct Candidate<'a> {
    address: IpAddr,
    /// Where it is not the Service's.
    port: Option<NonZeroU16>,
    state: State,
    endpoint: &'a Endpoint,
    ports_differ: bool,
}

impl Candidate<'_> {
    /// Which of two at one address goes first, whatever slices they are in.
    fn order(&self) -> impl Ord + '_ {
        let Endpoint {
            pod, node, zones, ..
        } = self.endpoint;
        (self.address, self.state, self.port, pod, node, zones)
    }
}

fn candidates<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    choice: &Choice<'_>,
    unusable: &mut usize,
) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for slice in slices.filter(|slice| slice.family == Some(family)) {
        let mut ports = slice.ports.iter();
        let Some(target) = ports.find(|p| p.name == port.name && p.protocol == port.protocol)
        else {
            continue;
        };
        // Any port, where a slice names none: the one that the client chose.
        let target = target.port.filter(|target| *target != port.port);
        let target = target.and_then(NonZeroU16::new);
        for endpoint in &slice.endpoints {
            let address = endpoint.address;
            let of_family = address.is_ipv4() == (family == Family::V4);
            if !of_family || !can_be_sent_to(address) {
                *unusable += 1;
                continue;
            }
            all.push(Candidate {
                address,
                port: target,
                state: state(endpoint, port.protocol, choice),
                endpoint,
                ports_differ: false,
            });
        }
    }
    all
}

fn state(endpoint: &Endpoint, protocol: Protocol, choice: &Choice<'_>) -> State {
    let ready = endpoint.ready || choice.publish_not_ready;
    match (ready, endpoint.terminating, endpoint.serving) {
        // One that is ready although it ends is so by `publishNotReadyAddresses`.
        (true, _, _) => State::Ready,
        (false, true, true) => State::Closing,
        (false, true, false) if protocol == Protocol::Tcp => State::Ending,
        (false, true, false) | (false, false, _) => State::Unserved,
    }
}

fn is_near(endpoint: &Endpoint, choice: &Choice<'_>) -> bool {
    match choice.node {
        Some(node) if choice.local => endpoint.node.as_deref() == Some(node),
        Some(_) | None => true,
    }
}

/// What is a VIP can be a backend too, as far as its address goes.
fn can_be_sent_to(address: IpAddr) -> bool {
    Vip::new(address, 0, lockstep_plan::Protocol::Tcp).is_ok()
}

/// Which endpoints get new flows.
struct Preference<'a> {
    /// Where none is, those that are about to end do.
    any_ready: bool,
    /// Only those that are meant for this zone.
    zone: Option<&'a str>,
}

impl<'a> Preference<'a> {
    /// Hints are followed where all ready endpoints have them and some are meant for this zone: else
    /// the cluster is about to change them, or this zone would have none.
    fn of(candidates: &[Candidate<'_>], choice: &Choice<'a>) -> Self {
        let ready = || candidates.iter().filter(|c| c.state == State::Ready);
        let followed = |zone: &&str| {
            let covered = ready().any(|c| is_meant_for(c.endpoint, zone));
            covered && ready().all(|c| !c.endpoint.zones.is_empty())
        };
        let zone = choice.zone.filter(|_| !choice.local);
        Preference {
            any_ready: ready().next().is_some(),
            zone: zone.filter(followed),
        }
    }

    fn state(&self, candidate: &Candidate<'_>) -> BackendState {
        let takes = match candidate.state {
            State::Ready => (self.zone).is_none_or(|zone| is_meant_for(candidate.endpoint, zone)),
            State::Closing => !self.any_ready,
            State::Ending | State::Unserved => false,
        };
        match takes {
            true => BackendState::Active,
            false => BackendState::Draining,
        }
    }
}

fn is_meant_for(endpoint: &Endpoint, zone: &str) -> bool {
    endpoint.zones.iter().any(|z| &**z == zone)
}

/// The pod's name, where there is one and no other backend has it: else the address, as in
/// `services.toml`. It stands in metrics and commands.
fn name<'a>(candidate: &Candidate<'a>, names: &mut BTreeSet<&'a str>) -> String {
    let plain = |pod: &&str| {
        (1..=253).contains(&pod.len())
            && pod
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && pod.parse::<IpAddr>().is_err()
    };
    let pod = candidate.endpoint.pod.as_deref().filter(plain);
    match pod.filter(|pod| names.insert(pod)) {
        Some(pod) => pod.to_owned(),
        None => candidate.address.to_string(),
    }
}

#[cfg(test)]
mod tests;
