//! Sessions between two machines over connections that come, go and cross, and what ends them.

use super::super::Families;
use super::super::wire;
use super::*;
use bytes::BytesMut;
use netgauze_bgp_pkt::BgpMessage;
use std::net::Ipv4Addr;

mod simulation;

fn settings(us: u8, them: u8) -> Settings {
    Settings {
        local_as: 64512,
        router_id: Ipv4Addr::new(10, 0, 0, us),
        remote_as: 64512,
        hold_time: 9,
        families: Families::from(Family::ALL),
        add_path: false,
        graceful_restart: Some(120),
        passive: us == them,
    }
}

/// What a side says, as bytes.
fn bytes(settings: &Settings, say: &Say) -> Vec<u8> {
    match say {
        Say::Open { restarted } => {
            wire::encode(&BgpMessage::Open(open::offer(settings, *restarted)))
        }
        Say::Keepalive => wire::encode(&BgpMessage::KeepAlive),
        Say::Notification(why) => wire::notification(why),
    }
}

fn message(bytes: &[u8]) -> Message {
    let mut bytes = BytesMut::from(bytes);
    let message = wire::decode(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    message
}

fn open_of(settings: &Settings) -> Message {
    message(&bytes(settings, &Say::Open { restarted: false }))
}

fn outputs(peer: &mut Peer) -> Vec<Output> {
    std::iter::from_fn(|| peer.poll()).collect()
}

const NOW: Timestamp = Timestamp(1_000);

/// A session with .2 over a connection of ours.
fn established() -> Peer {
    let mut peer = Peer::new(settings(1, 2), None, 7, NOW);
    for event in [
        Event::Connected,
        Event::Received(Slot::OURS, open_of(&settings(2, 1))),
        Event::Received(Slot::OURS, Message::Keepalive),
    ] {
        peer.handle(NOW, event);
    }
    assert_eq!(peer.state(), State::Established);
    outputs(&mut peer);
    peer
}

fn theirs(peer: &mut Peer) -> Slot {
    peer.handle(NOW, Event::Accepted);
    let accepted = |o: &Output| match o {
        Output::Accept(slot) => *slot,
        _ => None,
    };
    outputs(peer).iter().find_map(accepted).unwrap()
}

fn notified(outputs: &[Output]) -> Option<Notification> {
    outputs.iter().find_map(|output| match output {
        Output::Send(_, Say::Notification(why)) => Some(why.clone()),
        _ => None,
    })
}

#[test]
fn a_session_comes_up_and_is_kept_by_keepalives() {
    let mut peer = established();
    let mut now = NOW;
    let (mut sent, mut heard) = (0, 0);
    while now.since(NOW) < Duration::from_secs(60) {
        now = peer.next_deadline().unwrap();
        peer.handle(now, Event::Timer);
        let all = outputs(&mut peer);
        sent += all
            .iter()
            .filter(|o| matches!(o, Output::Send(_, Say::Keepalive)))
            .count();
        // Theirs come half as often as ours, as those of UPDATEs.
        heard += 1;
        if heard % 2 == 0 {
            let update = Message::Update(super::super::received::Update::Fine);
            peer.handle(now, Event::Received(Slot::OURS, update));
        }
    }
    assert_eq!(peer.state(), State::Established);
    assert!((20..=27).contains(&sent), "{sent}");
}

#[test]
fn a_router_that_falls_silent_loses_its_session_after_the_hold_time() {
    let mut peer = established();
    let mut now = NOW;
    while peer.session().is_some() {
        now = peer.next_deadline().unwrap();
        peer.handle(now, Event::Timer);
    }
    assert_eq!(now.since(NOW), Duration::from_secs(9));
    assert_eq!(
        notified(&outputs(&mut peer)),
        Some(Notification::HOLD_TIMER)
    );
    assert_eq!(peer.cause(), Some(&Cause::Ours(Notification::HOLD_TIMER)));
    assert_eq!(peer.counters().flaps, 1);
}

#[test]
fn attempts_come_less_and_less_often_with_jitter_and_go_on_for_ever() {
    let mut peer = Peer::new(settings(1, 2), None, 7, NOW);
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..20 {
        assert_eq!(outputs(&mut peer).first(), Some(&Output::Connect));
        peer.handle(now, Event::Refused("refused".to_owned()));
        outputs(&mut peer);
        let next = peer.next_deadline().unwrap();
        waits.push(next.since(now));
        now = next;
        peer.handle(now, Event::Timer);
    }
    assert!(waits[0] <= BACK_OFF.0 && waits[0] >= BACK_OFF.0 * 3 / 4);
    assert!(
        waits
            .iter()
            .skip(8)
            .all(|w| *w >= BACK_OFF.1 * 3 / 4 && *w <= BACK_OFF.1)
    );
    assert!(waits.iter().skip(8).any(|w| *w != waits[8]), "no jitter");
    assert_eq!(peer.cause().unwrap().to_string(), "cannot connect: refused");
}

#[test]
fn opens_that_cannot_be_agreed_with_are_refused_by_name() {
    let ours = settings(1, 2);
    let theirs = || settings(2, 1);
    let rows = [
        (
            Settings {
                remote_as: 0,
                local_as: 64513,
                ..theirs()
            },
            Some((2, 2)),
        ),
        (
            Settings {
                router_id: [10, 0, 0, 1].into(),
                ..theirs()
            },
            Some((2, 3)),
        ),
        (
            Settings {
                router_id: [0, 0, 0, 0].into(),
                ..theirs()
            },
            Some((2, 3)),
        ),
        (
            Settings {
                hold_time: 2,
                ..theirs()
            },
            Some((2, 6)),
        ),
        (
            Settings {
                hold_time: 0,
                ..theirs()
            },
            None,
        ),
        (theirs(), None),
    ];
    for (theirs, expected) in rows {
        let mut peer = Peer::new(ours.clone(), None, 7, NOW);
        peer.handle(NOW, Event::Connected);
        outputs(&mut peer);
        let mut open = BytesMut::from(&bytes(&theirs, &Say::Open { restarted: false })[..]);
        peer.handle(
            NOW,
            match wire::decode(&mut open) {
                Ok(message) => Event::Received(Slot::OURS, message.unwrap()),
                Err(why) => Event::Broken(Slot::OURS, why),
            },
        );
        let why = notified(&outputs(&mut peer));
        assert_eq!(
            why.as_ref().map(|n| (n.code, n.subcode)),
            expected,
            "{theirs:?}"
        );
        if let Some(why) = why.filter(|n| n.subcode == 2) {
            let words = why.to_string();
            assert!(
                words.contains("says AS 64513") && words.contains("says 64512"),
                "{words}"
            );
        }
    }
    let v6 = Settings {
        families: Families::from([Family::Ipv6]),
        ..ours
    };
    let v4 = Settings {
        families: Families::from([Family::Ipv4]),
        ..theirs()
    };
    let mut peer = Peer::new(v6, None, 7, NOW);
    peer.handle(NOW, Event::Connected);
    outputs(&mut peer);
    peer.handle(NOW, Event::Received(Slot::OURS, open_of(&v4)));
    assert_eq!(notified(&outputs(&mut peer)), Some(Notification::new(2, 7)));
}

#[test]
fn what_both_sides_offer_is_agreed_on() {
    let theirs = Settings {
        hold_time: 6,
        families: Families::from([Family::Ipv6]),
        add_path: true,
        graceful_restart: None,
        ..settings(2, 1)
    };
    let mut peer = Peer::new(settings(1, 2), None, 7, NOW);
    peer.handle(NOW, Event::Connected);
    peer.handle(NOW, Event::Received(Slot::OURS, open_of(&theirs)));
    peer.handle(NOW, Event::Received(Slot::OURS, Message::Keepalive));
    let (_, session) = peer.session().unwrap();
    assert_eq!(session.hold_time, Duration::from_secs(6));
    assert_eq!(session.families, theirs.families);
    assert!(session.add_path.is_empty(), "nobody receives");
    assert_eq!(session.graceful_restart, None);
    assert!(session.four_octet_as);
}

#[test]
fn the_connection_of_the_greater_id_is_kept() {
    for (us, kept_is_ours) in [(1, false), (9, true)] {
        let mut peer = Peer::new(settings(us, 2), None, 7, NOW);
        peer.handle(NOW, Event::Connected);
        let slot = theirs(&mut peer);
        let open = || open_of(&settings(2, us));
        peer.handle(NOW, Event::Received(Slot::OURS, open()));
        outputs(&mut peer);
        peer.handle(NOW, Event::Received(slot, open()));
        let all = outputs(&mut peer);
        assert_eq!(notified(&all), Some(Notification::COLLISION));
        let lost = if kept_is_ours { slot } else { Slot::OURS };
        assert!(all.contains(&Output::Close(lost)), "{all:?}");
        let kept = if kept_is_ours { Slot::OURS } else { slot };
        peer.handle(NOW, Event::Received(kept, Message::Keepalive));
        assert_eq!(peer.session().map(|(s, _)| s), Some(kept));
        assert_eq!(peer.cause(), None, "a collision is no error");
    }
}

#[test]
fn an_established_session_yields_to_a_restarted_router_only() {
    for (graceful, kept) in [(None, true), (Some(120), false)] {
        let knows = |s: Settings| Settings {
            graceful_restart: graceful,
            ..s
        };
        let mut peer = Peer::new(settings(1, 2), None, 7, NOW);
        peer.handle(NOW, Event::Connected);
        peer.handle(
            NOW,
            Event::Received(Slot::OURS, open_of(&knows(settings(2, 1)))),
        );
        peer.handle(NOW, Event::Received(Slot::OURS, Message::Keepalive));
        outputs(&mut peer);
        let slot = theirs(&mut peer);
        assert!(peer.session().is_some(), "a connection alone says nothing");
        peer.handle(NOW, Event::Received(slot, open_of(&knows(settings(2, 1)))));
        let all = outputs(&mut peer);
        assert_eq!(peer.session().is_some(), kept, "{graceful:?}");
        match kept {
            true => assert_eq!(notified(&all), Some(Notification::COLLISION)),
            false => {
                assert_eq!(notified(&all), None, "RFC 4724: without a NOTIFICATION");
                assert!(all.contains(&Output::Down));
                peer.handle(NOW, Event::Received(slot, Message::Keepalive));
                assert_eq!(peer.session().map(|(s, _)| s), Some(slot));
            }
        }
    }
}

#[test]
fn bfd_ends_a_session_and_nothing_else() {
    let mut peer = established();
    peer.handle(NOW, Event::BfdDown);
    assert_eq!(notified(&outputs(&mut peer)), Some(Notification::BFD_DOWN));
    assert!(peer.session().is_none());
    assert!(peer.next_deadline().is_some(), "it is tried again");
    peer.handle(NOW, Event::BfdDown);
    assert_eq!(outputs(&mut peer), []);
}

#[test]
fn an_end_says_why_and_a_restart_says_nothing() {
    for why in [Some(Notification::shutdown("bye")), None] {
        let mut peer = established();
        peer.handle(NOW, Event::Stop(why.clone()));
        let all = outputs(&mut peer);
        assert_eq!(notified(&all), why);
        assert!(all.contains(&Output::Close(Slot::OURS)));
        assert_eq!((peer.state(), peer.next_deadline()), (State::Idle, None));
        peer.handle(NOW, Event::Accepted);
        assert_eq!(outputs(&mut peer), [Output::Accept(None)]);
    }
}

#[test]
fn a_passive_peer_waits() {
    let passive = Settings {
        passive: true,
        ..settings(1, 2)
    };
    let mut peer = Peer::new(passive, None, 7, NOW);
    assert_eq!(outputs(&mut peer), []);
    assert_eq!((peer.state(), peer.next_deadline()), (State::Active, None));
    let slot = theirs(&mut peer);
    peer.handle(NOW, Event::Received(slot, open_of(&settings(2, 1))));
    peer.handle(NOW, Event::Received(slot, Message::Keepalive));
    assert!(peer.session().is_some());
    peer.handle(NOW, Event::Closed(slot));
    assert_eq!(peer.state(), State::Active);
}

#[test]
fn a_restart_is_told_until_the_first_session_or_the_end_of_its_time() {
    let until = NOW.after(Duration::from_secs(120));
    let says = |at: Timestamp| {
        let mut peer = Peer::new(settings(1, 2), Some(until), 7, NOW);
        peer.handle(at, Event::Connected);
        outputs(&mut peer)
    };
    let bit = |restarted| Output::Send(Slot::OURS, Say::Open { restarted });
    assert!(says(NOW).contains(&bit(true)));
    assert!(says(until).contains(&bit(false)));
}

#[test]
fn a_refresh_is_handed_on_for_families_of_the_session() {
    let mut peer = established();
    for (asked, given) in [(Some(Family::Ipv4), 1), (None, 0)] {
        peer.handle(NOW, Event::Received(Slot::OURS, Message::Refresh(asked)));
        let all = outputs(&mut peer);
        let refreshes = all.iter().filter(|o| matches!(o, Output::Refresh(_)));
        assert_eq!(refreshes.count(), given);
        assert!(peer.session().is_some());
    }
}

#[test]
fn notifications_are_told_in_words() {
    let rows = [
        (
            Notification::shutdown("maintenance"),
            "administrative shutdown (maintenance)",
        ),
        (
            Notification::new(6, 2).with([3, b'a', 0x1b, b'b']),
            "administrative shutdown (a\\u{1b}b)",
        ),
        (
            Notification::new(6, 2).with([9, b'a']),
            "administrative shutdown",
        ),
        (Notification::new(2, 2), "bad peer AS"),
        (
            Notification::new(2, 2).because("1, not 2".to_owned()),
            "bad peer AS: 1, not 2",
        ),
        (Notification::new(99, 1), "error 99.1"),
    ];
    for (notification, expected) in rows {
        assert_eq!(notification.to_string(), expected);
    }
}
