//! When cookies are sent, and what is kept for connections that begin with one.

use super::*;
use crate::dataplane::nat::cookies::{HALF_OPEN, SynCookies};
use crate::dataplane::{DataplaneConfig, Work};
use crate::tables::BackendRef;
use crate::time::Seconds;
use alloc::sync::Arc;
use lockstep_plan::{Guard, IdleTimeouts};

#[test]
fn no_cookies_below_the_limit_or_before_a_backend_has_answered() {
    let mut w = World::new(V4);
    let first = w.syn_of(50_000);
    let first = w.at_backend(&first);
    for n in 1..200 {
        let syn = w.syn_of(50_000 + n);
        let out = w.at_backend(&syn);
        assert_eq!(out.flags, "S", "nobody has said yet what a backend takes");
    }
    let answer = w.answer(&first, 1).options(&[MaximumSegmentSize(1_400)]);
    w.forwarded(INSIDE, &answer);
    w.cookie(&USUAL);

    let mut w = World::pressed(V4);
    // One of those that were half open goes on.
    let ack = Seg {
        flags: "A".to_string(),
        acknowledgment: 2,
        ..w.syn_of(50_001)
    };
    w.at_backend(&ack);
    let syn = w.client("S", CLIENT_ISN, 0);
    assert_eq!(w.at_backend(&syn).flags, "S", "there is room for one");
    assert_eq!(w.counts(), (0, 0));
    const { assert!(HALF_OPEN > 62, "a small table has its own limit") };
}

#[test]
fn two_packets_that_nobody_has_to_hear_an_answer_for_are_no_connection() {
    for second in ["", "F"] {
        let mut w = World::new(V4);
        let tables = compile(&Tables::default(), 1, vec![service(V4)]);
        w.dataplane = with(config(2_000..=2_127), tables);
        for n in 0..500 {
            let syn = w.syn_of(50_000 + n);
            let (verdict, frame) = w.send(OUTSIDE, &syn);
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            if n == 0 {
                let answer = w.answer(&Seg::read(&frame), 1);
                let answer = answer.options(&[MaximumSegmentSize(1_400)]);
                w.forwarded(INSIDE, &answer);
            }
            let second = Seg {
                flags: second.to_string(),
                sequence: CLIENT_ISN.wrapping_add(1),
                ..syn
            };
            w.send(OUTSIDE, &second);
        }
        assert_eq!(w.flows(), 62, "{second:?}: all of them count as half open");
        assert_eq!(w.counts(), (500 - 62, 0), "{second:?}");
    }
}

#[test]
fn cookies_are_not_asked_of_rewriting_that_keeps_the_client() {
    let service = Service {
        mode: Mode::Nat,
        ..service(V4)
    };
    let mut w = World::of(V4, service);
    w.press();
    let syn = w.syn_of(60_000);
    assert_eq!(w.at_backend(&syn).flags, "S");
}

#[test]
fn who_is_denied_gets_no_cookie() {
    let mut w = World::pressed(V4);
    let denied = Service {
        guard: Guard {
            deny: vec!["198.51.100.0/24".parse().unwrap()],
            ..Guard::default()
        },
        ..service(V4)
    };
    let tables = compile(w.dataplane.tables(), 2, vec![denied]);
    w.dataplane.adopt(Arc::new(tables));
    let syn = w.client("S", CLIENT_ISN, 0);
    assert_eq!(w.dropped(OUTSIDE, &syn), DropReason::Denied);
    assert_eq!(w.counts(), (0, 0));
}

#[test]
fn a_flow_that_is_forgotten_leaves_nothing() {
    // By its age.
    let mut w = World::pressed(V4);
    w.open(&USUAL, &[WindowScale(7)]);
    w.dataplane.tick(Seconds::at(T0), 0);
    assert_eq!((w.dataplane.counters().spliced.get(), w.splices()), (1, 1));
    let after = T0.get() / 1_000_000 + u64::from(IdleTimeouts::DEFAULT.tcp_established) + 1;
    w.dataplane.tick(Seconds::new(after), usize::MAX);
    assert_eq!((w.flows(), w.splices()), (0, 0));
    assert_eq!(w.dataplane.counters().spliced.get(), 0);

    // By a connection that follows it.
    let mut w = World::pressed(V4);
    w.open(&USUAL, &[WindowScale(7)]);
    let reset = w.client("R", 0, 0);
    w.at_backend(&reset);
    let syn = w.client("S", 99, 0);
    assert_eq!(w.back(&syn).flags, "SA");
    assert_eq!(w.splices(), 0);

    // With its service.
    let mut w = World::pressed(V4);
    w.open(&USUAL, &[WindowScale(7)]);
    let tables = compile(w.dataplane.tables(), 2, vec![]);
    w.dataplane.adopt(Arc::new(tables));
    w.dataplane.tick(Seconds::at(T0), usize::MAX);
    assert_eq!((w.flows(), w.splices()), (0, 0));
}

