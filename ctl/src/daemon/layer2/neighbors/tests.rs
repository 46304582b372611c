use super::*;
use proptest::prelude::*;

const OURS: Mac = [2, 0, 0, 0, 0, 1];
const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

/// `who has 203.0.113.10 tell 203.0.113.1`.
fn arp_request() -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &THEIRS, &[8, 6]].concat();
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(THEIRS);
    frame.extend([203, 0, 113, 1]);
    frame.extend([0; 6]);
    frame.extend([203, 0, 113, 10]);
    // Padded to the shortest frame of Ethernet.
    frame.resize(60, 0);
    frame
}

const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

fn solicitation(from: Ipv6Addr, target: Ipv6Addr, hops: u8) -> Vec<u8> {
    let group = solicited_node(target);
    let builder = PacketBuilder::ethernet2(THEIRS, [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef])
        .ipv6(from.octets(), group.octets(), hops)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let mut payload = target.octets().to_vec();
    payload.extend([1, 1]);
    payload.extend(THEIRS);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    frame
}

#[test]
fn an_arp_request_is_answered_to_who_asked() {
    let asked = question(&arp_request()).unwrap();
    assert_eq!(asked.about, IpAddr::from([203, 0, 113, 10]));
    let mut expected = [&THEIRS[..], &OURS, &[8, 6]].concat();
    expected.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend(OURS);
    expected.extend([203, 0, 113, 10]);
    expected.extend(THEIRS);
    expected.extend([203, 0, 113, 1]);
    assert_eq!(answer(OURS, &asked), Some(expected));
}

#[test]
fn a_solicitation_is_answered_to_who_asked() {
    let asked = question(&solicitation(ASKER6, VIP6, 255)).unwrap();
    assert_eq!(asked.about, IpAddr::from(VIP6));
    let frame = answer(OURS, &asked).unwrap();
    assert_eq!(frame[..12], [THEIRS, OURS].concat());
    assert_eq!(frame[21], 255, "hop limit");
    assert_eq!(frame[22..38], VIP6.octets());
    assert_eq!(frame[38..54], ASKER6.octets());
    // Type 136, code 0, the checksum, solicited and override.
    assert_eq!((frame[54], frame[55], frame[58]), (136, 0, 0x60));
    assert_eq!(frame[62..78], VIP6.octets());
    assert_eq!(frame[78..], [&[2, 1][..], &OURS].concat());
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
        panic!("no ICMPv6");
    };
    assert!(icmp.is_checksum_valid(VIP6.octets(), ASKER6.octets()));
}

#[test]
fn who_has_no_address_yet_is_answered_with_all_the_others() {
    let asked = question(&solicitation(Ipv6Addr::UNSPECIFIED, VIP6, 255)).unwrap();
    let frame = answer(OURS, &asked).unwrap();
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[58], 0x20, "unsolicited, override");
}

#[test]
fn announcements_go_to_everybody() {
    let frames = announcements(OURS, [203, 0, 113, 10].into());
    assert_eq!(frames.len(), 2);
    for (frame, operation) in frames.iter().zip([1, 2]) {
        assert_eq!(frame[..6], BROADCAST);
        assert_eq!(frame[20..22], [0, operation]);
        assert_eq!(frame[22..28], OURS);
        assert_eq!(frame[28..32], frame[38..42], "about the sender itself");
    }
    let frames = announcements(OURS, VIP6.into());
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][54], 136);
}

#[test]
fn other_frames_ask_nothing() {
    let reply = answer(OURS, &question(&arp_request()).unwrap()).unwrap();
    assert_eq!(question(&reply), None);
    assert_eq!(question(&solicitation(ASKER6, VIP6, 254)), None, "routed");
    let mut from_group = arp_request();
    from_group[6] |= 1;
    assert_eq!(question(&from_group), None);
}

#[test]
fn the_group_of_an_address_is_its_last_three_bytes() {
    let group: Ipv6Addr = "ff02::1:ffab:cdef".parse().unwrap();
    assert_eq!(solicited_node(VIP6), group);
}

proptest! {
    #[test]
    fn any_frame_is_nothing_or_a_question_that_can_be_answered(
        noise in proptest::collection::vec(any::<u8>(), 0..120),
        of in 0usize..3,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut frame = match of {
            0 => noise,
            1 => arp_request(),
            _ => solicitation(ASKER6, VIP6, 255),
        };
        if !frame.is_empty() {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(asked) = question(&frame) {
            prop_assert!(answer(OURS, &asked).is_some());
        }
    }
}
