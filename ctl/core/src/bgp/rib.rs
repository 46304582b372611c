//! What a router was told, and the messages that make it what it is to be.

use super::open::{Session, two_octets};
use super::routes::{Attributes, Community, Prefixes};
use super::wire::{HEADER, MAX_MESSAGE, encode};
use super::{Families, Family};
use ipnet::IpNet;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community::{
    Community as Standard, ExtendedCommunity, LargeCommunity, TransitiveTwoOctetExtendedCommunity,
};
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    As2PathSegment, As4Path, As4PathSegment, AsPath, AsPathSegmentType, Communities,
    ExtendedCommunities, LargeCommunities, LocalPreference, MpReach, MpUnreach,
    MultiExitDiscriminator, NextHop, Origin, PathAttribute, PathAttributeValue,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_parse_utils::WritablePdu;
use std::collections::{BTreeMap, BTreeSet};

/// The path identifier of every route: we have one path for each (RFC 7911).
const PATH_ID: u32 = 1;

/// What a router was told in the session there is.
#[derive(Debug, Default)]
pub struct Told {
    prefixes: Prefixes,
    /// What they were told with.
    attributes: Option<Attributes>,
    /// Where the router knows that it has everything (RFC 4724 §2).
    complete: Families,
}

/// Messages as they go to the wire, and what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updates {
    /// One after the other; empty when there is nothing to say.
    pub bytes: Vec<u8>,
    /// How many messages.
    pub messages: u64,
    /// How many prefixes are announced, anew or again.
    pub announced: u64,
    /// How many are withdrawn.
    pub withdrawn: u64,
}

impl Updates {
    fn push(&mut self, update: BgpUpdateMessage) {
        self.bytes.extend(encode(&BgpMessage::Update(update)));
        self.messages += 1;
    }
}

impl Told {
    /// The prefixes it has.
    pub const fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Brings the router to these prefixes, withdrawals first: what is wrong has to go before
    /// what is missing comes. A family is marked as complete when it is told for the first time.
    pub fn update(
        &mut self,
        session: &Session,
        wanted: &Prefixes,
        attributes: &Attributes,
    ) -> Updates {
        let mut updates = Updates::default();
        let fits = |p: &IpNet| attributes.fit(session, *p);
        let gone: Vec<IpNet> = (self.prefixes.keys().copied())
            .filter(|p| !(wanted.contains_key(p) && fits(p)))
            .collect();
        let same = self.attributes.as_ref() == Some(attributes);
        let new: Vec<(IpNet, &BTreeSet<Community>)> = (wanted.iter())
            .filter(|(p, with)| fits(p) && !(same && self.prefixes.get(p) == Some(with)))
            .map(|(p, with)| (*p, with))
            .collect();
        for family in Family::ALL {
            withdraw(session, family, &gone, &mut updates);
        }
        for family in Family::ALL {
            announce_all(session, family, &new, attributes, &mut updates);
        }
        for prefix in &gone {
            self.prefixes.remove(prefix);
        }
        let new = new.into_iter().map(|(prefix, with)| (prefix, with.clone()));
        self.prefixes.extend(new);
        self.attributes = Some(attributes.clone());
        for &family in session.families.difference(&self.complete) {
            updates.push(end_of_rib(family));
        }
        self.complete.extend(&session.families);
        updates
    }

    /// Says a family again, to its end (RFC 2918 §4).
    pub fn replay(&self, session: &Session, family: Family) -> Updates {
        let mut updates = Updates::default();
        let Some(attributes) = &self.attributes else {
            // Nothing was told yet, and all of it will be.
            return updates;
        };
        let all: Vec<_> = self.prefixes.iter().map(|(p, with)| (*p, with)).collect();
        announce_all(session, family, &all, attributes, &mut updates);
        updates.push(end_of_rib(family));
        updates
    }
}

fn attribute(optional: bool, transitive: bool, value: PathAttributeValue) -> PathAttribute {
    // Always with two octets of length: the codec writes a broken message where one does not
    // suffice, and says nothing.
    PathAttribute::from(optional, transitive, false, true, value)
        .expect("each kind has the flags of its RFC, by the callers here")
}

/// End-of-RIB (RFC 4724 §2).
fn end_of_rib(family: Family) -> BgpUpdateMessage {
    match family {
        Family::Ipv4 => BgpUpdateMessage::new(vec![], vec![], vec![]),
        Family::Ipv6 => {
            let none = MpUnreach::Ipv6Unicast { nlri: Box::new([]) };
            let none = attribute(true, false, PathAttributeValue::MpUnreach(none));
            BgpUpdateMessage::new(vec![], vec![none], vec![])
        }
    }
}