#[test]
fn where_no_more_connections_can_be_kept_no_more_cookies_are_sent() {
    let mut w = World::pressed(V4);
    let connect = |w: &mut World, port: u16| {
        let syn = w.syn_of(port).options(&USUAL);
        let cookie = w.back(&syn).sequence;
        Seg {
            flags: "A".to_string(),
            sequence: CLIENT_ISN.wrapping_add(1),
            acknowledgment: cookie.wrapping_add(1),
            ..w.syn_of(port)
        }
    };
    let late = connect(&mut w, 1_000);
    let mut open = 0;
    while w.dataplane.flows_v4().has_splices() {
        let ack = connect(&mut w, 2_000 + open);
        assert_eq!(w.at_backend(&ack).flags, "S");
        open += 1;
    }
    assert_eq!(open, 256, "a quarter of the table, as a power of two");
    let reset = w.back(&late);
    assert_eq!(
        (reset.flags.as_str(), reset.sequence),
        ("R", late.acknowledgment)
    );
    assert_eq!(drops(&w, DropReason::SplicesFull), 1);
    let syn = w.syn_of(1_001);
    assert_eq!(w.at_backend(&syn).flags, "S", "as without cookies");
}

fn drops(w: &World, reason: DropReason) -> u64 {
    let vips = w.dataplane.counters().vips.iter();
    vips.map(|vip| vip.drops[reason as usize].get()).sum()
}

#[test]
fn a_client_that_a_full_table_has_no_entry_for_is_reset() {
    for ends in [V4, V6] {
        let mut w = World::new(ends);
        let small = DataplaneConfig {
            flows_v4: 40,
            flows_v6: 40,
            ..config(1_024..=16_383)
        };
        w.dataplane = with(small, compile(&Tables::default(), 1, vec![service(ends)]));
        let ack = |syn: Seg, acknowledgment: u32| Seg {
            flags: "A".to_string(),
            sequence: CLIENT_ISN.wrapping_add(1),
            acknowledgment,
            ..syn
        };
        let mut out = Vec::new();
        for port in 1_000..3_000 {
            let syn = w.syn_of(port);
            match w.send(OUTSIDE, &syn) {
                (Verdict::Forward { port: INSIDE, .. }, frame) => {
                    out.push(Seg::read(&frame));
                    w.at_backend(&ack(syn, 2));
                }
                (verdict, _) => assert_eq!(verdict, Verdict::Drop(DropReason::FlowsFull)),
            }
        }
        let answer = w.answer(&out[0], 1).options(&[MaximumSegmentSize(1_400)]);
        w.forwarded(INSIDE, &answer);
        let syn = w.syn_of(3_000);
        let cookie = w.back(&syn).sequence;
        let ack = ack(syn, cookie.wrapping_add(1));
        let full = drops(&w, DropReason::FlowsFull);
        let reset = w.back(&ack);
        assert_eq!(
            (reset.flags.as_str(), reset.sequence),
            ("R", ack.acknowledgment)
        );
        assert_eq!(drops(&w, DropReason::FlowsFull), full + 1);
    }
}

#[test]
fn nobody_but_a_host_gets_a_cookie() {
    let rows = [
        (V4, "224.0.0.1:1"),
        (V4, "255.255.255.255:1"),
        (V4, "127.0.0.1:1"),
        (V4, "0.0.0.0:1"),
        (V6, "[ff02::1]:1"),
        (V6, "[::1]:1"),
        (V6, "[::]:1"),
    ];
    for (ends, from) in rows {
        let mut w = World::pressed(ends);
        let syn = Seg {
            from: from.parse().unwrap(),
            ..w.client("S", CLIENT_ISN, 0)
        };
        assert_eq!(w.dropped(OUTSIDE, &syn), DropReason::Malformed, "{from}");
    }
    // Nor is what came to a group of stations answered, or from one.
    for at in [0, 6] {
        let mut w = World::pressed(V4);
        let mut frame = w.client("S", CLIENT_ISN, 0).frame(CLIENT_MAC);
        frame[at] |= 1;
        let (verdict, _) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
        assert_eq!(verdict, Verdict::Drop(DropReason::Malformed));
        assert_eq!(w.counts(), (0, 0));
    }
}

