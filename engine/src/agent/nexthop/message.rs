//! rtnetlink messages ⇄ the state's words.

use super::hop::{Hop, Neighbour, Nud};
use super::state::{Event, Link, LinkKind, Query, Route};
use super::{NoRoute, Unsupported};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// The request that asks a query, complete but for its sequence number.
pub(super) fn request(query: &Query) -> NetlinkMessage<RouteNetlinkMessage> {
    let (message, flags) = match query {
        Query::Links => {
            let mut message = LinkMessage::default();
            // Counters are most of a link's message, and nobody reads them here.
            let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
            message.attributes.push(mask);
            (RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)
        }
        Query::Route(address) => {
            let mut message = RouteMessage::default();
            message.header.address_family = family(*address);
            message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
            let destination = RouteAttribute::Destination((*address).into());
            message.attributes.push(destination);
            (RouteNetlinkMessage::GetRoute(message), 0)
        }
        Query::Look(hop) => (RouteNetlinkMessage::GetNeighbour(neighbour_of(hop)), 0),
        Query::Use(hop) => {
            let mut message = neighbour_of(hop);
            message.header.flags = NeighbourFlags::Use;
            let flags = NLM_F_CREATE | NLM_F_ACK;
            (RouteNetlinkMessage::NewNeighbour(message), flags)
        }
    };
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn neighbour_of(hop: &Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(hop.address);
    message.header.ifindex = hop.ifindex;
    let destination = NeighbourAttribute::Destination(hop.address.into());
    message.attributes.push(destination);
    message
}

/// What a message of the kernel's tells; `None` when nothing that concerns next hops.
pub(super) fn event(message: RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(&message).map(Event::Link),
        // A port that leaves its bridge makes an AF_BRIDGE message: the link itself stays.
        RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Some(Event::LinkGone(message.header.index))
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbour(&message).map(|(hop, neighbour)| Event::Neighbour(hop, Some(neighbour)))
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            neighbour(&message).map(|(hop, _)| Event::Neighbour(hop, None))
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            changed_routes(&message).map(Event::Routes)
        }
        _ => None,
    }
}

/// A link, from `RTM_NEWLINK`; `None` for a message about something else of it: as a bridge's
/// port, or a wireless event.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut mac, mut base) = (None, None, None, None);
    let (mut foreign, mut vlan) = (false, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Address(value) => mac = <[u8; 6]>::try_from(&value[..]).ok(),
            LinkAttribute::Link(value) => base = Some(*value),
            LinkAttribute::LinkNetNsId(_) => foreign = true,
            LinkAttribute::LinkInfo(infos) => vlan = vlan_of(infos),
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let kind = match (ethernet && mac.is_some(), vlan, base) {
        (false, _, _) => LinkKind::Unusable(Unsupported::NotEthernet),
        (true, None, _) => LinkKind::Ethernet,
        (true, Some(_), _) if foreign => LinkKind::Unusable(Unsupported::ForeignBase),
        (true, Some((id, VlanProtocol::Ieee8021Q)), Some(base)) => LinkKind::Vlan { base, id },
        (true, Some((_, VlanProtocol::Ieee8021Q)), None) => {
            LinkKind::Unusable(Unsupported::ForeignBase)
        }
        (true, Some(_), _) => LinkKind::Unusable(Unsupported::StackedVlan),
    };
    let up = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
    Some(Link {
        index: message.header.index,
        name: name?,
        kind,
        mac: mac.unwrap_or_default(),
        mtu: mtu?,
        up: message.header.flags.contains(up),
    })
}

fn vlan_of(infos: &[LinkInfo]) -> Option<(u16, VlanProtocol)> {
    let is_vlan = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Vlan));
    if !infos.iter().any(is_vlan) {
        return None;
    }
    let (mut id, mut protocol) = (0, VlanProtocol::Ieee8021Q);
    for info in infos {
        if let LinkInfo::Data(InfoData::Vlan(values)) = info {
            for value in values {
                match value {
                    InfoVlan::Id(value) => id = *value,
                    InfoVlan::Protocol(value) => protocol = *value,
                    _ => {}
                }
            }
        }
    }
    Some((id, protocol))
}

