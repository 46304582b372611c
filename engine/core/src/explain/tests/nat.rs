//! Services that rewrite: packets to the backend, and its answers.

use super::*;
use crate::dataplane::NatConfig;
use crate::{BURST, Micros, PortId, Verdict};
use lockstep_plan::{Mode, Protocol};
use std::net::Ipv4Addr;

const POOL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOW: Micros = Micros::new(7_000_000);

fn tables(mode: Mode) -> Arc<Tables> {
    let mut web = service("web", &[VIP], vec![backend("10.0.0.1")]);
    web.mode = mode;
    web.backends[0].port = std::num::NonZeroU16::new(8_080);
    Arc::new(compile(&Tables::default(), 1, vec![web]))
}

fn dataplane(tables: &Arc<Tables>) -> Dataplane {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1_024,
        flows_v6: 1_024,
        seed: 1,
        nat: NatConfig {
            pool_v4: vec![POOL],
            ports: Some(2_000..=2_100),
            ..NatConfig::default()
        },
    });
    dataplane.adopt(Arc::clone(tables));
    dataplane
}

/// What the dataplane makes of a frame, and what is said of it before.
fn pass(dataplane: &mut Dataplane, tables: &Tables, bytes: &[u8]) -> (Verdict, Explanation) {
    let known = flow_of(bytes).and_then(|key| dataplane.known(Seconds::at(NOW), &key));
    let explanation = frame(tables, &["eth0"], bytes, known);
    let (mut verdicts, mut frame) = ([Verdict::Local], bytes.to_vec());
    let ports = [PortId(0); BURST];
    dataplane.process(NOW, &ports, &mut [&mut frame[..]], &mut verdicts);
    (verdicts[0], explanation)
}

/// A segment from the backend.
fn answer(to: (&str, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let to_address: Ipv4Addr = to.0.parse().expect("an address");
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], to_address.octets(), 64)
        .tcp(8_080, to.1, 1, 1_024)
        .ack(2)
        .write(&mut frame, b"an answer")
        .expect("it fits");
    frame
}

#[test]
fn both_ways_of_a_rewritten_flow_are_explained() {
    for (mode, rewritten, answered) in [
        (Mode::Nat, "rewritten to 10.0.0.1:8080 to next hop", CLIENT),
        (
            Mode::FullNat,
            "rewritten to 10.0.0.1:8080 from a free port of the engine to next hop",
            ("192.0.2.1", 0),
        ),
    ] {
        let tables = tables(mode.clone());
        let mut dataplane = dataplane(&tables);
        let syn = tcp(CLIENT, VIP, "S");
        let (verdict, first) = pass(&mut dataplane, &tables, &syn);
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        let text = first.steps.join("\n");
        assert!(text.contains(rewritten), "{text}");

        // The backend answers what it has seen.
        let key = flow_of(&syn).expect("it is parsed");
        let flow = dataplane.known(Seconds::at(NOW), &key).expect("an entry");
        let (from, to) = flow.inside.expect("it is rewritten");
        assert_eq!(to, "10.0.0.1:8080".parse().expect("an address"));
        assert_eq!(from.ip().to_string(), answered.0);
        let back = answer((answered.0, from.port()));
        let (verdict, second) = pass(&mut dataplane, &tables, &back);
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        let client = "198.51.100.7:40000".parse().expect("an address");
        let service = "web".to_string();
        assert_eq!(second.fate, Fate::Answer { service, client });
        let text = second.steps.join("\n");
        assert!(
            text.contains("an answer of backend 10.0.0.1 of service web"),
            "{text}"
        );
        assert!(
            text.contains("from 203.0.113.10:80 to 198.51.100.7:40000"),
            "{text}"
        );

        let (_, third) = pass(&mut dataplane, &tables, &tcp(CLIENT, VIP, "A"));
        let text = third.steps.join("\n");
        let source = format!("rewritten to 10.0.0.1:8080 from {from}");
        assert_eq!(text.contains(&source), mode == Mode::FullNat, "{text}");
    }
}

#[test]
fn an_answer_of_no_flow_is_dropped_and_anothers_packet_is_left_alone() {
    let tables = tables(Mode::Nat);
    let mut dataplane = dataplane(&tables);
    let (verdict, said) = pass(&mut dataplane, &tables, &answer(CLIENT));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoFlow));
    assert_eq!(said.fate, Fate::Drop(DropReason::NoFlow));
    // From another port of the backend.
    let key = lockstep_wire::FlowKey4::new(
        Ipv4Addr::new(10, 0, 0, 1),
        22,
        Ipv4Addr::new(198, 51, 100, 7),
        40_000,
        Protocol::Tcp.number(),
    );
    let said = tuple(&tables, &["eth0"], &FlowKey::V4(key), None);
    assert_eq!(said.fate, Fate::Pass);
}