#[test]
fn a_size_is_that_of_the_backend_that_announced_it() {
    let w = World::new(V4);
    let answer = Seg::new("10.0.0.1:80", V4.client, "SA", 1, 1);
    let frame = answer
        .options(&[MaximumSegmentSize(1_400)])
        .frame(ROUTER_MAC);
    let item = Work {
        frame: 0,
        port: INSIDE,
        headers: lockstep_wire::parse(&frame).unwrap(),
        probe: w.dataplane.flows_v4().probe(0),
        located: None,
    };
    let verdict = Verdict::Forward {
        port: OUTSIDE,
        length: 14 + item.headers.length,
    };
    let mut cookies = SynCookies::new([1, 2]);
    cookies.learn(BackendRef::new(5, 1), verdict, &item, &frame);
    assert_eq!(cookies.size(BackendRef::new(5, 1)), Some(1_400));
    assert_eq!(cookies.size(BackendRef::new(5, 2)), None, "the slot's next");
    assert_eq!(cookies.size(BackendRef::new(6, 1)), None);
}

#[test]
fn the_second_segment_of_a_connection_takes_no_place() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let service = Service {
            mode,
            ..service(V4)
        };
        let mut w = World::of(V4, service);
        w.press();
        let flows = w.flows();
        let segment = w.client("SA", CLIENT_ISN, 1);
        assert_eq!(w.dropped(OUTSIDE, &segment), DropReason::NoFlow);
        assert_eq!((w.flows(), w.counts()), (flows, (0, 0)));
    }
}

#[test]
fn a_connection_by_a_cookie_wants_one_answer() {
    let mut w = World::pressed(V4);
    let unanswered = |w: &World| -> u64 {
        let backends = w.dataplane.counters().backends.iter();
        backends.map(|b| b.unanswered.get()).sum()
    };
    let before = unanswered(&w);
    let (_, cookie) = w.opening(&USUAL);
    assert_eq!(unanswered(&w), before + 1);
    let probe = w.client("A", CLIENT_ISN, cookie.wrapping_add(1));
    w.at_backend(&probe);
    assert_eq!(unanswered(&w), before + 1);
}

#[test]
fn where_they_get_many_closed_connections_make_room_soon() {
    let mut w = World::pressed(V4);
    for port in 0..200 {
        let syn = w.syn_of(2_000 + port).options(&USUAL);
        let cookie = w.back(&syn).sequence;
        let ack = Seg {
            flags: "A".to_string(),
            sequence: CLIENT_ISN.wrapping_add(1),
            acknowledgment: cookie.wrapping_add(1),
            ..w.syn_of(2_000 + port)
        };
        w.at_backend(&ack);
        let reset = Seg {
            flags: "R".to_string(),
            ..ack
        };
        w.at_backend(&reset);
    }
    let seconds = |n| Seconds::new(T0.get() / 1_000_000 + n);
    w.dataplane.tick(seconds(1), 1_000);
    assert_eq!(w.splices(), 200, "late packets may come");
    w.dataplane.tick(seconds(2), 1_000);
    assert_eq!(w.splices(), 128, "half of 256 may stay as long as others");
}

#[test]
fn frames_are_padded_while_cookies_or_connections_by_them_are_there() {
    let mut w = World::pressed(V4);
    assert_eq!(w.dataplane.least_frame(w.now), 0);
    let cookie = w.cookie(&[]).sequence;
    let least = w.dataplane.least_frame(w.now);
    let ack = w.client("A", 0, cookie.wrapping_add(1));
    let mut frame = ack.frame(CLIENT_MAC);
    // As it was sent: the SYN with its options has no room.
    frame.truncate(54);
    let (verdict, _) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoom));
    // The next one goes on from there.
    frame.resize(least, 0);
    let (verdict, frame) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
    assert!(matches!(verdict, Verdict::Forward { .. }));
    assert_eq!(Seg::read(&frame).flags, "S");
    // Its client probes long after the last cookie is good.
    w.now = Micros::new(T0.get() + 130_000_000);
    let mut frame = ack.frame(CLIENT_MAC);
    frame.truncate(54.max(w.dataplane.least_frame(w.now)));
    let (verdict, frame) = process(&mut w.dataplane, w.now, OUTSIDE, &frame);
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    assert_eq!(Seg::read(&frame).flags, "S");
    let after = T0.get() / 1_000_000 + 130 + u64::from(IdleTimeouts::DEFAULT.tcp_established);
    w.dataplane.tick(Seconds::new(after), usize::MAX);
    assert_eq!((w.splices(), w.dataplane.least_frame(w.now)), (0, 0));
}