/// A neighbor, from `RTM_NEWNEIGH`; `None` for a bridge's forwarding entry or one that the
/// kernel answers for as a proxy.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(Hop, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(value) => {
                mac = <[u8; 6]>::try_from(&value[..]).ok();
            }
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::Incomplete => Nud::Incomplete,
        NeighbourState::Reachable => Nud::Reachable,
        NeighbourState::Stale => Nud::Stale,
        NeighbourState::Delay => Nud::Delay,
        NeighbourState::Probe => Nud::Probe,
        NeighbourState::Failed => Nud::Failed,
        NeighbourState::Noarp => Nud::NoArp,
        NeighbourState::Permanent => Nud::Permanent,
        // Other: a state of a later kernel, of which nothing can be promised.
        _ => Nud::None,
    };
    let ifindex = message.header.ifindex;
    let address = address?;
    Some((Hop { ifindex, address }, Neighbour { state, mac }))
}

/// The route to an address, from the answer to `RTM_GETROUTE`.
pub(super) fn route(message: &RouteMessage) -> Result<Route, NoRoute> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(NoRoute::Local),
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            return Err(NoRoute::NotUnicast);
        }
        RouteType::BlackHole => return Err(NoRoute::Blackhole),
        RouteType::Unreachable => return Err(NoRoute::Unreachable),
        RouteType::Prohibit => return Err(NoRoute::Prohibited),
        _ => return Err(NoRoute::Missing),
    }
    let (mut ifindex, mut via, mut mtu) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(value) => ifindex = Some(*value),
            RouteAttribute::Gateway(RouteAddress::Inet(v4))
            | RouteAttribute::Via(RouteVia::Inet(v4)) => via = Some(IpAddr::V4(*v4)),
            // An IPv4 route by an IPv6 gateway (RFC 5549) has it in RTA_VIA.
            RouteAttribute::Gateway(RouteAddress::Inet6(v6))
            | RouteAttribute::Via(RouteVia::Inet6(v6)) => via = Some(IpAddr::V6(*v6)),
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                return Err(NoRoute::Encapsulated);
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let ifindex = ifindex.ok_or(NoRoute::Missing)?;
    Ok(Route { ifindex, via, mtu })
}

/// What an error in the place of a route says. The kernel answers a lookup that ends in a route
/// of these types as it would a `connect`.
pub(super) const fn no_route(errno: i32) -> NoRoute {
    match errno {
        libc::ENETUNREACH => NoRoute::Missing,
        libc::EHOSTUNREACH => NoRoute::Unreachable,
        libc::EACCES => NoRoute::Prohibited,
        libc::EINVAL => NoRoute::Blackhole,
        errno => NoRoute::Refused(errno),
    }
}

fn changed_routes(message: &RouteMessage) -> Option<RangeInclusive<IpAddr>> {
    if message.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(destination) = attribute else {
            return None;
        };
        match destination {
            RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
            RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
            _ => None,
        }
    });
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let length = message.header.destination_prefix_length;
    Some(prefix(destination.unwrap_or(unspecified), length))
}

/// Any route of an IP version may be another, or any at all when a change does not say which.
pub(super) fn any_route(family: Option<u8>) -> Event {
    match family.map(AddressFamily::from) {
        Some(AddressFamily::Inet) => Event::Routes(prefix(Ipv4Addr::UNSPECIFIED.into(), 0)),
        Some(AddressFamily::Inet6) => Event::Routes(prefix(Ipv6Addr::UNSPECIFIED.into(), 0)),
        _ => Event::AllRoutes,
    }
}

fn prefix(address: IpAddr, length: u8) -> RangeInclusive<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            let bits = v4.to_bits();
            let ends = [bits & !host, bits | host].map(|end| IpAddr::V4(end.into()));
            ends[0]..=ends[1]
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            let bits = v6.to_bits();
            let ends = [bits & !host, bits | host].map(|end| IpAddr::V6(end.into()));
            ends[0]..=ends[1]
        }
    }
}

