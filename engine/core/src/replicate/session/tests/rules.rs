//! The rules of the design note, one by one.

use super::world::{World, candidate, millis, policy};
use crate::replicate::event::{EndCause, EventKind, EvictCause, SwitchCause};
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::session::{ReplicaState, SessionState, SwitchError};
use core::num::NonZeroU8;
use core::time::Duration;
use lockstep_plan::{Commit, Divergence, Replicate};

fn min_sync(count: u8) -> Replicate {
    policy(|p| p.min_sync = NonZeroU8::new(count).unwrap())
}

fn quorum(k: u8) -> Replicate {
    policy(|p| {
        p.commit = Commit::Quorum(NonZeroU8::new(k).unwrap());
        p.min_sync = NonZeroU8::new(k).unwrap();
    })
}

/// The client has what one server alone would have said.
fn complete(world: &World) {
    assert_eq!(world.received.len(), world.expected().len());
    assert!(world.expected().iter().eq(&world.received));
}

#[test]
fn rule_1_the_client_is_answered_when_enough_have_accepted() {
    let mut world = World::new(min_sync(2), 3);
    world.drive();
    assert!(!world.answered);
    world.serve(0, 0, 0);
    world.drive();
    assert!(!world.answered);
    world.serve(2, 0, 0);
    world.drive();
    assert!(world.answered);
    assert_eq!(world.protection(), SessionState::Degraded);
    world.serve(1, 0, 0);
    world.drive();
    assert_eq!(world.protection(), SessionState::Protected);
    assert!(world.has(EventKind::Joined { replica: 1 }));
}

#[test]
fn rule_1_the_client_is_refused_when_too_few_accept_in_time() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].up = false;
    world.pass(Replicate::DEFAULT.open_timeout - Duration::from_micros(1));
    assert!(!world.refused);
    world.pass(Duration::from_micros(1));
    assert!(world.refused && !world.answered);
    assert_eq!(world.ended, Some(EndCause::OpenFailed));
}

#[test]
fn rule_1_a_replica_that_comes_up_while_the_client_waits_is_used() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].up = false;
    world.pass(millis(700));
    world.servers[1].up = true;
    world.pass(millis(600));
    assert!(world.answered);
}

#[test]
fn rule_1_every_replica_gets_all_input_then_the_end() {
    let mut world = World::opened(min_sync(3), 3);
    world.say(b"hello.world.");
    complete(&world);
    world.ends = true;
    world.settle();
    for server in &world.servers {
        assert_eq!(server.read, b"hello.world.");
        assert!(server.saw_end);
    }
    assert_eq!(world.ended, Some(EndCause::Closed));
    complete(&world);
}

#[test]
fn rule_2_the_first_primary_has_the_shortest_round_trip() {
    let mut world = World::new(min_sync(3), 3);
    world.rtts = [30, 10, 20].map(|ms| Some(millis(ms))).to_vec();
    world.update();
    world.settle();
    assert!(world.has(EventKind::Opened { primary: 1 }));
}

#[test]
fn rule_2_who_is_furthest_ahead_follows_a_lost_primary() {
    let mut world = World::opened(min_sync(3), 3);
    world.client.outbox_room = 100;
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(usize::MAX);
    world.drive();
    // The client takes nothing; the second replica has said less than the third.
    world.serve(1, 9, 200);
    world.serve(2, 9, 300);
    world.drive();
    world.kill(0);
    world.drive();
    let cause = SwitchCause::Lost(Loss::Reset);
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 2,
        cause
    }));
    world.settle();
    complete(&world);
}

#[test]
fn rule_3_a_new_primary_that_is_behind_is_waited_for_and_checked() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[1].frozen = true;
    world.say(b"Zebra.Z");
    assert_eq!(world.received.len(), world.expected().len());
    world.kill(0);
    world.settle();
    assert_eq!(world.primary(), Some(1));
    let before = world.received.len();
    world.say(b"abc");
    assert_eq!(world.received.len(), before);
    world.servers[1].frozen = false;
    world.settle();
    complete(&world);
    assert!(
        !world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Diverged { .. }))
    );
    assert!(
        world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Resumed { .. }))
    );
}

