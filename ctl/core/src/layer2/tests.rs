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
        restart: Duration::ZERO,
        recovering: false,
        heard: BTreeMap::from([(("lb1".to_owned(), 1), 0)]),
        willing: willing.iter().copied().collect(),
        owned: owned.iter().copied().collect(),
    }
}

/// Gives `lb1` a hello of one that has heard everything it said until now, if it hears it at all.
fn hears(lb1: &mut Election, now: Duration, mut hello: Hello) -> bool {
    run(lb1, now);
    for sequence in hello.heard.values_mut() {
        *sequence = lb1.sequence;
    }
    lb1.receive(now, hello)
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
    assert!(hears(&mut lb1, MS(100), says(1, &[ours, theirs], &[])));
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
        hears(&mut lb1, now, says(n, &[vip], &[vip]));
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
    hears(&mut lb1, MS(0), says(1, &[vip], &[vip]));
    run(&mut lb1, MS(250));
    let bye = Hello {
        leaving: true,
        ..says(2, &[], &[])
    };
    hears(&mut lb1, MS(260), bye);
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
        hears(&mut lb1, now, says(n, &[vip], &[]));
        assert_eq!(lb1.owner(vip), Some("lb1"), "{now:?}");
    }
    let hellos = run(&mut lb1, MS(5_950));
    assert_eq!(lb1.owned().get(&vip), None);
    assert!(hellos.last().unwrap().owned.is_empty(), "others hear it");
    assert_eq!(lb1.owner(vip), None, "until the other claims it");
}

/// `lb2` owned a VIP that is to be its own, and its daemon ends for a restart at 1 s.
fn lb2_restarts() -> (Election, IpAddr) {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    for n in 0..5 {
        assert!(hears(&mut lb1, MS(200 * n), says(n, &[vip], &[vip])));
    }
    let last = Hello {
        restart: RESTART,
        ..says(5, &[vip], &[vip])
    };
    assert!(hears(&mut lb1, MS(1_000), last));
    (lb1, vip)
}

#[test]
fn one_that_is_started_again_keeps_its_vips_until_it_knows_what_it_serves() {
    let (mut lb1, vip) = lb2_restarts();
    run(&mut lb1, MS(1_890));
    let back = |n: u64, recovering: bool, willing: &[IpAddr], owned: &[IpAddr]| Hello {
        life: 11,
        recovering,
        ..says(n, willing, owned)
    };
    for n in 0..10 {
        assert!(hears(
            &mut lb1,
            MS(1_891 + 200 * n),
            back(n, true, &[], &[])
        ));
        assert_eq!(lb1.owner(vip), Some("lb2"), "{n}");
    }
    assert!(hears(&mut lb1, MS(3_900), back(10, false, &[vip], &[vip])));
    assert_eq!(lb1.owner(vip), Some("lb2"));
    // What it says counts from now on.
    assert!(hears(&mut lb1, MS(4_100), back(11, true, &[], &[])));
    assert_eq!(lb1.owner(vip), Some("lb1"));
}

#[test]
fn one_that_is_not_back_in_time_or_has_nothing_to_serve_is_not_waited_for() {
    let (mut lb1, vip) = lb2_restarts();
    run(&mut lb1, MS(1_000) + RESTART - MS(1));
    assert_eq!(lb1.owner(vip), Some("lb2"));
    run(&mut lb1, MS(1_000) + RESTART);
    assert_eq!(lb1.owner(vip), Some("lb1"));

    let (mut lb1, vip) = lb2_restarts();
    let back = |n: u64, recovering: bool| Hello {
        life: 11,
        recovering,
        ..says(n, &[], &[])
    };
    assert!(hears(&mut lb1, MS(1_500), back(0, true)));
    assert_eq!(lb1.owner(vip), Some("lb2"));
    assert!(hears(&mut lb1, MS(1_700), back(1, false)));
    assert_eq!(lb1.owner(vip), Some("lb1"));

    let (mut lb1, vip) = lb2_restarts();
    for n in 0..16 {
        assert!(hears(&mut lb1, MS(1_500 + 200 * n), back(n, true)));
        let owner = if n < 15 { "lb2" } else { "lb1" };
        assert_eq!(
            lb1.owner(vip),
            Some(owner),
            "{n}: for 3 s, whatever it says"
        );
    }
}

