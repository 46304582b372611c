//! Which addresses are announced, by what way and with which attributes.
//!
//! What balancers that announce VIPs go by is the status of Services: the same for all of them,
//! whoever leads.

use super::allocate::pools_of;
use super::pools::Pools;
use super::selector;
use super::translate::is_ours;
use super::{Settings, World};
use crate::announce::ways::{Advertised, Advertisements, Interfaces, Route};
use crate::bgp::routes::Community;
use lockstep_kubernetes::resources::{Advertisement, AdvertisementType};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How every address of a Service of ours is announced by this balancer.
pub fn advertised(world: &World, settings: &Settings) -> Advertisements {
    let pools = Pools::of(world, &settings.class);
    let ways: Vec<Way> = (world.advertisements.values())
        .filter(|object| is_here(object, world, settings))
        .map(|object| Way::of(object))
        .collect();
    let mut found = Advertisements::new();
    for service in world.services.values() {
        let ours = is_ours(service, settings);
        for ingress in service.ingress.iter().filter(|_| ours) {
            let from = pools_of(&pools, service, ingress.address);
            let entry = found.entry(ingress.address).or_default();
            for way in ways.iter().filter(|way| way.covers(&from)) {
                way.add(ingress.address, entry);
            }
        }
    }
    found
}

/// Whether this balancer is one that an advertisement names: by the node it runs on.
fn is_here(object: &Advertisement, world: &World, settings: &Settings) -> bool {
    let Some(wanted) = &object.spec.node_selector else {
        return true;
    };
    let node = settings
        .node
        .as_ref()
        .and_then(|name| world.nodes.get(name));
    node.is_some_and(|node| selector::matches(wanted, &node.labels))
}

/// An advertisement, read.
struct Way<'a> {
    pools: &'a [String],
    how: How,
}

enum How {
    Bgp {
        peers: BTreeSet<IpAddr>,
        communities: BTreeSet<Community>,
        v4: Option<u8>,
        v6: Option<u8>,
    },
    Layer2(Interfaces),
    /// Nobody: what it names cannot be read.
    Nowhere,
}

impl<'a> Way<'a> {
    fn of(object: &'a Advertisement) -> Self {
        let spec = &object.spec;
        let how = match spec.how {
            AdvertisementType::L2 if spec.interfaces.is_empty() => How::Layer2(Interfaces::All),
            AdvertisementType::L2 => {
                How::Layer2(Interfaces::Named(spec.interfaces.iter().cloned().collect()))
            }
            AdvertisementType::Bgp => {
                let peers: BTreeSet<IpAddr> =
                    spec.peers.iter().filter_map(|p| p.parse().ok()).collect();
                match peers.is_empty() && !spec.peers.is_empty() {
                    // Not to all routers because the names of some are wrong.
                    true => How::Nowhere,
                    false => How::Bgp {
                        peers,
                        communities: spec
                            .communities
                            .iter()
                            .filter_map(|c| c.parse().ok())
                            .collect(),
                        v4: spec.aggregation_length.filter(|length| *length <= 32),
                        v6: spec.aggregation_length_v6.filter(|length| *length <= 128),
                    },
                }
            }
        };
        Way {
            pools: &spec.pools,
            how,
        }
    }

    fn covers(&self, from: &[&str]) -> bool {
        self.pools.is_empty() || self.pools.iter().any(|pool| from.contains(&pool.as_str()))
    }

    fn add(&self, address: IpAddr, to: &mut Advertised) {
        match &self.how {
            How::Nowhere => {}
            How::Layer2(interfaces) => {
                to.layer2 = Some(match (to.layer2.take(), interfaces) {
                    (Some(Interfaces::All), _) | (_, Interfaces::All) => Interfaces::All,
                    (None, Interfaces::Named(named)) => Interfaces::Named(named.clone()),
                    (Some(Interfaces::Named(mut all)), Interfaces::Named(named)) => {
                        all.extend(named.iter().cloned());
                        Interfaces::Named(all)
                    }
                });
            }
            How::Bgp {
                peers,
                communities,
                v4,
                v6,
            } => {
                to.bgp.insert(Route {
                    peers: peers.clone(),
                    communities: communities.clone(),
                    length: match address {
                        IpAddr::V4(_) => *v4,
                        IpAddr::V6(_) => *v6,
                    },
                });
            }
        }
    }
}

/// What of an advertisement cannot be done, and what to do: a word and a sentence.
pub fn problem(object: &Advertisement, world: &World) -> Option<(&'static str, String)> {
    let spec = &object.spec;
    if let Some(problem) = spec.node_selector.as_ref().and_then(selector::problem) {
        return Some(("InvalidSelector", format!("nodeSelector: {problem}")));
    }
    let peer = |text: &&String| text.parse::<IpAddr>().is_err();
    if let Some(text) = spec.peers.iter().find(peer) {
        let message = format!(
            "{text:?} in peers is not an address; write that of a [[bgp.peer]] of lockstepd.toml"
        );
        return Some(("InvalidPeer", message));
    }
    let community = |text: &&String| text.parse::<Community>().is_err();
    if let Some(text) = spec.communities.iter().find(community) {
        let message = format!(
            "{text:?} is not a community; write one such as \"64512:100\", \"4200000000:1:2\", \
             \"rt:64512:100\" or \"no-export\""
        );
        return Some(("InvalidCommunity", message));
    }
    let missing = spec
        .pools
        .iter()
        .find(|name| !world.pools.contains_key(*name));
    missing.map(|name| {
        let message = format!("there is no AddressPool {name}; create it, or take it out of pools");
        ("PoolNotFound", message)
    })
}

#[cfg(test)]
mod tests;
