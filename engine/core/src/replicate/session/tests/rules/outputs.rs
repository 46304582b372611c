//! Rule 7: differences; and commit by quorum.

use super::super::world::{World, policy};
use super::{complete, min_sync, quorum};
use crate::replicate::event::{EndCause, EventKind, EvictCause};
use crate::replicate::session::{ReplicaState, SessionState, SwitchError};
use core::num::NonZeroU8;
use core::time::Duration;
use lockstep_plan::{Divergence, Replicate};

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
