//! The table against a map, to its capacity and past it.

use super::*;
use lockstep_wire::HashSeed;
use proptest::prelude::*;
use std::collections::HashMap;

const SEED: HashSeed = HashSeed::new(7);

fn key(n: u32) -> FlowKey4 {
    FlowKey4::new(
        Ipv4Addr::from(n),
        1024,
        Ipv4Addr::new(203, 0, 113, 1),
        80,
        6,
    )
}

fn entry(n: u32, at: u64, state: FlowState) -> Entry<FlowKey4> {
    Entry {
        key: key(n),
        backend: BackendRef::NONE,
        vip: VipRef::UNKNOWN,
        seen: Seconds::new(at),
        state,
        pool: 0,
        path: PathId(0),
        port: 0,
    }
}

fn keep(_: &Entry<FlowKey4>) -> Fate {
    Fate::Keep
}

fn look_up(table: &FlowTable<FlowKey4>, n: u32) -> Option<Slot> {
    let probe = table.probe(key(n).hash(&SEED));
    table.find(&key(n), probe, table.locate(probe))
}

fn add(
    table: &mut FlowTable<FlowKey4>,
    entry: Entry<FlowKey4>,
    fate: impl Fn(&Entry<FlowKey4>) -> Fate,
) -> Result<Option<Entry<FlowKey4>>, Full> {
    let probe = table.probe(entry.key.hash(&SEED));
    let inserted = table.insert(probe, entry, fate);
    inserted.map(|(_, forgotten)| forgotten)
}

#[test]
fn a_million_flows_take_less_than_65_mib_and_all_find_room() {
    let mut table = FlowTable::new(1_000_000);
    assert!(table.memory() <= 65 << 20, "{} bytes", table.memory());
    for n in 0..1_000_000 {
        add(&mut table, entry(n, 0, FlowState::Established), keep).expect("below capacity");
    }
    assert_eq!(table.len(), 1_000_000);
    assert!(
        (0..1_000_000)
            .step_by(97)
            .all(|n| look_up(&table, n).is_some())
    );
    assert!(
        (1_000_000..2_000_000)
            .step_by(97)
            .all(|n| look_up(&table, n).is_none())
    );
}

#[test]
fn a_full_table_keeps_established_flows_and_says_so() {
    let mut table = FlowTable::new(64);
    let mut refused = 0;
    let mut kept = Vec::new();
    for n in 0..1000 {
        match add(&mut table, entry(n, 0, FlowState::Established), keep) {
            Ok(forgotten) => {
                assert_eq!(forgotten, None);
                kept.push(n);
            }
            Err(Full) => refused += 1,
        }
    }
    assert!(refused > 0);
    assert!(
        kept.iter().all(|&n| look_up(&table, n).is_some()),
        "an accepted flow stays"
    );
}

/// A table of two buckets, full of flows from second 10, and a flow that may stand in either.
fn full() -> (FlowTable<FlowKey4>, Vec<u32>, Entry<FlowKey4>) {
    let mut table = FlowTable::new(8);
    for n in 0..100 {
        let _ = add(&mut table, entry(n, 10, FlowState::Established), keep);
    }
    let held: Vec<u32> = (0..100).filter(|&n| look_up(&table, n).is_some()).collect();
    assert_eq!(held.len(), table.tags.len() * WAYS, "every place is taken");
    let newcomer = entry(both_buckets(&table), 500, FlowState::Syn);
    (table, held, newcomer)
}

#[test]
fn the_one_flow_that_may_go_is_found_wherever_it_stands() {
    for (at, may_go) in (0..16).flat_map(|at| [(at, Fate::GivesWay), (at, Fate::Expired)]) {
        let (mut table, held, newcomer) = full();
        let fate = |e: &Entry<FlowKey4>| {
            if e.key == key(held[at]) {
                may_go
            } else {
                Fate::Keep
            }
        };
        let forgotten = add(&mut table, newcomer, fate).unwrap();
        assert_eq!(forgotten.map(|e| e.key), Some(key(held[at])));
        assert!(look_up(&table, held[at]).is_none());
        assert_eq!(table.len(), 16);
    }
}

#[test]
fn of_those_looked_at_first_the_one_silent_for_longest_goes() {
    let (mut table, held, newcomer) = full();
    // In every half of a bucket the second one is the oldest.
    for slot in (0..16).map(Slot) {
        let age = if slot.0 % 4 == 1 { 20 } else { 400 };
        table.entry_mut(slot).seen = Seconds::new(age);
    }
    let forgotten = add(&mut table, newcomer, |_| Fate::GivesWay)
        .unwrap()
        .unwrap();
    assert_eq!(forgotten.seen, Seconds::new(20));
    assert_eq!(
        held.iter()
            .filter(|&&n| look_up(&table, n).is_some())
            .count(),
        15
    );
}

