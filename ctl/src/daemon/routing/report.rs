//! What `lockstep bgp` shows.

use lockstep_api::{BgpAttributes, BgpCounters, BgpPeer, BgpReply, BgpRoute, BgpSession};
use lockstep_ctl_core::bfd;
use lockstep_ctl_core::bgp::open::Session;
use lockstep_ctl_core::bgp::peer::{self, State};
use lockstep_ctl_core::bgp::rib::Updates;
use lockstep_ctl_core::bgp::routes::Prefixes;
use lockstep_ctl_core::bgp::{Families, Family};
use lockstep_ctl_core::config::bgp::Peer;
use lockstep_ctl_core::drains::Timestamp;
use std::net::IpAddr;

/// What went to and fro, as far as the state machine does not count it.
#[derive(Debug, Default)]
pub struct Sent {
    pub messages: u64,
    pub messages_received: u64,
    pub updates: u64,
    pub announced: u64,
    pub withdrawn: u64,
}

impl Sent {
    /// Counts what is sent.
    pub fn count(&mut self, updates: &Updates) {
        self.messages += updates.messages;
        self.updates += updates.messages;
        self.announced += updates.announced;
        self.withdrawn += updates.withdrawn;
    }
}

/// A router as its task sees it.
pub struct Seen<'a> {
    pub address: IpAddr,
    pub peer: &'a Peer,
    pub machine: &'a peer::Peer,
    pub state: (State, Timestamp),
    pub local: Option<IpAddr>,
    pub routes: usize,
    pub sent: &'a Sent,
    pub path: Option<bfd::State>,
}

/// A router's entry.
pub fn peer(seen: &Seen<'_>) -> BgpPeer {
    let (machine, counters) = (seen.machine, seen.machine.counters());
    BgpPeer {
        address: seen.address.to_string(),
        r#as: seen.peer.settings.remote_as,
        description: seen.peer.description.clone(),
        state: seen.state.0.name().to_owned(),
        since: seen.state.1.0,
        flaps: counters.flaps,
        last_error: machine.cause().map_or_else(String::new, |c| c.to_string()),
        bfd: seen
            .path
            .map_or_else(String::new, |state| state.to_string()),
        attributes: Some(attributes(seen.peer, seen.local)),
        session: machine
            .session()
            .map(|(_, agreed)| session(agreed, seen.local)),
        routes: seen.routes as u64,
        counters: Some(BgpCounters {
            sessions: counters.ups,
            messages_received: seen.sent.messages_received,
            messages_sent: seen.sent.messages,
            updates_received: counters.updates_received,
            updates_sent: seen.sent.updates,
            malformed_received: counters.malformed,
            announced: seen.sent.announced,
            withdrawn: seen.sent.withdrawn,
            notifications_received: counters.notifications_received,
            notifications_sent: counters.notifications_sent,
        }),
    }
}

fn attributes(peer: &Peer, local: Option<IpAddr>) -> BgpAttributes {
    let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let mut told = peer.policy.attributes(&peer.settings, local.unwrap_or(any));
    if local.is_none() {
        // Which address of ours it will be shows with the session.
        told.next_hop_v4 = peer.policy.next_hop_v4;
    }
    let families = Family::ALL
        .iter()
        .filter(|f| peer.settings.families.contains(f));
    let next_hops = families.filter_map(|&f| told.next_hop(f));
    BgpAttributes {
        next_hops: next_hops.map(|hop| hop.to_string()).collect(),
        as_path: told.path,
        local_pref: told.local_pref,
        med: told.med,
        communities: told.communities.iter().map(ToString::to_string).collect(),
    }
}

fn session(agreed: &Session, local: Option<IpAddr>) -> BgpSession {
    let names = |families: &Families| families.iter().map(|f| f.name().to_owned()).collect();
    BgpSession {
        router_id: agreed.router_id.to_string(),
        hold_time: u32::try_from(agreed.hold_time.as_secs()).unwrap_or(u32::MAX),
        families: names(&agreed.families),
        add_path: names(&agreed.add_path),
        four_octet_as: agreed.four_octet_as,
        graceful_restart: agreed.graceful_restart.is_some(),
        local_address: local.map_or_else(String::new, |local| local.to_string()),
    }
}

/// Puts a router's entry and its routes in. Returns whether that changed anything.
pub fn update(
    reply: &mut BgpReply,
    address: IpAddr,
    entry: BgpPeer,
    told: &Prefixes,
    wanted: &Prefixes,
) -> bool {
    let place = place(reply, address);
    let mut changed = true;
    match place {
        Ok(at) if reply.peers[at] == entry => changed = false,
        Ok(at) => reply.peers[at] = entry,
        Err(at) => reply.peers.insert(at, entry),
    }
    let name = address.to_string();
    let routes = routes(reply, &name, told, wanted);
    if routes != reply.routes {
        reply.routes = routes;
        changed = true;
    }
    changed
}

/// Where a router's entry is, or belongs.
fn place(reply: &BgpReply, address: IpAddr) -> Result<usize, usize> {
    reply
        .peers
        .binary_search_by_key(&Some(address), |p| p.address.parse().ok())
}

/// The routes with who has them, this router as it was told.
fn routes(reply: &BgpReply, name: &str, told: &Prefixes, wanted: &Prefixes) -> Vec<BgpRoute> {
    let mut all: std::collections::BTreeMap<_, Vec<String>> = reply
        .routes
        .iter()
        .filter_map(|route| Some((route.prefix.parse().ok()?, route.announced_to.clone())))
        .collect();
    for prefix in wanted.keys().chain(told.keys()) {
        all.entry(*prefix).or_default();
    }
    for (prefix, to) in &mut all {
        to.retain(|other| other != name);
        if told.contains_key(prefix) {
            to.push(name.to_owned());
            to.sort_unstable();
        }
    }
    all.into_iter()
        .filter(|(prefix, to)| !to.is_empty() || wanted.contains_key(prefix))
        .map(|(prefix, announced_to)| BgpRoute {
            prefix: prefix.to_string(),
            announced_to,
        })
        .collect()
}

/// Takes a router out.
pub fn forget(reply: &mut BgpReply, address: IpAddr) {
    if let Ok(at) = place(reply, address) {
        reply.peers.remove(at);
    }
    let name = address.to_string();
    for route in &mut reply.routes {
        route.announced_to.retain(|other| *other != name);
    }
}