#[test]
fn one_that_begins_says_when_it_knows_what_it_serves() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    assert!(hears(&mut lb1, MS(100), says(0, &[], &[])));
    assert!(hears(&mut lb1, MS(600), says(1, &[], &[])));
    lb1.offer(MS(600), [vip]);
    let hellos = run(&mut lb1, MS(799));
    assert!(hellos.iter().all(|h| h.recovering && h.owned.is_empty()));
    assert!(hears(&mut lb1, MS(799), says(2, &[], &[])));
    let next = run(&mut lb1, MS(1_030)).pop().unwrap();
    assert!(!next.recovering && next.owned.contains(&vip));
    let mut nothing = self::lb1();
    nothing.serves_nothing(MS(10));
    assert!(!run(&mut nothing, MS(20)).pop().unwrap().recovering);
    // And with its last word it keeps what it owns.
    lb1.restart(MS(1_050));
    let last = run(&mut lb1, MS(1_070)).pop().unwrap();
    assert!(last.owned.contains(&vip) && last.restart == RESTART && !last.leaving);
}

#[test]
fn of_two_owners_the_lower_lets_go_and_the_higher_tells_neighbors_again() {
    for (belongs_to, keeps) in [("lb1", true), ("lb2", false)] {
        let (mut lb1, vip) = (lb1(), vip_of(belongs_to));
        lb1.offer(MS(0), [vip]);
        run(&mut lb1, MS(700));
        lb1.changes();
        hears(&mut lb1, MS(710), says(1, &[vip], &[vip]));
        assert_eq!(lb1.owned().contains_key(&vip), keeps, "{belongs_to}");
        if keeps {
            hears(&mut lb1, MS(720), says(2, &[vip], &[]));
            assert_eq!(lb1.changes(), [(vip, Change::Affirmed)]);
        } else {
            assert_eq!(lb1.changes(), [(vip, Change::Released)]);
        }
    }
}

#[test]
fn one_that_let_go_before_it_proved_itself_has_told_neighbors_otherwise() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(700));
    lb1.changes();
    // They hear each other again, and it hears first.
    assert!(!hears(&mut lb1, MS(710), deaf(1, vip)));
    assert!(hears(&mut lb1, MS(740), says(2, &[vip], &[])));
    assert_eq!(lb1.changes(), [(vip, Change::Affirmed)]);
}

#[test]
fn one_that_ceases_to_hear_us_is_given_way() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    run(&mut lb1, MS(700));
    assert!(hears(&mut lb1, MS(710), says(0, &[vip], &[])));
    for n in 1..3 {
        assert_eq!(lb1.owner(vip), Some("lb1"));
        assert!(hears(&mut lb1, MS(710 + 200 * n), deaf(n, vip)));
    }
    assert_eq!(lb1.owner(vip), Some("lb2"));
    let peer = lb1.peers(MS(1_110)).next().unwrap();
    assert!(peer.alive.is_some() && !peer.hears_us);
}

/// `lb2` says that it owns a VIP, and hears nobody.
fn deaf(n: u64, vip: IpAddr) -> Hello {
    Hello {
        heard: BTreeMap::new(),
        ..says(n, &[vip], &[vip])
    }
}

#[test]
fn one_that_never_heard_us_may_be_a_recording() {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    for n in 0..20 {
        assert!(!hears(&mut lb1, MS(100 * n), deaf(n, vip)));
    }
    assert_eq!(lb1.owner(vip), Some("lb1"));
    let peer = lb1.peers(MS(1_900)).next().unwrap();
    assert!(peer.alive.is_none() && peer.heard && !peer.hears_us);
    // It is answered: that it is heard, and by its life, so that it can prove itself.
    let said = run(&mut lb1, MS(2_100)).pop().unwrap();
    assert_eq!(said.echo("lb2", 10), Some(19));
    assert!(hears(&mut lb1, MS(2_110), says(20, &[vip], &[vip])));
    let peer = lb1.peers(MS(2_110)).next().unwrap();
    assert!(peer.alive.is_some() && peer.hears_us);
    assert_eq!(lb1.peers(MS(9_000)).next().unwrap().stale, 0);
}