/// The error number of an error message; `None` for an acknowledgment.
pub(super) fn errno(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<i32> {
    match payload {
        NetlinkPayload::Error(error) => error.code.map(|code| code.get().abs()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{Emitable, Parseable};

    #[test]
    fn a_prefix_covers_its_addresses() {
        for (address, length, first, last) in [
            ("10.1.2.3", 24, "10.1.2.0", "10.1.2.255"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
            ("0.0.0.0", 0, "0.0.0.0", "255.255.255.255"),
            ("fd00::1", 128, "fd00::1", "fd00::1"),
            ("fd00::", 64, "fd00::", "fd00::ffff:ffff:ffff:ffff"),
            ("::", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let expected = first.parse().unwrap()..=last.parse().unwrap();
            let range = prefix(address.parse().unwrap(), length);
            assert_eq!(range, expected, "{address}/{length}");
        }
    }

    #[test]
    fn a_change_of_one_ip_version_concerns_no_address_of_the_other() {
        let v4 = prefix(Ipv4Addr::UNSPECIFIED.into(), 0);
        let v6 = prefix(Ipv6Addr::UNSPECIFIED.into(), 0);
        assert_eq!(any_route(Some(libc::AF_INET as u8)), Event::Routes(v4));
        assert_eq!(any_route(Some(libc::AF_INET6 as u8)), Event::Routes(v6));
        assert_eq!(any_route(Some(libc::AF_UNSPEC as u8)), Event::AllRoutes);
        assert_eq!(any_route(None), Event::AllRoutes);
    }

    #[test]
    fn a_bridge_port_that_leaves_its_bridge_is_still_a_link() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.interface_family = AddressFamily::Bridge;
        let left = RouteNetlinkMessage::DelLink(message.clone());
        assert_eq!(event(left), None);
        message.header.interface_family = AddressFamily::Unspec;
        let gone = RouteNetlinkMessage::DelLink(message);
        assert_eq!(event(gone), Some(Event::LinkGone(7)));
    }

    /// A link as the kernel sends it, read back from its bytes.
    fn read(kind: LinkLayerType, attributes: Vec<LinkAttribute>) -> Option<Link> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = kind;
        message.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        link(&LinkMessage::parse(&bytes).expect("a link"))
    }

    fn named(more: Vec<LinkAttribute>) -> Vec<LinkAttribute> {
        let mut attributes = vec![
            LinkAttribute::IfName("eth0.5".into()),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        ];
        attributes.extend(more);
        attributes
    }

    fn vlan(protocol: VlanProtocol) -> LinkAttribute {
        let values = vec![InfoVlan::Id(5), InfoVlan::Protocol(protocol)];
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(values)),
        ])
    }

    #[test]
    fn a_link_is_of_a_kind_that_frames_leave_by_or_not() {
        let on = LinkAttribute::Link;
        let veth = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        let (single, service) = (
            vlan(VlanProtocol::Ieee8021Q),
            vlan(VlanProtocol::Ieee8021Ad),
        );
        let elsewhere = LinkAttribute::LinkNetNsId(1);
        let tagged = LinkKind::Vlan { base: 2, id: 5 };
        for (attributes, kind) in [
            (vec![], LinkKind::Ethernet),
            // The other end of a veth is not a base.
            (vec![veth, on(2), elsewhere.clone()], LinkKind::Ethernet),
            (vec![single.clone(), on(2)], tagged),
            (vec![on(2), single.clone()], tagged),
            (
                vec![single.clone(), on(2), elsewhere],
                LinkKind::Unusable(Unsupported::ForeignBase),
            ),
            (vec![single], LinkKind::Unusable(Unsupported::ForeignBase)),
            (
                vec![service, on(2)],
                LinkKind::Unusable(Unsupported::StackedVlan),
            ),
        ] {
            let expected = Link {
                index: 7,
                name: "eth0.5".into(),
                kind,
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1496,
                up: true,
            };
            assert_eq!(
                read(LinkLayerType::Ether, named(attributes)),
                Some(expected)
            );
        }
        let tun = read(LinkLayerType::None, named(vec![])).map(|link| link.kind);
        assert_eq!(tun, Some(LinkKind::Unusable(Unsupported::NotEthernet)));
        // A wireless event names the link, and nothing else of it.
        assert_eq!(read(LinkLayerType::Ether, vec![]), None);
    }

    #[test]
    fn a_route_with_an_encapsulation_is_none_for_us() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(3));
        let plain = Route {
            ifindex: 3,
            via: None,
            mtu: None,
        };
        assert_eq!(route(&message), Ok(plain));
        let encapsulation = netlink_packet_route::route::RouteLwEnCapType::Mpls;
        let attribute = RouteAttribute::EncapType(encapsulation);
        message.attributes.push(attribute);
        assert_eq!(route(&message), Err(NoRoute::Encapsulated));
    }
}
