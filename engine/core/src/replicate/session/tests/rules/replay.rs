//! Rule 8: joining by replay, and the log it takes.

use super::super::world::{World, candidate, millis};
use super::{complete, min_sync, small_log};
use crate::replicate::event::{EndCause, EventKind, EvictCause};
use crate::replicate::session::ReplicaState;
use core::time::Duration;
use lockstep_plan::Replicate;

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