#[test]
fn a_recording_revives_nobody() {
    let (mut lb1, vip) = (lb1(), vip_of("lb2"));
    lb1.offer(MS(0), [vip]);
    let (mut recorded, mut lost) = (Vec::new(), Vec::new());
    for n in 0..10 {
        let now = MS(100 + 200 * n);
        run(&mut lb1, now);
        let mut hello = says(2 * n, &[vip], &[vip]);
        hello.heard.values_mut().for_each(|s| *s = lb1.sequence);
        assert!(lb1.receive(now, hello.clone()));
        recorded.push(hello.clone());
        // The next one never came.
        hello.sequence += 1;
        lost.push(hello);
    }
    // Another life of it took its place, and died.
    let life_2 = Hello {
        life: 3,
        ..says(0, &[vip], &[vip])
    };
    assert!(hears(&mut lb1, MS(2_250), life_2));
    run(&mut lb1, MS(2_900));
    assert_eq!(lb1.owner(vip), Some("lb1"));
    // Of a life before ours it echoes another one.
    let earlier = Hello {
        heard: BTreeMap::from([(("lb1".to_owned(), 7), lb1.sequence)]),
        ..says(99, &[vip], &[vip])
    };
    for hello in recorded.into_iter().chain(lost).chain([earlier]) {
        assert!(!lb1.receive(MS(2_910), hello));
        assert_eq!(lb1.owner(vip), Some("lb1"));
    }
    assert!(lb1.peers(MS(2_910)).all(|peer| peer.alive.is_none()));
}

#[test]
fn a_recording_does_not_take_the_place_of_one_that_lives_nor_of_one_that_comes() {
    let mut lb1 = lb1();
    let life = |life: u64, n: u64| Hello {
        life,
        ..says(n, &[], &[])
    };
    let unheard = |life: u64, n: u64| Hello {
        heard: BTreeMap::new(),
        life,
        ..says(n, &[], &[])
    };
    let lives = |lb1: &mut Election| -> Vec<u64> {
        let due = lb1.next_deadline();
        let said = lb1.tick(due).unwrap();
        said.heard.keys().map(|(_, life)| *life).collect()
    };
    assert!(hears(&mut lb1, MS(10), life(5, 0)));
    // Both are answered.
    assert!(!hears(&mut lb1, MS(20), unheard(4, 0)));
    assert_eq!(lives(&mut lb1), [4, 5]);
    // Each may wait for the time of a hello; so it has ours before it has to show it.
    assert!(!hears(&mut lb1, MS(230), unheard(6, 0)));
    assert!(!hears(&mut lb1, MS(240), unheard(4, 1)));
    assert_eq!(lives(&mut lb1), [5, 6]);
    // The one that proves itself is the one that lives.
    assert!(hears(&mut lb1, MS(450), life(6, 1)));
    assert!(!hears(&mut lb1, MS(460), unheard(5, 1)));
    assert_eq!(lives(&mut lb1), [5, 6]);
    assert!(hears(&mut lb1, MS(700), life(6, 2)));
    assert!(!hears(&mut lb1, MS(710), life(6, 2)));
    assert_eq!(lb1.peers(MS(710)).next().unwrap().stale, 2);
}

#[test]
fn hellos_that_are_old_or_of_others_change_nothing() {
    let (mut lb1, vip) = (lb1(), vip_of("lb1"));
    lb1.offer(MS(0), [vip]);
    assert!(hears(&mut lb1, MS(0), says(5, &[], &[])));
    run(&mut lb1, MS(400));
    let late = says(5, &[vip], &[vip]);
    let other_group = Hello {
        group: "h".to_owned(),
        ..says(6, &[vip], &[vip])
    };
    let nobody = Hello {
        name: "lb9".to_owned(),
        ..says(6, &[vip], &[vip])
    };
    for hello in [late, other_group, nobody] {
        assert!(!hears(&mut lb1, MS(410), hello));
    }
    assert_eq!(lb1.owner(vip), Some("lb1"));
    assert_eq!(lb1.peers(MS(410)).next().unwrap().stale, 1);
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