#[test]
fn rule_4_any_number_of_switchovers_leaves_no_gap() {
    let mut world = World::opened(min_sync(1), 5);
    for index in 0..4 {
        world.say(b"xyzZ.");
        let primary = usize::from(world.primary().unwrap());
        world.sending.extend(b"Zq");
        world.drive();
        world.client_sends(9);
        world.drive();
        world.round(3, 700);
        world.drive();
        world.kill(primary);
        world.settle();
        assert_eq!(world.session.report().switchovers, index + 1);
    }
    complete(&world);
}

#[test]
fn rule_4_a_stalled_primary_is_replaced_and_stays_in_sync() {
    let mut world = World::opened(min_sync(2), 3);
    world.servers[0].frozen = true;
    world.say(b"question");
    let before = world.received.len();
    assert!(before < world.expected().len());
    world.pass(Replicate::DEFAULT.stall_timeout - Duration::from_micros(1));
    assert_eq!(world.received.len(), before);
    world.pass(Duration::from_micros(1));
    let cause = SwitchCause::Stalled;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    complete(&world);
    let gap = Replicate::DEFAULT.stall_timeout.as_micros() as u64;
    assert!(world.has(EventKind::Resumed { gap }));
    assert_eq!(world.counters.gap.sum(), gap);
    assert_eq!(world.counters.commit_delay.sum(), gap);
    assert_eq!(world.state(0), ReplicaState::InSync);
    // It goes on, and takes over again.
    world.servers[0].frozen = false;
    world.settle();
    world.session.switch_to(world.now, 0).unwrap();
    world.say(b"more");
    complete(&world);
    assert_eq!(world.primary(), Some(0));
}

#[test]
fn rule_4_a_client_that_reads_nothing_makes_nobody_stall() {
    let mut world = World::opened(min_sync(2), 2);
    world.client.outbox_room = 16;
    world.sending.extend(b"ZZ");
    world.drive();
    world.client_sends(9);
    world.drive();
    world.serve(0, 9, 9000);
    world.drive();
    world.serve(1, 9, 9000);
    for _ in 0..100 {
        world.now = world.now + millis(10);
        world.drive();
    }
    assert_eq!(world.session.report().switchovers, 0);
}

#[test]
fn rule_4_a_primary_that_ends_while_others_go_on_is_left_at_once() {
    let mut world = World::opened(min_sync(2), 3);
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(9);
    world.drive();
    world.serve(0, 9, 500);
    world.drive();
    world.hang_up(0);
    world.serve(1, 9, 700);
    let at = world.now;
    world.settle();
    assert_eq!(world.now, at);
    let cause = SwitchCause::LeftEarly;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    let cause = EvictCause::LeftEarly;
    assert!(world.has(EventKind::Evicted { replica: 0, cause }));
    complete(&world);
    assert!(!world.client.finished);
}

#[test]
fn rule_4_the_majority_decides_about_the_end_after_a_while() {
    let mut world = World::opened(min_sync(3), 3);
    world.servers[2].frozen = true;
    world.ends = true;
    world.settle();
    assert!(!world.client.finished);
    world.pass(Replicate::DEFAULT.fin_timeout - Duration::from_micros(1));
    assert!(!world.client.finished);
    world.pass(Duration::from_micros(1));
    assert!(world.client.finished);
    complete(&world);
}

#[test]
fn rule_4_the_minority_that_ends_is_evicted_after_a_while() {
    let mut world = World::opened(min_sync(3), 3);
    world.hang_up(1);
    world.pass(Replicate::DEFAULT.fin_timeout);
    let cause = EvictCause::LeftEarly;
    assert!(world.has(EventKind::Evicted { replica: 1, cause }));
    assert!(!world.client.finished);
}

