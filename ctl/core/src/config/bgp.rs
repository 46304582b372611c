//! `[bgp]` and `[[bgp.peer]]`: the routers that VIPs are announced to.

use crate::bfd;
use crate::bgp::routes::Policy;
use crate::bgp::{Families, Family, open};
use ipnet::IpNet;
use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

mod values;

use values::{
    Address, AsNumber, CommunityText, FamilyText, HoldTime, Hops, NextHops, Port, Prefix, Prepend,
    RestartTime, RouterId, SecretText,
};

/// See the module. Without peers nothing is announced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bgp {
    /// Where connections of routers are accepted.
    pub listen: Vec<SocketAddr>,
    /// What stands for the VIPs inside of it.
    pub aggregates: Vec<IpNet>,
    /// Whether VIPs inside of an aggregate are announced as well.
    pub specifics: bool,
    /// The routers, by their addresses.
    pub peers: BTreeMap<IpAddr, Peer>,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its port.
    pub port: u16,
    /// A word about it, for output.
    pub description: String,
    /// The password of TCP-MD5 (RFC 2385).
    pub password: Option<Password>,
    /// How far away it may be.
    pub distance: Distance,
    /// The address that we connect from, where the system is not to choose it.
    pub source: Option<IpAddr>,
    /// How silence of the path to it is noticed at once; `None` where it is not.
    pub bfd: Option<bfd::Settings>,
    /// What its session goes by.
    pub settings: open::Settings,
    /// What its routes have.
    pub policy: Policy,
}

/// A password, or where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In the configuration.
    Text(Secret),
    /// In a file: its first line.
    File(PathBuf),
}

/// The longest password that the kernel takes, in bytes.
pub const MAX_PASSWORD: usize = 80;

/// What never stands in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How far away a router may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// As far as packets go: routers of the own AS.
    Any,
    /// Our packets live for so many hops.
    Hops(NonZeroU8),
    /// Its packets must have come over at most so many hops (RFC 5082).
    Secured(NonZeroU8),
}

/// The times that FRR has for data centers: three seconds between signs of life.
const HOLD_TIME: u16 = 9;
const RESTART_TIME: u16 = 120;
const LOCAL_PREF: u32 = 100;
const PORT: u16 = 179;
/// So that the attributes leave room for prefixes in a message.
const MAX_COMMUNITIES: usize = 64;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBgp {
    #[serde(rename = "as")]
    number: Option<Spanned<AsNumber>>,
    router_id: Option<Spanned<RouterId>>,
    hold_time: Option<HoldTime>,
    graceful_restart: Option<RestartTime>,
    listen: Option<Vec<SocketAddr>>,
    aggregates: Vec<Spanned<Prefix>>,
    specifics: bool,
    local_pref: Option<u32>,
    med: Option<u32>,
    prepend: Option<Prepend>,
    communities: Option<Spanned<Vec<CommunityText>>>,
    next_hop: Option<NextHops>,
    peer: Vec<Spanned<RawPeer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    address: Spanned<Address>,
    #[serde(rename = "as")]
    number: Spanned<AsNumber>,
    port: Option<Port>,
    description: Option<String>,
    #[serde(default)]
    passive: bool,
    password: Option<Spanned<SecretText>>,
    password_file: Option<Spanned<PathBuf>>,
    families: Option<Spanned<Vec<FamilyText>>>,
    #[serde(default)]
    add_path: bool,
    multihop: Option<Spanned<Hops>>,
    ttl_security: Option<Spanned<Hops>>,
    source: Option<Spanned<Address>>,
    hold_time: Option<HoldTime>,
    local_pref: Option<Spanned<u32>>,
    med: Option<u32>,
    prepend: Option<Spanned<Prepend>>,
    communities: Option<Spanned<Vec<CommunityText>>>,
    next_hop: Option<NextHops>,
    #[serde(default)]
    bfd: super::bfd::RawBfd,
}

/// What is said of every peer.
struct Common {
    number: u32,
    router_id: Ipv4Addr,
}

