//! Messages from bytes: whole ones, parts, broken ones.

use super::super::Families;
use super::super::open::{self, Settings};
use super::super::peer::{Event, Peer, Slot};
use super::*;
use crate::drains::Timestamp;
use netgauze_bgp_pkt::notification::{BgpNotificationMessage, CeaseError};
use netgauze_bgp_pkt::route_refresh::BgpRouteRefreshMessage;
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use proptest::prelude::*;

fn settings() -> Settings {
    Settings {
        local_as: 4_200_000_000,
        router_id: [10, 0, 0, 1].into(),
        remote_as: 4_200_000_000,
        hold_time: 9,
        families: Families::from(Family::ALL),
        add_path: true,
        graceful_restart: Some(120),
        passive: false,
    }
}

/// One message of each kind, and an UPDATE as routers send it.
fn samples() -> Vec<Vec<u8>> {
    use netgauze_bgp_pkt::iana::RouteRefreshSubcode;
    use netgauze_iana::address_family::AddressType;
    let refresh =
        BgpRouteRefreshMessage::new(AddressType::Ipv6Unicast, RouteRefreshSubcode::NormalRequest);
    let attributes = [
        &[0x40, 1, 1, 0][..],
        &[0x50, 2, 0, 6, 2, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 3, 4, 10, 0, 0, 1],
    ]
    .concat();
    let body = [
        &[0, 4, 24, 10, 1, 2][..],
        &u16::try_from(attributes.len()).unwrap().to_be_bytes(),
        &attributes,
        &[24, 10, 1, 3],
    ]
    .concat();
    let length = u16::try_from(HEADER + body.len()).unwrap();
    let update = [&[0xff; 16][..], &length.to_be_bytes(), &[UPDATE], &body].concat();
    vec![
        encode(&BgpMessage::Open(open::offer(&settings(), true))),
        encode(&BgpMessage::KeepAlive),
        encode(&BgpMessage::RouteRefresh(refresh)),
        encode(&BgpMessage::Update(BgpUpdateMessage::new(
            vec![],
            vec![],
            vec![],
        ))),
        update,
        notification(&Notification::shutdown("maintenance")),
    ]
}

fn decode_all(bytes: &[u8]) -> (Vec<Message>, Option<Notification>) {
    let mut buffer = BytesMut::from(bytes);
    let mut all = Vec::new();
    loop {
        match decode(&mut buffer) {
            Ok(Some(message)) => all.push(message),
            Ok(None) => return (all, None),
            Err(why) => return (all, Some(why)),
        }
    }
}

#[test]
fn messages_come_out_whole_however_they_arrive() {
    let bytes = samples().concat();
    let (whole, error) = decode_all(&bytes);
    assert_eq!((whole.len(), error), (samples().len(), None));
    assert_eq!(whole[2], Message::Refresh(Some(Family::Ipv6)));
    assert_eq!(whole[4], Message::Update(Update::Fine));
    let (mut buffer, mut pieces) = (BytesMut::new(), Vec::new());
    for byte in &bytes {
        buffer.extend_from_slice(&[*byte]);
        pieces.extend(decode(&mut buffer).unwrap());
    }
    assert_eq!(pieces, whole);
}

#[test]
fn what_is_no_message_is_refused_by_its_header() {
    let keepalive = encode(&BgpMessage::KeepAlive);
    let changed = |at: usize, to: u8| {
        let mut bytes = keepalive.clone();
        bytes[at] = to;
        bytes
    };
    let rows = [
        (changed(3, 0), Notification::new(1, 1)),
        (changed(18, 9), Notification::new(1, 3).with([9])),
        (changed(17, 18), Notification::new(1, 2).with([0, 18])),
        (changed(17, 20), Notification::new(1, 2).with([0, 20])),
        (changed(16, 255), Notification::new(1, 2).with([255, 19])),
        (changed(18, 2), Notification::new(1, 2).with([0, 19])),
    ];
    for (bytes, expected) in rows {
        assert_eq!(decode_all(&bytes).1, Some(expected), "{bytes:?}");
    }
}