/// Prefixes of IPv4 or IPv6 that fit one message, whose other parts have `rest` bytes.
fn pack<T>(
    prefixes: &[IpNet],
    rest: usize,
    address: impl Fn(IpNet) -> Option<T>,
    length: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let room = MAX_MESSAGE.saturating_sub(rest);
    let (mut packs, mut left) = (Vec::new(), 0);
    for one in prefixes.iter().filter_map(|&p| address(p)) {
        let needed = length(&one);
        if needed > left || packs.is_empty() {
            packs.push(Vec::new());
            left = room;
        }
        left = left.saturating_sub(needed);
        packs.last_mut().expect("one was pushed").push(one);
    }
    packs
}

/// Header, and the lengths of withdrawn routes and attributes.
const FRAME: usize = HEADER + 4;

fn v4(path_id: Option<u32>) -> impl Fn(IpNet) -> Option<Ipv4UnicastAddress> {
    move |prefix| match prefix {
        IpNet::V4(v4) => Some(Ipv4UnicastAddress::new(
            path_id,
            Ipv4Unicast::from_net(v4).ok()?,
        )),
        IpNet::V6(_) => None,
    }
}

fn v6(path_id: Option<u32>) -> impl Fn(IpNet) -> Option<Ipv6UnicastAddress> {
    move |prefix| match prefix {
        IpNet::V4(_) => None,
        IpNet::V6(v6) => Some(Ipv6UnicastAddress::new(
            path_id,
            Ipv6Unicast::from_net(v6).ok()?,
        )),
    }
}

fn path_id(session: &Session, family: Family) -> Option<u32> {
    session.add_path.contains(&family).then_some(PATH_ID)
}

fn withdraw(session: &Session, family: Family, prefixes: &[IpNet], updates: &mut Updates) {
    let id = path_id(session, family);
    match family {
        Family::Ipv4 => {
            for pack in pack(prefixes, FRAME, v4(id), |a| a.len()) {
                updates.withdrawn += pack.len() as u64;
                updates.push(BgpUpdateMessage::new(pack, vec![], vec![]));
            }
        }
        Family::Ipv6 => {
            let unreach = |nlri| {
                let nlri = MpUnreach::Ipv6Unicast { nlri };
                attribute(true, false, PathAttributeValue::MpUnreach(nlri))
            };
            let rest = FRAME + unreach(Box::new([])).len();
            for pack in pack(prefixes, rest, v6(id), |a| a.len()) {
                updates.withdrawn += pack.len() as u64;
                let attributes = vec![unreach(pack.into_boxed_slice())];
                updates.push(BgpUpdateMessage::new(vec![], attributes, vec![]));
            }
        }
    }
}

/// Prefixes with the same communities go into the same messages.
fn announce_all(
    session: &Session,
    family: Family,
    prefixes: &[(IpNet, &BTreeSet<Community>)],
    attributes: &Attributes,
    updates: &mut Updates,
) {
    let mut alike: BTreeMap<&BTreeSet<Community>, Vec<IpNet>> = BTreeMap::new();
    for (prefix, with) in prefixes {
        alike.entry(with).or_default().push(*prefix);
    }
    for (with, prefixes) in alike {
        announce(session, family, &prefixes, &attributes.with(with), updates);
    }
}

fn announce(
    session: &Session,
    family: Family,
    prefixes: &[IpNet],
    attributes: &Attributes,
    updates: &mut Updates,
) {
    let id = path_id(session, family);
    let common = common(session, attributes);
    match (family, attributes.next_hop_v4, attributes.next_hop_v6) {
        (Family::Ipv4, Some(next_hop), _) => {
            let next_hop = PathAttributeValue::NextHop(NextHop::new(next_hop));
            let all = ordered(common, attribute(false, true, next_hop));
            let rest = FRAME + length(&all);
            for pack in pack(prefixes, rest, v4(id), |a| a.len()) {
                updates.announced += pack.len() as u64;
                updates.push(BgpUpdateMessage::new(vec![], all.clone(), pack));
            }
        }
        (Family::Ipv6, _, Some(next_hop_global)) => {
            let reach = |nlri| {
                let reach = MpReach::Ipv6Unicast {
                    next_hop_global,
                    next_hop_local: None,
                    nlri,
                };
                attribute(true, false, PathAttributeValue::MpReach(reach))
            };
            let rest = FRAME + length(&common) + reach(Box::new([])).len();
            for pack in pack(prefixes, rest, v6(id), |a| a.len()) {
                updates.announced += pack.len() as u64;
                // First, so that a router finds the prefixes even where it cannot read the rest
                // (RFC 7606 §5.1).
                let mut all = vec![reach(pack.into_boxed_slice())];
                all.extend(common.iter().cloned());
                updates.push(BgpUpdateMessage::new(vec![], all, vec![]));
            }
        }
        (Family::Ipv4, None, _) | (Family::Ipv6, _, None) => {}
    }
}