#[test]
fn rule_4_who_is_behind_has_no_vote_yet() {
    let mut world = World::opened(min_sync(1), 3);
    world.servers[1].frozen = true;
    world.servers[2].frozen = true;
    world.sending.extend(b"Z");
    world.ends = true;
    world.pass(Replicate::DEFAULT.fin_timeout * 5);
    assert!(!world.client.finished);
    assert_eq!(world.counters.evicted.get(), 0);
    world.servers[1].frozen = false;
    world.settle();
    assert!(world.client.finished);
    complete(&world);
}

#[test]
fn rule_4_a_tie_keeps_the_session_open() {
    let mut world = World::opened(min_sync(1), 2);
    world.hang_up(0);
    world.pass(Replicate::DEFAULT.fin_timeout * 3);
    assert!(!world.client.finished);
    assert_eq!(world.primary(), Some(1));
    world.say(b"still there?");
    complete(&world);
    let cause = EvictCause::LeftEarly;
    assert!(world.has(EventKind::Evicted { replica: 0, cause }));
}

#[test]
fn rule_4_one_replica_alone_ends_the_session_at_once() {
    let mut world = World::opened(min_sync(1), 1);
    world.servers[0].running.ends_at = Some(0);
    world.settle();
    assert!(world.client.finished);
}

#[test]
fn rule_4_a_verdict_evicts_all_but_the_last() {
    let mut world = World::opened(min_sync(1), 2);
    world.down = alloc::vec![true, true];
    world.update();
    world.settle();
    let cause = EvictCause::Verdict;
    assert!(world.has(EventKind::Evicted { replica: 0, cause }));
    let cause = SwitchCause::Verdict;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    world.say(b"go on");
    complete(&world);
    world.down = alloc::vec![false, true];
    world.update();
    world.settle();
    assert_eq!(world.state(0), ReplicaState::InSync);
}

/// More than the limit of a log of 64 KiB.
fn small_log(change: impl FnOnce(&mut Replicate)) -> Replicate {
    policy(|p| {
        p.log_memory = 64 << 10;
        p.log_disk = 0;
        change(p);
    })
}

#[test]
fn rule_5_a_frozen_replica_costs_grace_then_lags_then_is_cut_off() {
    let mut world = World::opened(small_log(|_| {}), 2);
    world.servers[1].frozen = true;
    let at = world.now;
    world.sending.extend([b'.'; 200_000]);
    world.settle();
    assert!(!world.sending.is_empty(), "the client waits");
    world.pass(Replicate::DEFAULT.grace);
    assert!(world.has(EventKind::Lagging { replica: 1 }));
    assert_eq!(world.now, at + Replicate::DEFAULT.grace);
    world.pass(millis(50));
    assert!(world.sending.is_empty(), "and goes on");
    assert!(world.has(EventKind::LogCut));
    let cause = EvictCause::LogCut;
    assert!(world.has(EventKind::Evicted { replica: 1, cause }));
    assert!(world.session.report().memory <= 64 << 10);
    complete(&world);
}

#[test]
fn rule_5_a_lagging_primary_is_replaced() {
    let mut world = World::opened(small_log(|_| {}), 2);
    world.servers[0].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(millis(300));
    let cause = SwitchCause::Lagging;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    complete(&world);
}