fn update(withdrawn: &[u8], attributes: &[u8], prefixes: &[u8]) -> Result<Update, Notification> {
    let counted = |part: &[u8]| [&(part.len() as u16).to_be_bytes(), part].concat();
    received::update(&[counted(withdrawn), counted(attributes), prefixes.to_vec()].concat())
}

#[test]
fn updates_are_looked_through_and_only_broken_frames_end_a_session() {
    let origin = [0x40, 1, 1, 0];
    let cut = [0x40, 1, 9, 0];
    let network = Notification::new(3, 10);
    assert_eq!(update(&[], &[], &[]), Ok(Update::Fine));
    assert_eq!(update(&[24, 10, 1, 2], &[], &[]), Ok(Update::Fine));
    assert_eq!(update(&[], &origin, &[0, 32, 1, 2, 3, 4]), Ok(Update::Fine));
    assert_eq!(update(&[], &cut, &[8, 10]), Ok(Update::TreatedAsWithdrawal));
    assert_eq!(update(&[], &[], &[8, 10]), Ok(Update::TreatedAsWithdrawal));
    assert_eq!(update(&[33, 1, 2, 3, 4, 5], &[], &[]), Err(network.clone()));
    assert_eq!(update(&[], &origin, &[24, 10, 1]), Err(network));
    assert_eq!(
        received::update(&[0, 9, 1, 2]),
        Err(Notification::new(3, 1))
    );
}

#[test]
fn our_notifications_are_read_by_the_codec() {
    let bytes = notification(&Notification::shutdown("maintenance"));
    let mut context = BgpParsingContext::asn2_default();
    let read = BgpMessage::parse(&mut SliceReader::new(&bytes), &mut context).unwrap();
    let BgpMessage::Notification(BgpNotificationMessage::CeaseError(
        CeaseError::AdministrativeShutdown { value },
    )) = read
    else {
        panic!("{read:?}")
    };
    assert_eq!(&value[..], b"\x0bmaintenance");
    let long = Notification::new(6, 2).with(vec![0; 10_000]);
    assert_eq!(notification(&long).len(), MAX_MESSAGE);
}

/// What a router that lost its mind can do to a session, from each of its states.
fn survive(messages: &[Vec<u8>]) {
    let now = Timestamp(1_000);
    let theirs = Settings {
        router_id: [10, 0, 0, 2].into(),
        ..settings()
    };
    let open = encode(&BgpMessage::Open(open::offer(&theirs, false)));
    let keepalive = encode(&BgpMessage::KeepAlive);
    let prologues = [vec![], vec![open.clone()], vec![open, keepalive]];
    for prologue in prologues {
        let mut peer = Peer::new(settings(), None, 1, now);
        peer.handle(now, Event::Connected);
        let bytes = [prologue.concat(), messages.concat()].concat();
        let (all, error) = decode_all(&bytes);
        for message in all {
            peer.handle(now, Event::Received(Slot::OURS, message));
        }
        if let Some(why) = error {
            peer.handle(now, Event::Broken(Slot::OURS, why));
            assert!(peer.session().is_none());
        }
        let outputs = std::iter::from_fn(|| peer.poll()).count();
        assert!(outputs <= 8 + 2 * messages.len(), "{outputs}");
        assert!(peer.next_deadline().is_some(), "it goes on");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn messages_with_flipped_bits_end_a_session_at_most(
        which in any::<proptest::sample::Index>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8_u8), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut messages = samples();
        let at = which.index(messages.len());
        let message = &mut messages[at];
        for (place, bit) in flips {
            let place = place.index(message.len());
            message[place] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            let length = cut.index(message.len());
            message.truncate(length);
        }
        survive(&messages[at..]);
    }

    #[test]
    fn any_bytes_end_a_session_at_most(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut framed = vec![0xff; 16];
        framed.extend(u16::try_from(bytes.len() + HEADER).unwrap().to_be_bytes());
        framed.push(bytes.first().copied().unwrap_or(1) % 6);
        framed.extend(&bytes);
        survive(&[framed, bytes]);
    }
}