impl RawBgp {
    pub(super) fn to_bgp(&self, source: Source<'_>, found: &mut Diagnostics) -> Bgp {
        let mut bgp = Bgp {
            aggregates: self.aggregates(source, found),
            specifics: self.specifics,
            ..Bgp::default()
        };
        let common = self.common(source, found);
        let peers = self.peer.iter().map(|raw| &raw.get_ref().communities);
        for list in peers.chain([&self.communities]).flatten() {
            if list.get_ref().len() > MAX_COMMUNITIES {
                let message = format!("{} communities are too many", list.get_ref().len());
                let error = source.error(list.span(), message);
                found.push(error.help(format!("up to {MAX_COMMUNITIES}")));
            }
        }
        for raw in &self.peer {
            let address = raw.get_ref().address.get_ref().0;
            let peer = raw.get_ref().to_peer(self, &common, source, found);
            if bgp.peers.insert(address, peer).is_some() {
                let span = raw.get_ref().address.span();
                found.push(
                    source
                        .error(span, format!("{address} is a peer already"))
                        .help("a router is one [[bgp.peer]], whatever it is told"),
                );
            }
        }
        let passive = bgp.peers.values().any(|p| p.settings.passive);
        bgp.listen = match &self.listen {
            Some(listen) => listen.clone(),
            None if passive => vec![
                (Ipv4Addr::UNSPECIFIED, PORT).into(),
                (Ipv6Addr::UNSPECIFIED, PORT).into(),
            ],
            None => Vec::new(),
        };
        bgp
    }

    /// Numbers that only matter, and must be there, when there are peers.
    fn common(&self, source: Source<'_>, found: &mut Diagnostics) -> Common {
        let whole = self.peer.first().map_or(0..0, |first| first.span());
        let mut missing = |there: bool, key: &str, help: &str| {
            if !there && !self.peer.is_empty() {
                let message = format!("`{key}` is missing in [bgp]");
                found.push(source.error(whole.clone(), message).help(help));
            }
        };
        missing(
            self.number.is_some(),
            "as",
            "the AS number of this balancer, such as 64512",
        );
        missing(
            self.router_id.is_some(),
            "router_id",
            "an IPv4 address of this balancer that no other router of the AS has, such as \"10.0.0.1\"",
        );
        Common {
            number: self.number.as_ref().map_or(0, |n| n.get_ref().0),
            router_id: self
                .router_id
                .as_ref()
                .map_or(Ipv4Addr::UNSPECIFIED, |id| id.get_ref().0),
        }
    }

    fn aggregates(&self, source: Source<'_>, found: &mut Diagnostics) -> Vec<IpNet> {
        for prefix in &self.aggregates {
            let net = prefix.get_ref().0;
            if net.trunc() != net {
                let message = format!("{net} has bits set after its length");
                let error = source.error(prefix.span(), message);
                found.push(error.help(format!("the prefix is {}", net.trunc())));
            }
        }
        self.aggregates.iter().map(|p| p.get_ref().0).collect()
    }
}

impl RawPeer {
    fn to_peer(
        &self,
        all: &RawBgp,
        common: &Common,
        source: Source<'_>,
        found: &mut Diagnostics,
    ) -> Peer {
        let address = self.address.get_ref().0;
        let internal = self.number.get_ref().0 == common.number;
        let policy = self.policy(all, internal, source, found);
        let families = self.families(address, &policy, source, found);
        if let Some(from) = &self.source
            && from.get_ref().0.is_ipv4() != address.is_ipv4()
        {
            let message = format!("{} cannot connect to {address}", from.get_ref().0);
            let error = source.error(from.span(), message);
            found.push(error.help("both addresses are IPv4, or both are IPv6"));
        }
        let graceful_restart = match &all.graceful_restart {
            None => Some(RESTART_TIME),
            Some(RestartTime(time)) => *time,
        };
        let hold_time = self.hold_time.as_ref().or(all.hold_time.as_ref());
        Peer {
            port: self.port.as_ref().map_or(PORT, |p| p.0),
            description: self.description.clone().unwrap_or_default(),
            password: self.password(source, found),
            distance: self.distance(internal, source, found),
            source: self.source.as_ref().map(|s| s.get_ref().0),
            bfd: self.bfd.0,
            settings: open::Settings {
                local_as: common.number,
                router_id: common.router_id,
                remote_as: self.number.get_ref().0,
                hold_time: hold_time.map_or(HOLD_TIME, |t| t.0),
                families,
                add_path: self.add_path,
                graceful_restart,
                passive: self.passive,
            },
            policy,
        }
    }

