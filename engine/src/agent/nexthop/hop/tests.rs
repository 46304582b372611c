//! Every change of a neighbor's state, and what becomes due.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ALL: [Nud; 9] = [
    Nud::None,
    Nud::Incomplete,
    Nud::Reachable,
    Nud::Stale,
    Nud::Delay,
    Nud::Probe,
    Nud::Failed,
    Nud::NoArp,
    Nud::Permanent,
];

fn at(state: Nud) -> Option<Neighbour> {
    let mac = matches!(
        state,
        Nud::Reachable | Nud::Stale | Nud::Delay | Nud::Probe | Nud::NoArp | Nud::Permanent
    );
    let mac = mac.then_some(MAC);
    Some(Neighbour { state, mac })
}

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_first_look_decides_what_is_due() {
    let now = Instant::now();
    let use_at = |wait: Duration| Some((now + wait, Ask::Use));
    for (neighbour, due) in [
        (None, use_at(Duration::ZERO)),
        (at(Nud::None), use_at(Duration::ZERO)),
        (at(Nud::Incomplete), use_at(Duration::ZERO)),
        (at(Nud::Failed), use_at(Duration::ZERO)),
        (at(Nud::Stale), use_at(Duration::ZERO)),
        (at(Nud::Delay), use_at(REFRESH)),
        (at(Nud::Probe), use_at(REFRESH)),
        (at(Nud::Reachable), None),
        (at(Nud::NoArp), None),
        (at(Nud::Permanent), None),
    ] {
        let mut entry = HopEntry::new(now);
        assert_eq!(entry.due, Some((now, Ask::Look)));
        assert!(entry.update(now, neighbour), "{neighbour:?}: first news");
        assert_eq!(entry.due, due, "{neighbour:?}");
        assert_eq!(
            entry.mac().is_some(),
            neighbour.is_some_and(|n| n.mac.is_some())
        );
    }
}

#[test]
fn every_transition_is_news_only_when_the_address_is_another() {
    let now = Instant::now();
    for before in ALL {
        for after in ALL {
            let mut entry = HopEntry::new(now);
            entry.update(now, at(before));
            let news = entry.update(now + second(3), at(after));
            let expected = at(before).unwrap().mac != at(after).unwrap().mac;
            assert_eq!(news, expected, "{before:?} → {after:?}");
        }
        let mut entry = HopEntry::new(now);
        entry.update(now, at(before));
        let had = at(before).unwrap().mac.is_some();
        assert_eq!(entry.update(now, None), had, "{before:?} → gone");
    }
}

#[test]
fn a_lost_address_is_looked_for_at_once_and_then_with_longer_and_longer_waits() {
    let start = Instant::now();
    let mut entry = HopEntry::new(start);
    entry.update(start, at(Nud::Reachable));
    let mut now = start + second(100);
    entry.update(now, at(Nud::Failed));
    assert_eq!(entry.due, Some((now, Ask::Use)));
    for wait in [1, 2, 4, 8, 16, 30, 30, 30] {
        entry.used(now);
        let next = now + second(wait);
        // What the kernel says of its own tries does not shorten the wait.
        entry.update(now, at(Nud::Incomplete));
        entry.update(now + Duration::from_millis(900), at(Nud::Failed));
        entry.update(now + Duration::from_millis(950), None);
        assert_eq!(entry.due, Some((next, Ask::Use)));
        now = next;
    }
    // Once it answered, the next loss starts from the beginning.
    entry.update(now, at(Nud::Reachable));
    assert_eq!(entry.due, None);
    entry.update(now, None);
    assert_eq!(entry.due, Some((now, Ask::Use)));
    entry.used(now);
    assert_eq!(entry.due, Some((now + second(1), Ask::Use)));
}

#[test]
fn a_stale_address_stays_in_use_while_the_kernel_verifies_it() {
    let now = Instant::now();
    let mut entry = HopEntry::new(now);
    entry.update(now, at(Nud::Reachable));
    for state in [Nud::Stale, Nud::Delay, Nud::Probe, Nud::Stale] {
        assert!(!entry.update(now, at(state)), "{state:?}");
        assert_eq!(entry.mac(), Some(MAC));
    }
    assert_eq!(entry.due, Some((now, Ask::Use)));
    entry.used(now);
    assert_eq!(entry.due, Some((now + REFRESH, Ask::Use)));
    // Stale again and again: once a second is enough.
    entry.update(now + Duration::from_millis(10), at(Nud::Stale));
    assert_eq!(entry.due, Some((now + REFRESH_GAP, Ask::Use)));
}

#[test]
fn another_mac_address_is_news() {
    let now = Instant::now();
    let mut entry = HopEntry::new(now);
    entry.update(now, at(Nud::Reachable));
    let mac = Some([2, 0, 0, 0, 0, 9]);
    let state = Nud::Reachable;
    assert!(entry.update(now, Some(Neighbour { state, mac })));
    assert_eq!(entry.mac(), mac);
    // A usable state without an address, as of a device that has none, is not usable.
    assert!(entry.update(now, Some(Neighbour { state, mac: None })));
    assert_eq!(entry.mac(), None);
}
