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