#[test]
fn rule_5_a_lagging_replica_that_catches_up_is_in_sync_again() {
    let mut world = World::opened(policy(|p| p.max_lag = 10_000), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(millis(300));
    assert_eq!(world.state(1), ReplicaState::Lagging);
    world.servers[1].frozen = false;
    world.settle();
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert_eq!(world.servers[1].read, world.sent);
    world.kill(0);
    world.say(b"abcZ");
    complete(&world);
}

#[test]
fn rule_5_a_replica_that_stays_behind_is_evicted() {
    let mut world = World::opened(policy(|p| p.max_lag = 10_000), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(Replicate::DEFAULT.lag_timeout + millis(300));
    let cause = EvictCause::Lagging;
    assert!(world.has(EventKind::Evicted { replica: 1, cause }));
}

#[test]
fn rule_5_replicas_that_are_needed_hold_the_client_up() {
    let mut world = World::opened(small_log(|p| p.min_sync = NonZeroU8::new(2).unwrap()), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 300_000]);
    world.pass(Duration::from_secs(5));
    assert!(!world.sending.is_empty());
    assert!(world.session.report().memory <= 64 << 10);
    assert_eq!(world.state(1), ReplicaState::InSync);
    world.servers[1].frozen = false;
    world.pass(millis(100));
    assert!(world.sending.is_empty());
    assert_eq!(world.servers[1].read, world.sent);
}

#[test]
fn rule_5_all_of_them_slow_means_a_slow_service_not_a_slow_replica() {
    let mut world = World::opened(small_log(|_| {}), 3);
    world.sending.extend([b'.'; 200_000]);
    for _ in 0..400 {
        for index in 0..3 {
            world.serve(index, 500, 9000);
        }
        world.client_sends(20_000);
        world.drive();
        world.now = world.now + millis(3);
    }
    assert!(
        !world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Lagging { .. }))
    );
    world.pass(millis(300));
    complete(&world);
}

#[test]
fn rule_6_a_replica_that_is_ahead_is_not_read() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[0].frozen = true;
    world.sending.extend(b"ZZZZZZZZ");
    world.drive();
    world.client_sends(99);
    world.drive();
    world.serve(1, 99, usize::MAX);
    world.drive();
    let leg = world.legs[1].as_ref().unwrap();
    assert_eq!(leg.inbox.len(), world.replica_rooms.0);
}

#[test]
fn rule_7_a_difference_is_counted() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].corrupt_at = Some(3);
    world.settle();
    world.say(b"abc");
    complete(&world);
    let counted = world
        .events
        .iter()
        .filter(|e| matches!(e, EventKind::Diverged { replica: 1, .. }));
    assert_eq!(counted.count(), 1);
    assert_eq!(world.counters.diverged.get(), 1);
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert_eq!(
        world.session.switch_to(world.now, 1),
        Err(SwitchError::Diverged)
    );
    // Better than none.
    world.kill(0);
    world.say(b"def");
    complete(&world);
}

#[test]
fn rule_7_one_that_differs_still_saves_the_session_from_a_crash_or_a_freeze() {
    for freezes in [false, true] {
        let mut world = World::new(min_sync(2), 2);
        world.servers[1].corrupt_at = Some(3);
        world.settle();
        world.sending.extend(b"Z");
        world.drive();
        world.client_sends(9);
        world.drive();
        world.serve(0, 9, 500);
        world.drive();
        if freezes {
            world.servers[0].frozen = true;
        } else {
            world.hang_up(0);
        }
        let wait = Replicate::DEFAULT.dead_after - Duration::from_micros(1);
        world.pass(wait);
        assert!(!world.client.finished);
        assert_eq!(world.received.len() < 3005, freezes);
        world.pass(Duration::from_micros(1));
        complete(&world);
    }
}

#[test]
fn rule_7_a_difference_in_what_comes_late_is_noticed() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].corrupt_at = Some(40_000);
    world.settle();
    world.servers[1].frozen = true;
    world.say(&[b'Z'; 30]);
    assert_eq!(world.received.len(), 90_005);
    world.servers[1].frozen = false;
    world.settle();
    let checkpoint = 64 << 10;
    assert!(world.has(EventKind::Diverged {
        replica: 1,
        offset: checkpoint
    }));
}

