use super::*;
use std::net::Ipv4Addr;

mod simulation;

const MS: fn(u64) -> Duration = Duration::from_millis;

const TIMING: Timing = Timing {
    interval: MS_200,
    hold: MS_5000,
};
const MS_200: Duration = Duration::from_millis(200);
const MS_5000: Duration = Duration::from_millis(5_000);

fn vip(n: u32) -> IpAddr {
    Ipv4Addr::from(0xcb00_7100 + n).into()
}

/// VIPs that belong to `lb1` before `lb2`, or the other way around.
fn vip_of(name: &str) -> IpAddr {
    let best = |v: &IpAddr| {
        let names = ["lb1", "lb2"];
        names.into_iter().max_by_key(|n| rank::rank(*v, n)) == Some(name)
    };
    (0..).map(vip).find(best).unwrap()
}

fn lb1() -> Election {
    Election::new(("g", "lb1"), ["lb2".to_owned()], TIMING, 1, MS(0))
}

/// What `lb2` says in its `n`th hello.
fn says(n: u64, willing: &[IpAddr], owned: &[IpAddr]) -> Hello {
    Hello {
        group: "g".to_owned(),
        name: "lb2".to_owned(),
        life: 10,
        sequence: n,
        interval: MS_200,
        leaving: false,
        heard: BTreeSet::from(["lb1".to_owned()]),
        willing: willing.iter().copied().collect(),
        owned: owned.iter().copied().collect(),
    }
}

/// Lets `lb1` alone until `end`.
fn run(lb1: &mut Election, end: Duration) -> Vec<Hello> {
    let mut hellos = Vec::new();
    while lb1.next_deadline() <= end {
        let now = lb1.next_deadline();
        hellos.extend(lb1.tick(now));
    }
    hellos
}

#[test]
fn a_balancer_alone_claims_after_it_has_listened() {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    let hellos = run(&mut lb1, MS(599));
    assert!(lb1.owned().is_empty());
    assert!(
        hellos.iter().all(|h| h.willing.is_empty()),
        "not yet waited for"
    );
    run(&mut lb1, MS(600));
    assert_eq!(lb1.owner(vip), Some("lb1"));
    assert_eq!(lb1.changes(), [(vip, Change::Claimed)]);
}

#[test]
fn a_balancer_that_has_heard_all_the_others_need_not_listen_longer() {
    let (mut lb1, ours, theirs) = (lb1(), vip_of("lb1"), vip_of("lb2"));
    lb1.offer(MS(0), [ours, theirs]);
    lb1.tick(MS(0));
    assert!(lb1.receive(MS(100), says(1, &[ours, theirs], &[])));
    run(&mut lb1, MS(320));
    assert_eq!(lb1.owned().keys().copied().collect::<Vec<_>>(), [ours]);
    assert_eq!(lb1.owner(theirs), None);
}

#[test]
fn what_somebody_owns_is_not_claimed_and_comes_over_when_its_owner_dies() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    for n in 0..10 {
        let now = MS(100 + 200 * n);
        run(&mut lb1, now);
        lb1.receive(now, says(n, &[vip], &[vip]));
        assert_eq!(lb1.owner(vip), Some("lb2"));
    }
    run(&mut lb1, MS(1_900 + 599));
    assert_eq!(lb1.owner(vip), Some("lb2"));
    run(&mut lb1, MS(1_900 + 600));
    assert_eq!(lb1.owner(vip), Some("lb1"));
}

#[test]
fn a_balancer_that_leaves_is_not_waited_for() {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    lb1.receive(MS(0), says(1, &[vip], &[vip]));
    run(&mut lb1, MS(250));
    let bye = Hello {
        leaving: true,
        ..says(2, &[], &[])
    };
    lb1.receive(MS(260), bye);
    assert_eq!(lb1.owner(vip), Some("lb1"));
}

#[test]
fn a_vip_goes_back_only_to_a_balancer_that_has_proved_to_stay() {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(600));
    assert_eq!(lb1.owner(vip), Some("lb1"));
    for n in 0..25 {
        let now = MS(700 + 200 * n);
        run(&mut lb1, now);
        lb1.receive(now, says(n, &[vip], &[]));
        assert_eq!(lb1.owner(vip), Some("lb1"), "{now:?}");
    }
    let hellos = run(&mut lb1, MS(5_950));
    assert_eq!(lb1.owned().get(&vip), None);
    assert!(hellos.last().unwrap().owned.is_empty(), "others hear it");
    assert_eq!(lb1.owner(vip), None, "until the other claims it");
}

#[test]
fn of_two_owners_the_lower_lets_go_and_the_higher_tells_neighbors_again() {
    for (belongs_to, keeps) in [("lb1", true), ("lb2", false)] {
        let (mut lb1, vip) = (lb1(), vip_of(belongs_to));
        lb1.offer(MS(0), [vip]);
        run(&mut lb1, MS(700));
        lb1.changes();
        lb1.receive(MS(710), says(1, &[vip], &[vip]));
        assert_eq!(lb1.owned().contains_key(&vip), keeps, "{belongs_to}");
        if keeps {
            lb1.receive(MS(720), says(2, &[vip], &[]));
            assert_eq!(lb1.changes(), [(vip, Change::Affirmed)]);
        } else {
            assert_eq!(lb1.changes(), [(vip, Change::Released)]);
        }
    }
}

#[test]
fn one_that_cannot_hear_us_is_given_way() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(700));
    for n in 0..4 {
        let now = MS(710 + 200 * n);
        run(&mut lb1, now);
        let deaf = Hello {
            heard: BTreeSet::new(),
            ..says(n, &[vip], &[vip])
        };
        lb1.receive(now, deaf);
    }
    assert_eq!(lb1.owner(vip), Some("lb2"));
}

#[test]
fn one_that_was_frozen_lets_go_before_anything_else() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(1_000));
    lb1.changes();
    let hello = lb1.tick(MS(1_600)).unwrap();
    assert!(hello.owned.is_empty() && hello.willing.is_empty());
    assert_eq!(lb1.changes(), [(vip, Change::Released)]);
    // The other one, who took over, is heard first.
    lb1.receive(MS(1_610), says(1, &[vip], &[vip]));
    run(&mut lb1, MS(2_000));
    assert_eq!(lb1.owner(vip), Some("lb2"));
}

#[test]
fn hellos_that_are_old_or_of_others_change_nothing() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    assert!(lb1.receive(MS(0), says(5, &[], &[])));
    run(&mut lb1, MS(400));
    let late = says(5, &[vip], &[vip]);
    let earlier_life = Hello {
        life: 9,
        ..says(6, &[vip], &[vip])
    };
    let other_group = Hello {
        group: "h".to_owned(),
        ..says(6, &[vip], &[vip])
    };
    let nobody = Hello {
        name: "lb9".to_owned(),
        ..says(6, &[vip], &[vip])
    };
    for hello in [late, earlier_life.clone(), other_group, nobody] {
        assert!(!lb1.receive(MS(410), hello));
    }
    assert_eq!(lb1.owner(vip), Some("lb1"));
    assert_eq!(lb1.peers().next().unwrap().stale, 2);
    // One that is dead may come back with a clock that was set back.
    run(&mut lb1, MS(700));
    assert!(lb1.receive(MS(700), earlier_life));
}

#[test]
fn a_vip_that_is_no_longer_offered_is_let_go_at_once() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(700));
    lb1.offer(MS(710), []);
    assert!(lb1.owned().is_empty());
    let hellos = run(&mut lb1, MS(730));
    assert!(hellos[0].owned.is_empty() && hellos[0].willing.is_empty());
}
