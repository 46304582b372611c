//! Rules 4, 10 and 12: signs of failure, votes about the end, and the ends there are.

use super::super::world::{World, millis, policy};
use super::{complete, min_sync};
use crate::replicate::event::{EndCause, EventKind, EvictCause, SwitchCause};
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::session::{ReplicaState, SessionState};
use core::time::Duration;
use lockstep_plan::Replicate;

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
    assert!(!world.client.finished);
    world.pass(Replicate::DEFAULT.fin_timeout);
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
fn rule_4_replicas_that_die_one_by_one_do_not_add_up_to_a_majority() {
    // A moment before the last one's vote is decided on, and a moment after.
    for apart in [Duration::from_millis(990), Duration::from_millis(1_010)] {
        let mut world = World::opened(min_sync(1), 4);
        for dies in 0..3 {
            world.hang_up(dies);
            world.pass(apart);
            assert!(!world.client.finished, "after replica {dies}, {apart:?}");
        }
        world.pass(Replicate::DEFAULT.fin_timeout);
        assert!(!world.client.finished, "{apart:?}");
        assert_eq!(world.primary(), Some(3));
        world.say(b"still there?");
        complete(&world);
    }
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