#[test]
fn packets_of_no_flow_may_meet_cookies_in_full_nat() {
    for (mode, flags, fate, sentence) in [
        (Mode::FullNat, "S", None, Some("half-open flows")),
        (
            Mode::FullNat,
            "A",
            Some(DropReason::NoFlow),
            Some("a SYN cookie"),
        ),
        (Mode::FullNat, "SA", Some(DropReason::NoFlow), None),
        (Mode::Nat, "SA", Some(DropReason::NoFlow), None),
        (Mode::Nat, "S", None, None),
        (Mode::Nat, "A", None, None),
    ] {
        let tables = tables(mode.clone());
        let mut dataplane = dataplane(&tables);
        let (verdict, said) = pass(&mut dataplane, &tables, &tcp(CLIENT, VIP, flags));
        match fate {
            Some(reason) => {
                assert_eq!(verdict, Verdict::Drop(reason));
                assert_eq!(said.fate, Fate::Drop(reason));
            }
            None => {
                assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
                assert!(matches!(said.fate, Fate::Forward { .. }), "{:?}", said.fate);
            }
        }
        let text = said.steps.join("\n");
        let about = text.contains("cookie");
        assert_eq!(about, sentence.is_some(), "{mode:?} {flags}: {text}");
        assert!(sentence.is_none_or(|s| text.contains(s)), "{text}");
    }
}

/// An error of `from` to `to`, "unreachable", about this frame's packet.
fn unreachable(from: [u8; 4], to: [u8; 4], about: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from, to, 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut frame, &about[14..14 + 28])
        .expect("it fits");
    frame
}

#[test]
fn errors_about_both_ways_of_a_rewritten_flow_are_explained() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let tables = tables(mode.clone());
        let mut dataplane = dataplane(&tables);
        let syn = tcp(CLIENT, VIP, "S");
        let key = flow_of(&syn).expect("it is parsed");
        // Of a flow that nobody has here: with nat it follows from the addresses, with full-nat not.
        let mut back = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([203, 0, 113, 10], [198, 51, 100, 7], 64)
            .tcp(80, 40_000, 1, 1)
            .write(&mut back, b"an answer")
            .expect("it fits");
        let about_answer = unreachable([198, 51, 100, 7], [203, 0, 113, 10], &back);
        let (verdict, said) = pass(&mut dataplane, &tables, &about_answer);
        let text = said.steps.join("\n");
        match mode {
            Mode::Nat => {
                assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
                assert!(matches!(said.fate, Fate::Forward { .. }), "{text}");
            }
            _ => {
                assert_eq!(verdict, Verdict::Drop(DropReason::IcmpUnmatched));
                assert_eq!(said.fate, Fate::Drop(DropReason::IcmpUnmatched), "{text}");
            }
        }

        pass(&mut dataplane, &tables, &syn);
        let flow = dataplane.known(Seconds::at(NOW), &key).expect("an entry");
        let (verdict, said) = pass(&mut dataplane, &tables, &about_answer);
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
        let Fate::Forward { name, .. } = &said.fate else {
            panic!("{said:#?}")
        };
        assert_eq!(name, "10.0.0.1");

        // What the backend got.
        let (from, _) = flow.inside.expect("it is rewritten");
        let IpAddr::V4(seen) = from.ip() else {
            panic!("{from}")
        };
        let mut request = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(seen.octets(), [10, 0, 0, 1], 64)
            .tcp(from.port(), 8_080, 1, 1)
            .write(&mut request, b"a request")
            .expect("it fits");
        // Of the backend itself, and of a router before it.
        for by in [[10, 0, 0, 1], [10, 0, 0, 254]] {
            let error = unreachable(by, seen.octets(), &request);
            let (verdict, said) = pass(&mut dataplane, &tables, &error);
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            let client = "198.51.100.7:40000".parse().expect("an address");
            let service = "web".to_string();
            assert_eq!(said.fate, Fate::Answer { service, client }, "{said:#?}");
        }
    }
}

#[test]
fn later_fragments_of_answers_come_to_the_engine() {
    for (mode, to) in [
        (Mode::Nat, Ipv4Addr::new(198, 51, 100, 7)),
        (Mode::FullNat, POOL),
    ] {
        let fragment = |from: [u8; 4]| {
            let mut header =
                etherparse::Ipv4Header::new(16, 64, 17.into(), from, to.octets()).expect("it fits");
            header.fragment_offset = 8.try_into().expect("it fits");
            header.header_checksum = header.calc_header_checksum();
            [&[2; 12][..], &[8, 0], &header.to_bytes(), &[0; 16]].concat()
        };
        let tables = tables(mode.clone());
        let (_, said) = pass(&mut dataplane(&tables), &tables, &fragment([10, 0, 0, 1]));
        assert_eq!(said.fate, Fate::Unsettled, "{said:#?}");
        let (_, said) = pass(&mut dataplane(&tables), &tables, &fragment([10, 0, 0, 2]));
        let ours = if mode == Mode::Nat {
            Fate::Pass
        } else {
            Fate::Unsettled
        };
        assert_eq!(said.fate, ours, "{said:#?}");
    }
}