fn length(attributes: &[PathAttribute]) -> usize {
    attributes.iter().map(WritablePdu::len).sum()
}

/// With NEXT_HOP at its place: attributes stand in the order of their types (RFC 4271 §5).
fn ordered(mut attributes: Vec<PathAttribute>, next_hop: PathAttribute) -> Vec<PathAttribute> {
    const BEFORE: usize = 2;
    attributes.insert(BEFORE, next_hop);
    attributes
}

/// What routes of both families have: ORIGIN, AS_PATH, then what is optional, by type.
fn common(session: &Session, routes: &Attributes) -> Vec<PathAttribute> {
    use PathAttributeValue as Value;
    let mut all = vec![
        attribute(false, true, Value::Origin(Origin::IGP)),
        attribute(false, true, Value::AsPath(as_path(session, &routes.path))),
    ];
    if let Some(med) = routes.med {
        let med = Value::MultiExitDiscriminator(MultiExitDiscriminator::new(med));
        all.push(attribute(true, false, med));
    }
    if let Some(preference) = routes.local_pref {
        let preference = Value::LocalPreference(LocalPreference::new(preference));
        all.push(attribute(false, true, preference));
    }
    let mut of_kind: BTreeMap<u8, Vec<Community>> = BTreeMap::new();
    for &community in &routes.communities {
        of_kind.entry(kind(community)).or_default().push(community);
    }
    let mut as4_path =
        (!session.four_octet_as && routes.path.iter().any(|&n| is_long(n))).then(|| {
            attribute(
                true,
                true,
                Value::As4Path(As4Path::new(sequence4(&routes.path))),
            )
        });
    for (kind, communities) in of_kind {
        if kind > AS4_PATH {
            all.extend(as4_path.take());
        }
        all.push(attribute(true, true, communities_value(kind, &communities)));
    }
    all.extend(as4_path);
    all
}

const COMMUNITIES: u8 = 8;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const LARGE_COMMUNITIES: u8 = 32;

const fn kind(community: Community) -> u8 {
    match community {
        Community::Standard(_) => COMMUNITIES,
        Community::Extended(..) => EXTENDED_COMMUNITIES,
        Community::Large(..) => LARGE_COMMUNITIES,
    }
}

fn communities_value(kind: u8, all: &[Community]) -> PathAttributeValue {
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for &community in all {
        match community {
            Community::Standard(value) => standard.push(Standard::new(value)),
            Community::Extended(subtype, global_admin, local_admin) => {
                extended.push(two_octet_as(subtype, global_admin, local_admin));
            }
            Community::Large(global, first, second) => {
                large.push(LargeCommunity::new(global, first, second));
            }
        }
    }
    match kind {
        COMMUNITIES => PathAttributeValue::Communities(Communities::new(standard)),
        EXTENDED_COMMUNITIES => {
            PathAttributeValue::ExtendedCommunities(ExtendedCommunities::new(extended))
        }
        _ => PathAttributeValue::LargeCommunities(LargeCommunities::new(large)),
    }
}

/// A route target or origin (RFC 4360 §4 and §5).
fn two_octet_as(subtype: u8, global_admin: u16, local_admin: u32) -> ExtendedCommunity {
    use TransitiveTwoOctetExtendedCommunity as Kind;
    ExtendedCommunity::TransitiveTwoOctet(match subtype {
        Community::ROUTE_ORIGIN => Kind::RouteOrigin {
            global_admin,
            local_admin,
        },
        _ => Kind::RouteTarget {
            global_admin,
            local_admin,
        },
    })
}

const fn is_long(number: u32) -> bool {
    number > 0xffff
}

fn sequence4(path: &[u32]) -> Vec<As4PathSegment> {
    vec![As4PathSegment::new(AsPathSegmentType::AsSequence, path)]
}

/// The path, in two octets with AS_TRANS for a router that knows no longer ones (RFC 6793 §4.2.2).
fn as_path(session: &Session, path: &[u32]) -> AsPath {
    match (path.is_empty(), session.four_octet_as) {
        (true, true) => AsPath::as4_path_segments(vec![]),
        (true, false) => AsPath::as2_path_segments(vec![]),
        (false, true) => AsPath::as4_path_segments(sequence4(path)),
        (false, false) => {
            let short: Vec<u16> = path.iter().map(|&n| two_octets(n)).collect();
            let kind = AsPathSegmentType::AsSequence;
            AsPath::as2_path_segments(vec![As2PathSegment::new(kind, short)])
        }
    }
}

#[cfg(test)]
mod tests;