#[test]
fn the_sweep_forgets_what_is_expired_and_nothing_else() {
    let mut table = FlowTable::new(1000);
    for n in 0..1000 {
        add(&mut table, entry(n, u64::from(n), FlowState::Udp), keep).unwrap();
    }
    let now = Seconds::new(1000);
    let fate = |e: &Entry<FlowKey4>| {
        if now.since(e.seen) > 300 {
            Fate::Expired
        } else {
            Fate::Keep
        }
    };
    let mut forgotten = 0;
    for _ in 0..table.tags.len().div_ceil(16) {
        table.sweep(16, fate, |_| forgotten += 1);
    }
    assert_eq!((forgotten, table.len()), (700, 300));
    assert!((0..1000).all(|n| look_up(&table, n).is_some() == (n >= 700)));
}

#[test]
fn a_scan_in_pages_sees_every_flow_once() {
    let mut table = FlowTable::new(500);
    for n in 0..500 {
        add(&mut table, entry(n, 0, FlowState::Udp), keep).unwrap();
    }
    let mut seen = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        from = table.scan(at, 7, |e| seen.push(u32::from_be_bytes(source(e.key))));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

fn source(key: FlowKey4) -> [u8; 4] {
    match key.source_address() {
        core::net::IpAddr::V4(v4) => v4.octets(),
        core::net::IpAddr::V6(_) => unreachable!("an IPv4 key"),
    }
}

/// A key that is not in a table of two buckets and may stand in either.
fn both_buckets(table: &FlowTable<FlowKey4>) -> u32 {
    assert_eq!(table.tags.len(), 2);
    let differ = |n: &u32| {
        let probe = table.probe(key(*n).hash(&SEED));
        probe.first != probe.second
    };
    (1000..).find(differ).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32),
    Remove(u32),
    Look(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        3 => (0_u32..200).prop_map(Step::Insert),
        1 => (0_u32..200).prop_map(Step::Remove),
        2 => (0_u32..200).prop_map(Step::Look),
    ];
    prop::collection::vec(one, 0..600)
}