#[test]
fn rule_7_the_minority_is_evicted() {
    let mut world = World::new(
        policy(|p| {
            p.divergence = Divergence::Evict;
            p.min_sync = NonZeroU8::new(3).unwrap();
        }),
        3,
    );
    world.servers[2].corrupt_at = Some(12);
    world.settle();
    world.say(b"abcdef");
    let cause = EvictCause::Diverged;
    assert!(world.has(EventKind::Evicted { replica: 2, cause }));
    complete(&world);
}

#[test]
fn rule_7_a_primary_that_is_the_minority_is_evicted() {
    let mut world = World::new(
        policy(|p| {
            p.divergence = Divergence::Evict;
            p.min_sync = NonZeroU8::new(3).unwrap();
        }),
        3,
    );
    world.servers[0].corrupt_at = Some(12);
    world.settle();
    assert_eq!(world.primary(), Some(0));
    world.say(b"abcdef");
    let cause = EvictCause::Diverged;
    assert!(world.has(EventKind::Evicted { replica: 0, cause }));
    world.say(b"ghi");
    let wrong: usize = world
        .received
        .iter()
        .zip(world.expected())
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!((world.received.len(), wrong), (world.expected().len(), 1));
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert_eq!(world.state(2), ReplicaState::InSync);
}

#[test]
fn rule_7_a_difference_resets_the_session() {
    let mut world = World::new(
        policy(|p| {
            p.divergence = Divergence::Reset;
            p.min_sync = NonZeroU8::new(2).unwrap();
        }),
        2,
    );
    world.servers[1].corrupt_at = Some(12);
    world.settle();
    world.say(b"abcdef");
    assert_eq!(world.ended, Some(EndCause::Diverged));
    assert!(world.client.aborted);
}

#[test]
fn rule_7_differences_are_ignored_or_masked() {
    use lockstep_plan::mask::Mask;
    let ignores = policy(|p| p.divergence = Divergence::Ignore);
    let masks = policy(|p| {
        p.divergence = Divergence::Reset;
        p.masks = alloc::vec![Mask::Range {
            offset: 40,
            length: 2
        }];
    });
    for policy in [ignores, masks] {
        let mut world = World::new(policy, 2);
        world.servers[1].corrupt_at = Some(41);
        world.settle();
        world.say(b"abcdefghi");
        complete(&world);
        assert_eq!(world.ended, None);
        assert_eq!(world.counters.diverged.get(), 0);
        world.servers[1].frozen = true;
        world.say(b"xyz");
        world.servers[1].frozen = false;
        world.settle();
        world.kill(0);
        world.say(b"xyz");
        complete(&world);
    }
}

#[test]
fn quorum_hides_a_corrupt_primary() {
    let mut world = World::new(quorum(2), 3);
    world.servers[0].corrupt_at = Some(30);
    world.settle();
    let at = world.now;
    world.say(b"abcdefghijkl");
    assert_eq!(world.now, at);
    complete(&world);
    assert!(world.has(EventKind::Diverged {
        replica: 0,
        offset: 30
    }));
    assert_ne!(world.primary(), Some(0));
}

#[test]
fn quorum_waits_for_no_frozen_primary() {
    let mut world = World::opened(quorum(2), 3);
    let primary = usize::from(world.primary().unwrap());
    world.servers[primary].frozen = true;
    let at = world.now;
    world.say(b"abcZ");
    assert_eq!(world.now, at);
    complete(&world);
}

#[test]
fn quorum_commits_nothing_that_fewer_have_said() {
    let mut world = World::opened(quorum(2), 2);
    world.servers[1].frozen = true;
    let before = world.received.len();
    world.say(b"abcZ");
    world.pass(Duration::from_secs(3));
    assert_eq!(world.received.len(), before);
    world.servers[1].frozen = false;
    world.settle();
    complete(&world);
}

