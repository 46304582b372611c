//! Frames of ARP (RFC 826, RFC 5227) and neighbor discovery (RFC 4861) about addresses that the
//! kernel does not have.

use etherparse::icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];

/// Who wants to know where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The address.
    pub about: IpAddr,
    /// Who asks; unspecified where it has no address yet.
    pub from: IpAddr,
    mac: Mac,
}

/// Reads a question of a neighbor. Of other frames, and of what is wrong in any way: `None`.
pub fn question(frame: &[u8]) -> Option<Question> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let source: Mac = frame.get(6..12)?.try_into().ok()?;
    // No station has a group's address.
    if source[0] & 1 != 0 {
        return None;
    }
    match packet.net? {
        NetSlice::Arp(arp) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            (arp.operation == ArpOperation::REQUEST).then(|| Question {
                about: Ipv4Addr::from(arp.target_ipv4).into(),
                from: Ipv4Addr::from(arp.sender_ipv4).into(),
                mac: arp.sender_mac,
            })
        }
        NetSlice::Ipv6(v6) => {
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
                return None;
            };
            // Section 7.1.1: no router let it through, and it asks for one address.
            let Ok(Icmpv6PayloadSlice::NeighborSolicitation(asked)) = icmp.payload_slice() else {
                return None;
            };
            let target = asked.target_address();
            let sound = v6.header().hop_limit() == 255 && !target.is_multicast();
            sound.then(|| Question {
                about: target.into(),
                from: v6.header().source_addr().into(),
                mac: source,
            })
        }
        _ => None,
    }
}

/// The answer: it is here.
pub fn answer(mac: Mac, question: &Question) -> Option<Vec<u8>> {
    match (question.about, question.from) {
        (IpAddr::V4(vip), IpAddr::V4(from)) => {
            let to = (question.mac, question.mac, from);
            arp(mac, vip, ArpOperation::REPLY, to)
        }
        // Who looks whether an address is free has none to be answered at (section 7.2.4).
        (IpAddr::V6(vip), IpAddr::V6(from)) if from.is_unspecified() => advertise(mac, vip, None),
        (IpAddr::V6(vip), IpAddr::V6(from)) => advertise(mac, vip, Some((question.mac, from))),
        _ => None,
    }
}

/// What every neighbor is told when an address moves here. Of ARP both forms: some take the
/// request only, some the reply only (RFC 5227 section 3).
pub fn announcements(mac: Mac, vip: IpAddr) -> Vec<Vec<u8>> {
    let frames = match vip {
        IpAddr::V4(vip) => vec![
            arp(mac, vip, ArpOperation::REQUEST, (BROADCAST, [0; 6], vip)),
            arp(mac, vip, ArpOperation::REPLY, (BROADCAST, BROADCAST, vip)),
        ],
        IpAddr::V6(vip) => vec![advertise(mac, vip, None)],
    };
    frames.into_iter().flatten().collect()
}

/// `to`: the frame's destination, then the target's addresses in the message.
fn arp(
    mac: Mac,
    vip: Ipv4Addr,
    operation: ArpOperation,
    (to, target_mac, target): (Mac, Mac, Ipv4Addr),
) -> Option<Vec<u8>> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac,
        sender_ipv4: vip.octets(),
        target_mac,
        target_ipv4: target.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac, to).arp(packet.into());
    let mut frame = Vec::with_capacity(builder.size());
    builder.write(&mut frame).ok()?;
    Some(frame)
}

/// An advertisement to who asked, or to all nodes. It overrides what they know: another balancer
/// may have had the address before.
fn advertise(mac: Mac, vip: Ipv6Addr, to: Option<(Mac, Ipv6Addr)>) -> Option<Vec<u8>> {
    /// The option "target link-layer address", of one times eight bytes (section 4.6.1).
    const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
    let all_nodes = (
        [0x33, 0x33, 0, 0, 0, 1],
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    );
    let header = NeighborAdvertisementHeader {
        router: false,
        solicited: to.is_some(),
        r#override: true,
    };
    let (to_mac, to_ip) = to.unwrap_or(all_nodes);
    let payload = [&vip.octets()[..], &TARGET_LINK_LAYER, &mac].concat();
    let builder = PacketBuilder::ethernet2(mac, to_mac)
        .ipv6(vip.octets(), to_ip.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).ok()?;
    Some(frame)
}

/// The group that a question about an address is sent to (RFC 4291 section 2.7.1).
pub fn solicited_node(vip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = vip.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

#[cfg(test)]
mod tests;