proptest! {
    #[test]
    fn it_answers_as_a_map_does(steps in steps()) {
        let mut table = FlowTable::new(300);
        let mut model: HashMap<u32, Seconds> = HashMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let now = Seconds::new(at as u64);
            match step {
                Step::Insert(n) => match look_up(&table, n) {
                    Some(slot) => {
                        table.entry_mut(slot).seen = now;
                        model.insert(n, now);
                    }
                    None => {
                        prop_assert!(!model.contains_key(&n));
                        let added = add(&mut table, entry(n, at as u64, FlowState::Udp), keep);
                        prop_assert_eq!(added, Ok(None));
                        model.insert(n, now);
                    }
                },
                Step::Remove(n) => {
                    if let Some(slot) = look_up(&table, n) {
                        table.remove(slot);
                        table.remove(slot);
                    }
                    model.remove(&n);
                }
                Step::Look(n) => {
                    let seen = look_up(&table, n).map(|slot| table.entry(slot).seen);
                    prop_assert_eq!(seen, model.get(&n).copied());
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn zero_bytes_marks_exactly_the_zero_bytes(word: u64, holes: u8) {
        let mut bytes = word.to_le_bytes();
        for (i, byte) in bytes.iter_mut().enumerate() {
            if holes >> i & 1 == 1 {
                *byte = 0;
            }
        }
        let marks = zero_bytes(u64::from_le_bytes(bytes)).to_le_bytes();
        for (mark, byte) in marks.into_iter().zip(bytes) {
            prop_assert_eq!(mark, if byte == 0 { 0x80 } else { 0 });
        }
    }
}

/// The probe of the answers to flow `n`.
fn answers(table: &FlowTable<FlowKey4>, n: u32) -> Probe {
    table.probe(key(n).reversed().hash(&SEED))
}

#[test]
fn a_linked_flow_is_found_by_its_answers_until_it_is_forgotten() {
    let mut table = FlowTable::new(10_000);
    for n in 0..10_000 {
        let probe = table.probe(key(n).hash(&SEED));
        let (slot, _) = table
            .insert(probe, entry(n, 0, FlowState::Udp), keep)
            .unwrap();
        let probe = answers(&table, n);
        table.link(probe, slot).unwrap();
    }
    let found = |table: &FlowTable<FlowKey4>, n: u32| {
        let mut slots = table.answered(answers(table, n));
        slots.find(|&slot| table.entry(slot).key == key(n))
    };
    for n in 0..10_000 {
        let slot = found(&table, n).expect("it is linked");
        if n % 3 == 0 {
            table.remove(slot);
            assert_eq!(found(&table, n), None);
        }
    }
    assert!((0..10_000).all(|n| found(&table, n).is_some() == (n % 3 != 0)));
    // The first of a tag is nearly always the right one: that is what bursts look at.
    let first = |n: u32| {
        table
            .locate_answer(answers(&table, n))
            .map(|place| table.answered_at(place))
    };
    let right = (0..10_000).filter(|&n| first(n).is_some() && first(n) == found(&table, n));
    assert!(right.count() > 6_000);
    table.sweep(usize::MAX, |_| Fate::Expired, |_| {});
    assert!(table.is_empty() && table.is_unlinked());
}

#[test]
fn a_flow_that_takes_anothers_place_does_not_take_its_answers() {
    let mut table = FlowTable::new(64);
    let mut linked = Vec::new();
    for n in 0..2_000 {
        let probe = table.probe(key(n).hash(&SEED));
        let entry = entry(n, u64::from(n), FlowState::Syn);
        let (slot, forgotten) = table.insert(probe, entry, |_| Fate::GivesWay).unwrap();
        linked.retain(|&m: &u32| Some(key(m)) != forgotten.map(|old| old.key));
        let probe = answers(&table, n);
        // Its own table may be full where the flow table's is not: then it is not found there.
        if table.link(probe, slot).is_ok() {
            linked.push(n);
        }
    }
    assert!(linked.len() > 32, "{}", linked.len());
    for n in 0..2_000 {
        let probe = answers(&table, n);
        let found = table
            .answered(probe)
            .any(|slot| table.entry(slot).key == key(n));
        assert_eq!(found, linked.contains(&n), "flow {n}");
    }
}

fn by_state(entry: &Entry<FlowKey4>) -> Fate {
    if entry.state.gives_way(true) {
        Fate::GivesWay
    } else {
        Fate::Keep
    }
}

#[test]
fn in_a_flood_of_linked_flows_hardly_any_finds_no_room_for_its_answers() {
    let mut table = FlowTable::new(10_000);
    let mut refused = 0;
    for n in 0..40_000 {
        let state = if n < 8_000 {
            FlowState::Established
        } else {
            FlowState::Syn
        };
        let probe = table.probe(key(n).hash(&SEED));
        let (slot, _) = table.insert(probe, entry(n, 0, state), by_state).unwrap();
        if table.link(answers(&table, n), slot).is_err() {
            table.remove(slot);
            refused += 1;
        }
    }
    assert!(refused < 400, "{refused} would have cost another flow");
    assert!(table.len() > table.capacity());
    assert!((0..8_000).all(|n| look_up(&table, n).is_some()));
}

#[test]
fn hints_follow_the_states() {
    let mut table = FlowTable::new(100);
    for n in 0..100 {
        add(&mut table, entry(n, 0, FlowState::Syn), keep).unwrap();
    }
    for n in (0..100).step_by(2) {
        let slot = look_up(&table, n).unwrap();
        assert_eq!(table.turn(slot, FlowState::Established), FlowState::Syn);
        assert_eq!(table.entry(slot).state, FlowState::Established);
    }
    for n in (0..100).step_by(5) {
        let slot = look_up(&table, n).unwrap();
        table.remove(slot);
    }
    let gives_way = |n: &u32| !n.is_multiple_of(2) && !n.is_multiple_of(5);
    let hinted: u32 = table.yielding.iter().map(|marks| marks.count_ones()).sum();
    assert_eq!(hinted as usize, (0..100).filter(gives_way).count());
}

#[test]
fn a_flow_that_gives_way_leaves_no_splice_to_the_one_in_its_place() {
    let mut table = FlowTable::new(64);
    let splice = |n| Splice {
        client: n,
        cookie: 0,
        backend: 0,
        backend_scale: None,
        is_open: false,
    };
    let (mut spliced, mut given_way) = (0, 0);
    for n in 0..2_000 {
        let entry = entry(n, n.into(), FlowState::Syn);
        let probe = table.probe(entry.key.hash(&SEED));
        let (slot, forgotten) = table
            .insert(probe, entry, |_| Fate::GivesWay)
            .expect("all give way");
        assert_eq!(table.splice(slot), None, "flow {n}");
        given_way += usize::from(forgotten.is_some());
        if table.has_splices() {
            table.set_splice(slot, splice(n)).expect("there is room");
            spliced += 1;
        }
    }
    assert!(given_way > 1_000 && spliced > 100, "{given_way}, {spliced}");
}
