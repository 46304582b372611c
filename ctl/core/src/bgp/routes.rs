//! The routes there are to be, and what is said of each: from VIPs, aggregates and a peer's
//! configuration.

use super::Family;
use super::open::{Session, Settings};
use crate::announce::Announced;
use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The prefixes that a router is to have, each with the communities that its route has beside those
/// of all routes of the session.
pub type Prefixes = BTreeMap<IpNet, BTreeSet<Community>>;

/// So that the attributes leave room for prefixes in a message.
const MAX_COMMUNITIES: usize = 64;

/// The prefixes to announce, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    all: BTreeMap<IpNet, BTreeSet<Said>>,
}

/// What is said of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Said {
    /// To these routers; to all where there is none.
    peers: BTreeSet<IpAddr>,
    communities: BTreeSet<Community>,
}

impl Wanted {
    /// What is announced for these VIPs. An aggregate stands for the VIPs inside of it while one of
    /// them is announced; with `specifics` they are announced as well. A VIP whose Advertisement
    /// says a length goes by that instead.
    pub fn of(announced: &Announced, aggregates: &[IpNet], specifics: bool) -> Self {
        let mut found = Wanted::default();
        for (vip, way) in announced.announced() {
            let Some(way) = way else {
                for prefix in prefixes(vip, aggregates, specifics) {
                    found.add(prefix, Said::default());
                }
                continue;
            };
            for route in &way.bgp {
                let said = Said {
                    peers: route.peers.clone(),
                    communities: route.communities.clone(),
                };
                let own = route.length.and_then(|l| IpNet::new(vip, l).ok());
                match own {
                    Some(prefix) => found.add(prefix.trunc(), said),
                    None => {
                        for prefix in prefixes(vip, aggregates, specifics) {
                            found.add(prefix, said.clone());
                        }
                    }
                }
            }
        }
        found
    }

    fn add(&mut self, prefix: IpNet, said: Said) {
        self.all.entry(prefix).or_default().insert(said);
    }

    /// What one router is to have.
    pub fn to(&self, router: IpAddr) -> Prefixes {
        let is_for = |said: &&Said| said.peers.is_empty() || said.peers.contains(&router);
        let entry = |(prefix, all): (&IpNet, &BTreeSet<Said>)| {
            let mut heard = all.iter().filter(is_for).peekable();
            heard.peek()?;
            let communities = heard.flat_map(|said| said.communities.iter().copied());
            let all: BTreeSet<Community> = communities.collect();
            Some((*prefix, all.into_iter().take(MAX_COMMUNITIES).collect()))
        };
        self.all.iter().filter_map(entry).collect()
    }
}

/// What stands for a VIP.
fn prefixes(vip: IpAddr, aggregates: &[IpNet], specifics: bool) -> BTreeSet<IpNet> {
    let inside = aggregates
        .iter()
        .filter(|aggregate| aggregate.contains(&vip));
    let mut found: BTreeSet<IpNet> = inside.map(IpNet::trunc).collect();
    if specifics || found.is_empty() {
        found.insert(IpNet::from(vip));
    }
    found
}

/// A community of RFC 1997, RFC 4360 or RFC 8092, as routers write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// `64512:100`, or a well-known one.
    Standard(u32),
    /// `rt:64512:100` or `soo:64512:100`: route target or origin, as its subtype.
    Extended(u8, u16, u32),
    /// `4200000000:1:2`.
    Large(u32, u32, u32),
}

impl Community {
    /// The subtype of a route target.
    pub const ROUTE_TARGET: u8 = 2;
    /// The subtype of a route origin.
    pub const ROUTE_ORIGIN: u8 = 3;
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Community::Standard(value) => match WELL_KNOWN.iter().find(|(_, v)| *v == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xffff),
            },
            Community::Extended(Community::ROUTE_ORIGIN, a, b) => write!(f, "soo:{a}:{b}"),
            Community::Extended(_, a, b) => write!(f, "rt:{a}:{b}"),
            Community::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

/// Communities with a name (RFC 1997, RFC 7999, RFC 8326).
pub const WELL_KNOWN: [(&str, u32); 5] = [
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
    ("blackhole", 0xffff_029a),
    ("graceful-shutdown", 0xffff_0000),
];

impl Serialize for Community {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |()| D::Error::custom(format!("{text:?} is not a community"));
        text.parse().map_err(wrong)
    }
}

impl FromStr for Community {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Community::Standard(*value));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let short = |text: &str| text.parse::<u16>().map_err(drop);
        let long = |text: &str| text.parse::<u32>().map_err(drop);
        Ok(match parts[..] {
            ["rt", a, b] => Community::Extended(Community::ROUTE_TARGET, short(a)?, long(b)?),
            ["soo", a, b] => Community::Extended(Community::ROUTE_ORIGIN, short(a)?, long(b)?),
            [a, b] => Community::Standard(u32::from(short(a)?) << 16 | u32::from(short(b)?)),
            [a, b, c] => Community::Large(long(a)?, long(b)?, long(c)?),
            _ => return Err(()),
        })
    }
}

/// What a peer's configuration says of routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The next hop of IPv4 routes; ours where there is none.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// The next hop of IPv6 routes; ours where there is none.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// How much the own AS prefers these routes; told internal peers only (RFC 4271 §5.1.5).
    pub local_pref: u32,
    /// The MULTI_EXIT_DISC, where there is to be one.
    pub med: Option<u32>,
    /// Our AS as often again in the path; told external peers only.
    pub prepend: u8,
    /// In the order of the configuration.
    pub communities: Vec<Community>,
}

/// What the routes of a session have in common: what is on the wire apart from the prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Of IPv4 routes.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Of IPv6 routes.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Each AS of the path.
    pub path: Vec<u32>,
    /// For internal peers.
    pub local_pref: Option<u32>,
    /// See [`Policy`].
    pub med: Option<u32>,
    /// See [`Policy`].
    pub communities: Vec<Community>,
}

impl Policy {
    /// The attributes for a peer, to which we are `local`: the next hop is this address where
    /// nothing else is said.
    pub fn attributes(&self, settings: &Settings, local: IpAddr) -> Attributes {
        let internal = settings.is_internal();
        let own = usize::from(self.prepend) + 1;
        let path = match internal {
            true => Vec::new(),
            false => vec![settings.local_as; own],
        };
        let (v4, v6) = match local.to_canonical() {
            IpAddr::V4(v4) => (Some(v4), None),
            IpAddr::V6(v6) => (None, Some(v6)),
        };
        Attributes {
            next_hop_v4: self.next_hop_v4.or(v4),
            next_hop_v6: self.next_hop_v6.or(v6),
            path,
            local_pref: internal.then_some(self.local_pref),
            med: self.med,
            communities: self.communities.clone(),
        }
    }
}

impl Attributes {
    /// The next hop of a family's routes. A family without one is not announced.
    pub fn next_hop(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6 => self.next_hop_v6.map(IpAddr::V6),
        }
    }

    /// The same with these communities as well.
    pub fn with(&self, communities: &BTreeSet<Community>) -> Self {
        let mut attributes = self.clone();
        let new = |c: &&Community| !self.communities.contains(c);
        (attributes.communities).extend(communities.iter().filter(new));
        attributes
    }

    /// Whether a prefix can be announced in a session.
    pub fn fit(&self, session: &Session, prefix: IpNet) -> bool {
        let family = Family::of(prefix.addr());
        session.families.contains(&family) && self.next_hop(family).is_some()
    }
}