#[test]
fn quorum_lost_is_the_end_unless_somebody_joins() {
    let mut world = World::opened(quorum(2), 2);
    world.say(b"abc");
    world.kill(1);
    world.say(b"def");
    assert_eq!(world.protection(), SessionState::Orphaned);
    world.pass(Duration::from_secs(5));
    world.servers[1].up = true;
    world.pass(Duration::from_secs(4));
    complete(&world);
    world.kill(1);
    world.pass(Replicate::DEFAULT.orphan_timeout);
    assert_eq!(world.ended, Some(EndCause::Orphaned));
}

#[test]
fn quorum_ends_a_session_in_which_nobody_agrees() {
    let mut world = World::new(quorum(2), 2);
    world.servers[1].corrupt_at = Some(20);
    world.settle();
    world.say(b"abcdef");
    assert!(world.expected().iter().take(20).eq(&world.received));
    world.pass(Replicate::DEFAULT.orphan_timeout);
    assert_eq!(world.ended, Some(EndCause::Diverged));
}

#[test]
fn rule_8_a_replica_comes_back_by_replay() {
    let mut world = World::opened(min_sync(1), 2);
    world.say(b"abcZ");
    world.kill(1);
    world.say(b"defZ");
    world.servers[1].up = true;
    world.pass(millis(250));
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert!(world.has(EventKind::Joined { replica: 1 }));
    assert_eq!(world.servers[1].read, b"abcZdefZ");
    world.kill(0);
    world.say(b"ghi");
    complete(&world);
}

#[test]
fn rule_8_the_wait_between_attempts_doubles_and_one_eviction_is_told_of() {
    let mut world = World::opened(min_sync(1), 2);
    world.kill(1);
    world.settle();
    let mut last = world.now;
    for wait in [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
        let next = world.session.next_deadline().unwrap();
        assert_eq!(next.since(last), millis(wait));
        world.now = next;
        last = next;
        world.drive();
    }
    assert_eq!(world.counters.evicted.get(), 1);
}

#[test]
fn rule_8_who_replays_something_else_does_not_come_back() {
    let mut world = World::opened(min_sync(1), 2);
    world.say(b"abcZ");
    world.kill(1);
    world.settle();
    world.servers[1].up = true;
    world.servers[1].corrupt_at = Some(9);
    world.pass(millis(400));
    let cause = EvictCause::Diverged;
    assert_eq!(world.state(1), ReplicaState::Evicted(cause));
    assert!(!world.has(EventKind::Joined { replica: 1 }));
    world.servers[1].corrupt_at = None;
    world.pass(millis(600));
    assert_eq!(world.state(1), ReplicaState::InSync);
}

#[test]
fn rule_8_a_log_that_was_cut_lets_nobody_join() {
    let mut world = World::opened(small_log(|_| {}), 2);
    world.kill(1);
    world.sending.extend([b'.'; 200_000]);
    world.settle();
    assert!(world.has(EventKind::LogCut));
    world.servers[1].up = true;
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.state(1), ReplicaState::Evicted(_)));
    complete(&world);
}

#[test]
fn rule_8_a_log_on_disk_is_replayed() {
    let mut world = World::opened(small_log(|p| p.log_disk = 1 << 20), 2);
    world.kill(1);
    world.sending.extend([b'a'; 200_000]);
    world.pass(millis(200));
    assert!(!world.files.is_empty());
    world.servers[1].up = true;
    world.pass(millis(300));
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert_eq!(world.servers[1].read, world.sent);
    complete(&world);
    world.ends = true;
    world.pass(millis(10));
    assert_eq!(world.ended, Some(EndCause::Closed));
    world.drive();
    assert!(world.files.is_empty());
    assert_eq!(world.pool.free(), world.pool.total());
}