    fn policy(
        &self,
        all: &RawBgp,
        internal: bool,
        source: Source<'_>,
        found: &mut Diagnostics,
    ) -> Policy {
        let mut meaningless = |span: Range<usize>, key: &str, help: &str| {
            found.push(
                source
                    .error(span, format!("`{key}` is never told this peer"))
                    .help(help),
            );
        };
        if let Some(preference) = self.local_pref.as_ref().filter(|_| !internal) {
            let help = "routers of another AS get `med`, `prepend` or `communities`";
            meaningless(preference.span(), "local_pref", help);
        }
        if let Some(prepend) = self.prepend.as_ref().filter(|_| internal) {
            let help = "routers of the own AS get `local_pref`";
            meaningless(prepend.span(), "prepend", help);
        }
        let next_hop = self.next_hop.as_ref().or(all.next_hop.as_ref());
        let communities = self.communities.as_ref().or(all.communities.as_ref());
        let communities = communities.map_or(&[][..], |all| all.get_ref());
        let preference = self.local_pref.as_ref().map(|p| *p.get_ref());
        let prepend = self.prepend.as_ref().map(Spanned::get_ref);
        Policy {
            next_hop_v4: next_hop.and_then(|n| n.v4),
            next_hop_v6: next_hop.and_then(|n| n.v6),
            local_pref: preference.or(all.local_pref).unwrap_or(LOCAL_PREF),
            med: self.med.or(all.med),
            prepend: prepend.or(all.prepend.as_ref()).map_or(0, |p| p.0),
            communities: communities.iter().map(|c| c.0).collect(),
        }
    }

    /// The families of its session: those asked for, else those that have a next hop. Ours is of
    /// the family of the connection only.
    fn families(
        &self,
        address: IpAddr,
        policy: &Policy,
        source: Source<'_>,
        found: &mut Diagnostics,
    ) -> Families {
        let has_next_hop = |family: Family| match family {
            _ if family == Family::of(address) => true,
            Family::Ipv4 => policy.next_hop_v4.is_some(),
            Family::Ipv6 => policy.next_hop_v6.is_some(),
        };
        let Some(wanted) = &self.families else {
            return Family::ALL
                .into_iter()
                .filter(|&f| has_next_hop(f))
                .collect();
        };
        let families: Families = wanted.get_ref().iter().map(|f| f.0).collect();
        if families.is_empty() {
            let error = source.error(wanted.span(), "a session carries something");
            found.push(error.help("\"ipv4\", \"ipv6\" or both"));
        }
        for family in families.iter().filter(|&&f| !has_next_hop(f)) {
            let message = format!("routes of {family} to {address} have no next hop");
            let help = format!("`next_hop` with an {family} address of this balancer");
            found.push(source.error(wanted.span(), message).help(help));
        }
        families
    }

    fn password(&self, source: Source<'_>, found: &mut Diagnostics) -> Option<Password> {
        match (&self.password, &self.password_file) {
            (Some(text), None) => Some(Password::Text(text.get_ref().0.clone())),
            (None, Some(path)) => Some(Password::File(path.get_ref().clone())),
            (Some(_), Some(path)) => {
                let error = source.error(path.span(), "`password` is there already");
                found.push(error.help("either `password` or `password_file`"));
                None
            }
            (None, None) => None,
        }
    }

    fn distance(&self, internal: bool, source: Source<'_>, found: &mut Diagnostics) -> Distance {
        match (&self.multihop, &self.ttl_security) {
            (None, None) if internal => Distance::Any,
            // RFC 4271 §5.1.3: a router of another AS is on the link, unless it is said.
            (None, None) => Distance::Hops(NonZeroU8::MIN),
            (Some(hops), None) => Distance::Hops(hops.get_ref().0),
            (None, Some(hops)) => Distance::Secured(hops.get_ref().0),
            (Some(_), Some(hops)) => {
                let error = source.error(hops.span(), "`multihop` is there already");
                found.push(error.help("`ttl_security` alone says how many hops there may be"));
                Distance::Any
            }
        }
    }
}

#[cfg(test)]
mod tests;
