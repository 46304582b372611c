//! What holds for every frame whatever its bytes: used by the tests and by the fuzz target.

use lockstep_wire::ipv4::Ipv4Header;
use lockstep_wire::ipv6::Ipv6Header;
use lockstep_wire::reply::{self, Back};
use lockstep_wire::{Control, destination, flow_of, parse, parse_fragment, parse_icmp};
use lockstep_wire::{FlowKey, HashSeed, Headers, LinkHeader, Outer, ParseError};

const SEED: HashSeed = HashSeed::new(1);

/// Parses the frame and pushes every kind of outer header onto it; panics where the crate breaks
/// its word. The result is whether the frame was accepted.
pub fn check(frame: &[u8]) -> bool {
    let _ = destination(frame);
    let at_a_glance = flow_of(frame);
    match parse_icmp(frame) {
        Ok((headers, Control::Error(_))) => {
            check_offsets(frame, &headers);
            check_pushes(frame, &headers);
        }
        Ok((headers, Control::Echo)) => {
            check_offsets(frame, &headers);
            check_answer(frame, |frame| reply::echo(frame, &headers, 7));
        }
        Err(_) => {}
    }
    if let Ok(fragment) = parse_fragment(frame) {
        if fragment.is_first() {
            check_offsets(frame, &fragment.headers);
        }
        check_pushes(frame, &fragment.headers);
        check_too_big(frame, &fragment.headers);
    }
    let Ok(headers) = parse(frame) else {
        return false;
    };
    check_offsets(frame, &headers);
    check_pushes(frame, &headers);
    check_too_big(frame, &headers);
    let to = match headers.key {
        FlowKey::V4(key) => key.destination_address(),
        FlowKey::V6(key) => key.destination_address(),
    };
    assert_eq!(destination(frame), Some(to));
    assert_eq!(at_a_glance, Some(headers.key));
    assert_eq!(
        headers.key.hash(&SEED),
        headers.key.reversed().reversed().hash(&SEED)
    );
    true
}

fn check_offsets(frame: &[u8], headers: &Headers) {
    let (network, transport) = (usize::from(headers.network), usize::from(headers.transport));
    let end = network + usize::from(headers.length);
    assert!(network >= 14 + usize::from(headers.room));
    let least = match headers.key {
        FlowKey::V4(_) => 20,
        FlowKey::V6(_) => 40,
    };
    assert!(network + least <= transport, "{headers:?}");
    assert!(transport + 8 <= end, "{headers:?}");
    assert!(end <= frame.len(), "{headers:?}");
}

fn check_too_big(frame: &[u8], headers: &Headers) {
    let start = usize::from(headers.network);
    let packet = start..start + usize::from(headers.length);
    check_answer(frame, |frame| {
        reply::too_big(frame, &Back::of(frame, headers)?, packet, 1_400, 7)
    });
}

/// What is answered is a frame within its bounds, with right checksums, to where it came from.
fn check_answer(frame: &[u8], answer: impl FnOnce(&mut [u8]) -> Option<usize>) {
    let mut answered = frame.to_vec();
    let Some(length) = answer(&mut answered) else {
        return;
    };
    assert_eq!(answered[..6], frame[6..12]);
    assert_eq!(answered[6..12], frame[..6]);
    assert_eq!(answered[length..], frame[length..], "nothing behind it");
    match parse_icmp(&answered[..length]) {
        // A packet too big of a TCP or UDP packet, its quote whole enough to be read again, unless
        // it answers somebody's fragment.
        Ok((_, Control::Error(_))) => {}
        Ok((_, Control::Echo)) => panic!("an answer asks for one"),
        Err(error) => assert_ne!(error, ParseError::BadChecksum),
    }
}

fn check_pushes(frame: &[u8], headers: &Headers) {
    let outers = [
        Outer::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        Outer::v6(1u128.into(), u128::MAX.into()),
    ];
    for outer in outers {
        for vlan in [None, Some(u16::MAX)] {
            let link = LinkHeader {
                destination: [0xd0; 6],
                source: [0x50; 6],
                vlan,
            };
            check_push(frame, headers, &outer, &link);
        }
    }
}

fn check_push(frame: &[u8], headers: &Headers, outer: &Outer, link: &LinkHeader) {
    let fits = headers.room == outer.room(link.vlan.is_some())
        && headers.length.checked_add(outer.len()).is_some();
    if !fits {
        // Refused before anything is written: the first 256 bytes hold all that push may touch.
        let mut copy = [0; 256];
        let start = frame.len().min(copy.len());
        copy[..start].copy_from_slice(&frame[..start]);
        let mut pushed = frame.to_vec();
        assert!(outer.push(&mut pushed, headers, link, 7).is_err());
        assert_eq!(pushed[..start], copy[..start]);
        return;
    }
    let mut pushed = frame.to_vec();
    let length = outer
        .push(&mut pushed, headers, link, 7)
        .expect("the room fits");
    let network = usize::from(headers.network);
    assert_eq!(length, network + usize::from(headers.length));

    let packet = &pushed[link.len()..length];
    let inner = match outer.len() {
        20 => {
            let (header, inner) = Ipv4Header::split(packet).expect("a good outer IPv4 header");
            assert_eq!(header.ttl(), 64);
            assert_eq!(header.protocol(), if is_v4(headers) { 4 } else { 41 });
            inner
        }
        _ => {
            let (header, inner) = Ipv6Header::split(packet).expect("a good outer IPv6 header");
            assert_eq!(header.hop_limit(), 64);
            assert_eq!(header.next_header(), if is_v4(headers) { 4 } else { 41 });
            inner
        }
    };
    let before = &frame[network..length];
    let counted = if is_v4(headers) {
        Ipv4Header::split(inner).expect("the inner checksum is still right");
        assert_eq!(inner[8] + 1, before[8]);
        assert_eq!(inner[..8], before[..8]);
        assert_eq!(inner[9], before[9]);
        12
    } else {
        assert_eq!(inner[7] + 1, before[7]);
        assert_eq!(inner[..7], before[..7]);
        8
    };
    assert_eq!(
        inner[counted..],
        before[counted..],
        "the payload is not touched"
    );
    assert_eq!(
        pushed[length..],
        frame[length..],
        "nor what follows the packet"
    );
}

fn is_v4(headers: &Headers) -> bool {
    matches!(headers.key, FlowKey::V4(_))
}