#[test]
fn rule_8_a_new_replica_joins_and_one_that_is_gone_leaves() {
    let mut world = World::opened(min_sync(1), 2);
    world.say(b"abcZ");
    world.add_server();
    world.settle();
    assert_eq!(world.state(2), ReplicaState::InSync);
    assert_eq!(world.servers[2].read, b"abcZ");
    // The first two go.
    world.session.update(
        world.now,
        core::iter::once(candidate(2, None, false, false)),
    );
    world.settle();
    assert_eq!(world.primary(), Some(2));
    let cause = EvictCause::Removed;
    assert_eq!(world.state(0), ReplicaState::Evicted(cause));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.state(1), ReplicaState::Evicted(cause));
    world.say(b"def");
    complete(&world);
}

#[test]
fn rule_8_a_draining_primary_hands_over() {
    let mut world = World::opened(min_sync(1), 2);
    world.draining[0] = true;
    world.update();
    world.say(b"abc");
    assert_eq!(world.primary(), Some(1));
    assert_eq!(world.state(0), ReplicaState::InSync);
    complete(&world);
}

#[test]
fn rule_9_input_waits_for_the_output_that_caused_it() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[1].frozen = true;
    world.say(b"abc");
    // The client has read the answer to that, and asks on.
    world.say(b"def");
    assert_eq!(world.servers[0].read, b"abcdef");
    let leg = world.legs[1].as_ref().unwrap();
    assert_eq!(leg.outbox, b"abc");
    world.servers[1].frozen = false;
    world.settle();
    assert_eq!(world.servers[1].read, b"abcdef");
}

#[test]
fn rule_10_without_a_replica_the_client_waits_then_gets_a_reset() {
    let mut world = World::opened(min_sync(2), 2);
    world.say(b"abc");
    world.kill(0);
    world.kill(1);
    world.settle();
    assert!(world.has(EventKind::Orphaned));
    world.say(b"def");
    assert_eq!(world.client.inbox, b"def");
    world.pass(Replicate::DEFAULT.orphan_timeout - Duration::from_micros(1));
    assert_eq!(world.ended, None);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.ended, Some(EndCause::Orphaned));
    assert!(world.client.aborted && !world.client.finished);
}

#[test]
fn rule_10_a_replica_that_comes_back_saves_the_session() {
    let mut world = World::opened(min_sync(1), 2);
    world.say(b"abcZ");
    world.kill(0);
    world.kill(1);
    world.say(b"def");
    world.pass(Duration::from_secs(4));
    world.servers[0].up = true;
    world.pass(Duration::from_secs(5));
    complete(&world);
    assert_eq!(world.protection(), SessionState::Degraded);
}

#[test]
fn rule_11_a_header_stands_before_the_input() {
    let mut world = World::with_prefix(min_sync(2), 2, b"PROXY.");
    world.settle();
    world.say(b"abc");
    for server in &world.servers {
        assert_eq!(server.read, b"PROXY.abc");
    }
}

#[test]
fn rule_12_a_client_that_has_ended_is_still_answered() {
    let mut world = World::opened(min_sync(2), 2);
    for server in &mut world.servers {
        server.running.follows = false;
        server.running.ends_at = Some(6005);
    }
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(1);
    world.drive();
    world.sending.extend(b"Z");
    world.ends = true;
    world.settle();
    assert_eq!(world.received.len(), 6005);
    assert_eq!(world.ended, Some(EndCause::Closed));
}

#[test]
fn rule_12_a_client_may_go_on_after_the_servers_have_ended() {
    let mut world = World::opened(min_sync(2), 2);
    for server in &mut world.servers {
        server.running.ends_at = Some(0);
    }
    world.settle();
    assert!(world.client.finished);
    assert_eq!(world.ended, None);
    world.say(b"last words");
    for server in &world.servers {
        assert_eq!(server.read, b"last words");
    }
    world.ends = true;
    world.settle();
    assert_eq!(world.ended, Some(EndCause::Closed));
}

