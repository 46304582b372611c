//! What is said of packets that a dataplane has decided on.

use super::*;
use crate::fixtures::{VIP, VIP6, compile, service, steered, tcp, three, web};
use crate::tables::PortId;
use crate::{BURST, Dataplane, DataplaneConfig, Micros, Seconds};
use alloc::sync::Arc;
use alloc::vec;

const PORTS: &[&str] = &["eth0"];

fn dataplane(tables: &Arc<Tables>) -> Dataplane {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1_024,
        flows_v6: 1_024,
        seed: 7,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::clone(tables));
    dataplane
}

/// What a worker sees of a frame that its dataplane decides on.
fn pass(dataplane: &mut Dataplane, bytes: &[u8]) -> Seen {
    let known = |dataplane: &Dataplane| {
        let key = super::super::flow_of(bytes)?;
        dataplane.known(Seconds::new(1), &key)
    };
    let before = known(dataplane);
    let mut verdicts = [Verdict::Local];
    let now = Micros::new(1_000_000);
    let mut frame = bytes.to_vec();
    dataplane.process(
        now,
        &[PortId(0); BURST],
        &mut [&mut frame[..]],
        &mut verdicts,
    );
    Seen {
        verdict: verdicts[0],
        before,
        after: known(dataplane),
    }
}

fn backend(explanation: &Explanation) -> Option<IpAddr> {
    address(&explanation.fate)
}

#[test]
fn a_new_flow_and_its_next_packet_are_told_apart() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let mut dataplane = dataplane(&tables);
    let syn = steered(20, &tcp(("198.51.100.7", 40_000), VIP, "S"));
    let first = pass(&mut dataplane, &syn);
    let told = seen(&tables, PORTS, &as_received(&syn), &first);
    assert!(told.steps[2].contains("a new flow"), "{told:?}");
    assert!(told.steps[3].starts_with("Maglev"), "{told:?}");
    let data = steered(20, &tcp(("198.51.100.7", 40_000), VIP, "A"));
    let second = pass(&mut dataplane, &data);
    let again = seen(&tables, PORTS, &as_received(&data), &second);
    assert!(
        again.steps[2].starts_with("the flow table has it"),
        "{again:?}"
    );
    assert_eq!(backend(&told), backend(&again));
    assert!(backend(&told).is_some());
}

#[test]
fn the_entry_that_was_made_is_believed_before_the_tables() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let mut dataplane = dataplane(&tables);
    let syn = steered(20, &tcp(("198.51.100.7", 40_000), VIP, "S"));
    let mut done = pass(&mut dataplane, &syn);
    let chosen = backend(&seen(&tables, PORTS, &as_received(&syn), &done));
    let ring = &tables.rings()[0];
    let other = ring
        .members
        .iter()
        .find(|m| Some(m.backend.address) != chosen);
    let other = other.expect("there are three");
    let entry = done.after.as_mut().expect("a SYN makes an entry");
    entry.backend = other.backend_ref;
    let told = seen(&tables, PORTS, &as_received(&syn), &done);
    assert_eq!(backend(&told), Some(other.backend.address));
}

#[test]
fn a_drop_has_the_workers_reason() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let frame = tcp(("198.51.100.7", 40_000), VIP, "S");
    let done = |reason| Seen {
        verdict: Verdict::Drop(reason),
        before: None,
        after: None,
    };
    let told = seen(&tables, PORTS, &frame, &done(DropReason::TxFull));
    assert_eq!(told.fate, Fate::Drop(DropReason::TxFull));
    let last = told.steps.last().expect("there are steps");
    assert!(last.starts_with("tx_full: "), "{told:?}");
    assert_eq!(told.service.as_deref(), Some("web"));
    // One that the tables lead to as well is not said twice.
    let empty = compile(&Tables::default(), 1, vec![service("web", &[VIP], vec![])]);
    let told = seen(&empty, PORTS, &frame, &done(DropReason::NoBackend));
    assert_eq!(told.fate, Fate::Drop(DropReason::NoBackend));
    let said = told.steps.iter().filter(|s| s.starts_with("no_backend"));
    assert_eq!(said.count(), 0, "{told:?}");
}

#[test]
fn what_other_tables_sent_on_is_not_explained_by_these() {
    let before = Arc::new(compile(&Tables::default(), 1, web()));
    let mut dataplane = dataplane(&before);
    let syn = steered(20, &tcp(("198.51.100.7", 40_000), VIP, "S"));
    let done = pass(&mut dataplane, &syn);
    let now = compile(&before, 2, vec![service("v6", &[VIP6], three())]);
    let told = seen(&now, PORTS, &as_received(&syn), &done);
    assert_eq!(told.fate, Fate::Sent, "{told:?}");
}

#[test]
fn the_room_in_front_is_taken_out() {
    for vip in [VIP, VIP6] {
        let from = if vip == VIP {
            "198.51.100.7"
        } else {
            "2001:db8::7"
        };
        let plain = tcp((from, 40_000), vip, "S");
        for room in [20, 24, 40] {
            assert_eq!(as_received(&steered(room, &plain)), plain);
        }
        assert_eq!(as_received(&plain), plain);
    }
    // What ends before it is whole stays as it is.
    for length in [0, 12, 15, 30] {
        let cut = &steered(20, &tcp(("198.51.100.7", 1), VIP, "S"))[..length];
        assert_eq!(as_received(cut), cut);
    }
}