#[test]
fn rule_12_servers_that_end_and_reset_leave_the_client_all_they_said() {
    let mut world = World::opened(min_sync(2), 2);
    for server in &mut world.servers {
        server.running.ends_at = Some(3005);
    }
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(1);
    world.drive();
    for index in 0..2 {
        world.serve(index, usize::MAX, usize::MAX);
    }
    world.drive();
    world.kill(0);
    world.kill(1);
    world.drive();
    assert!(world.client.finished && !world.client.aborted);
    assert!(world.received.len() < 3005);
    world.settle();
    assert_eq!(world.received.len(), 3005);
    assert_eq!(world.ended, None);
    // What it says now is nobody's.
    world.say(b"hello?");
    assert_eq!(world.ended, Some(EndCause::Closed));
    assert!(world.client.aborted);
}

#[test]
fn rule_12_a_client_that_resets_or_is_gone_takes_the_replicas_along() {
    for (loss, cause) in [
        (Loss::Reset, EndCause::ClientReset),
        (Loss::TimedOut, EndCause::ClientGone),
    ] {
        let mut world = World::opened(min_sync(2), 2);
        world.say(b"abc");
        world.client.phase = Phase::Lost(loss);
        world.settle();
        assert_eq!(world.ended, Some(cause));
        assert_eq!(world.pool.free(), world.pool.total());
    }
}

#[test]
fn rule_12_what_a_client_has_sent_reaches_slow_replicas_after_it_has_closed() {
    let mut world = World::opened(policy(|p| p.fin_timeout = millis(100)), 3);
    world.servers[2].frozen = true;
    world.replica_rooms = (8 << 10, 8 << 10);
    world.sending.extend([b'.'; 20_000]);
    world.ends = true;
    world.pass(millis(200));
    assert_eq!(world.client.phase, Phase::Closed);
    assert_eq!(world.ended, None);
    world.servers[2].frozen = false;
    world.settle();
    assert_eq!(world.servers[2].read, world.sent);
    assert_eq!(world.ended, Some(EndCause::Closed));
}

#[test]
fn a_switchover_is_made_when_asked_for() {
    let mut world = World::opened(min_sync(1), 2);
    assert_eq!(
        world.session.switch_to(world.now, 0),
        Err(SwitchError::AlreadyPrimary)
    );
    assert_eq!(
        world.session.switch_to(world.now, 7),
        Err(SwitchError::NoSuchReplica)
    );
    world.session.switch_to(world.now, 1).unwrap();
    world.settle();
    let cause = SwitchCause::Asked;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    world.kill(0);
    world.settle();
    assert_eq!(
        world.session.switch_to(world.now, 0),
        Err(SwitchError::NotInSync)
    );
}

#[test]
fn rule_8_a_disk_that_hangs_costs_the_log_not_the_client() {
    let mut world = World::opened(small_log(|p| p.log_disk = 1 << 20), 2);
    world.kill(1);
    world.disk_hangs = true;
    world.sending.extend([b'a'; 200_000]);
    world.pass(Replicate::DEFAULT.grace * 2);
    assert!(world.has(EventKind::LogCut));
    complete(&world);
}

#[test]
fn rule_8_who_is_fed_from_disk_keeps_its_input_as_the_last_one_left() {
    let policy = small_log(|p| {
        p.log_disk = 1 << 20;
        p.rejoin = false;
    });
    let mut world = World::new(policy, 2);
    // So that it is still within the first chunk, and nothing is given up before it lags.
    world.replica_rooms = (8 << 10, 2 << 10);
    world.settle();
    world.servers[1].frozen = true;
    world.sending.extend([b'a'; 100_000]);
    world.pass(Replicate::DEFAULT.grace * 2);
    assert_eq!(world.state(1), ReplicaState::Lagging);
    assert!(world.session.report().memory < 100_000 && !world.files.is_empty());
    world.kill(0);
    world.settle();
    assert_eq!(world.state(1), ReplicaState::InSync);
    world.servers[1].frozen = false;
    world.pass(millis(50));
    assert_eq!(world.servers[1].read.len(), 100_000);
    complete(&world);
}
