//! The invariants of the design note, over random schedules.

use super::world::{World, millis, policy};
use crate::replicate::event::{EndCause, EventKind};
use crate::replicate::leg::Phase;
use crate::replicate::session::{ReplicaReport, ReplicaState, SessionState};
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU8;
use core::time::Duration;
use lockstep_plan::{Commit, Divergence, Replicate};
use proptest::prelude::*;

/// Memory of a log in these tests: the least there is.
const MEMORY: usize = 64 << 10;

/// What happens next. Replicas are numbered modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    /// The client has this to say.
    Say(Vec<u8>),
    /// And this much of what costs no answer.
    Upload(usize),
    Sends(usize),
    Reads(usize),
    /// A server reads and answers.
    Serve(usize, usize, usize),
    /// Everybody does what can be done.
    Settle,
    Pass(u64),
    Freeze(usize),
    Resume(usize),
    Kill(usize),
    Reset(usize),
    Start(usize),
    HangUp(usize),
    Down(usize, bool),
    Switch(usize),
    /// How long a front may be, and how much the client leaves unread.
    Pieces(usize, usize),
    DiskHangs(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let some = prop_oneof![Just(1usize), 2usize..50, 50usize..5_000, Just(usize::MAX)];
    let letters = prop::collection::vec(prop::sample::select(&b"abcxyzZ.."[..]), 1..12);
    let who = 0usize..4;
    prop_oneof![
        6 => letters.prop_map(Step::Say),
        1 => (1usize..60_000).prop_map(Step::Upload),
        6 => some.clone().prop_map(Step::Sends),
        6 => some.clone().prop_map(Step::Reads),
        12 => (who.clone(), some.clone(), some).prop_map(|(i, t, g)| Step::Serve(i, t, g)),
        2 => Just(Step::Settle),
        4 => prop_oneof![1u64..30, 30u64..600, 600u64..4_000].prop_map(Step::Pass),
        2 => who.clone().prop_map(Step::Freeze),
        3 => who.clone().prop_map(Step::Resume),
        2 => who.clone().prop_map(Step::Kill),
        1 => who.clone().prop_map(Step::Reset),
        3 => who.clone().prop_map(Step::Start),
        1 => who.clone().prop_map(Step::HangUp),
        1 => (who.clone(), any::<bool>()).prop_map(|(i, d)| Step::Down(i, d)),
        1 => who.prop_map(Step::Switch),
        1 => (1usize..4_000, 1usize..20_000).prop_map(|(a, b)| Step::Pieces(a, b)),
        1 => any::<bool>().prop_map(Step::DiskHangs),
    ]
}

/// What a run is about.
#[derive(Debug, Clone)]
struct Case {
    quorum: bool,
    servers: usize,
    divergence: Divergence,
    disk: bool,
    rejoin: bool,
    /// Where the last server is wrong.
    corrupt_at: Option<u64>,
    steps: Vec<Step>,
}

fn case() -> impl Strategy<Value = Case> {
    let divergence = prop::sample::select(vec![Divergence::Count, Divergence::Evict]);
    (
        any::<bool>(),
        1usize..4,
        divergence,
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::option::weighted(0.3, 0u64..20_000),
        prop::collection::vec(step(), 1..100),
    )
        .prop_map(
            |(quorum, servers, divergence, disk, rejoin, corrupt_at, steps)| Case {
                quorum,
                servers: if quorum { 3 } else { servers },
                divergence,
                disk,
                rejoin,
                corrupt_at: corrupt_at.filter(|_| quorum || servers > 2),
                steps,
            },
        )
}

impl Case {
    fn policy(&self) -> Replicate {
        policy(|p| {
            if self.quorum {
                p.commit = Commit::Quorum(NonZeroU8::new(2).unwrap());
                p.min_sync = NonZeroU8::new(2).unwrap();
            }
            p.divergence = self.divergence;
            p.log_memory = MEMORY as u32;
            p.log_disk = if self.disk { 1 << 20 } else { 0 };
            p.rejoin = self.rejoin;
        })
    }

    /// Servers that are never killed, and never wrong; they may stop for a while.
    fn survivors(&self) -> usize {
        if self.quorum { 2 } else { 1 }
    }

    /// The only one that may say FIN as it likes: it is a minority, or makes a tie.
    fn quitter(&self) -> usize {
        self.servers - 1
    }
}

/// A world, and what it must have kept to so far.
struct Run {
    case: Case,
    world: World,
    /// What of each server's input was checked.
    read: Vec<usize>,
    /// What the client was given, as far as it was checked.
    checked: usize,
    /// Whether a survivor was not in sync at some time: then it proves nothing about progress.
    doubtful: bool,
    closed: bool,
}

impl Run {
    fn new(case: Case) -> Self {
        let mut world = World::new(case.policy(), case.servers);
        if let Some(last) = world.servers.last_mut() {
            last.corrupt_at = case.corrupt_at;
        }
        world.settle();
        Run {
            world,
            read: vec![0; case.servers],
            checked: 0,
            doubtful: false,
            closed: false,
            case,
        }
    }

    fn take(&mut self, step: Step) {
        let count = self.case.servers;
        let mortal = |i: usize| i % count >= self.case.survivors();
        let world = &mut self.world;
        match step {
            Step::Say(bytes) => world.sending.extend(bytes),
            Step::Upload(count) => world.sending.extend(core::iter::repeat_n(b'.', count)),
            Step::Sends(most) => world.client_sends(most),
            Step::Reads(most) => world.client_reads(most),
            Step::Serve(i, take, give) => world.serve(i % count, take, give),
            Step::Settle => world.settle(),
            Step::Pass(ms) => world.pass(millis(ms)),
            Step::Freeze(i) => world.servers[i % count].frozen = true,
            Step::Resume(i) => {
                let server = &mut world.servers[i % count];
                server.frozen &= !server.up;
            }
            Step::Kill(i) if mortal(i) => world.kill(i % count),
            Step::Reset(i) if mortal(i) => world.reset(i % count),
            Step::HangUp(i) if mortal(i) && i % count == self.case.quitter() => {
                world.hang_up(i % count);
            }
            Step::Kill(_) | Step::Reset(_) | Step::HangUp(_) => {}
            Step::Start(i) => {
                // A process that hung up has gone: its connection knows nothing of the next one.
                if !core::mem::replace(&mut world.servers[i % count].up, true) {
                    world.servers[i % count].frozen = false;
                    world.reset(i % count);
                }
            }
            Step::Down(i, down) => {
                world.down[i % count] = down && mortal(i);
                world.update();
            }
            Step::Switch(i) => {
                let _ = world.session.switch_to(world.now, (i % count) as u16);
            }
            Step::Pieces(piece, room) => {
                for leg in world.legs.iter_mut().flatten() {
                    leg.piece = piece;
                }
                world.client.piece = piece;
                world.client.outbox_room = room.max(world.client.outbox.len());
            }
            Step::DiskHangs(hangs) => world.disk_hangs = hangs,
        }
        if world.ended.is_none() {
            world.drive();
        }
        self.check();
    }

    fn check(&mut self) {
        self.check_output();
        self.check_input();
        let world = &self.world;
        if world.ended.is_some() {
            return;
        }
        let report = world.session.report();
        assert!(report.memory <= MEMORY, "{} bytes", report.memory);
        if let Some(deadline) = world.session.next_deadline() {
            assert!(deadline > world.now, "a deadline that has passed");
        }
        for replica in &report.replicas[..self.case.survivors()] {
            self.doubtful |= replica.state != ReplicaState::InSync;
            assert!(!replica.diverged || self.case.corrupt_at.is_some());
        }
        if world.client.finished && !core::mem::replace(&mut self.closed, true) {
            let voters = report
                .replicas
                .iter()
                .filter(|r| r.state == ReplicaState::InSync);
            let voters = voters.filter(|r| !self.case.quorum || !r.diverged);
            let (yes, no): (Vec<&ReplicaReport>, Vec<_>) = voters.partition(|r| r.ended);
            assert!(yes.len() > no.len(), "closed against the majority");
        }
    }

    /// Neither a gap nor a repeat, and no byte that nobody, or no quorum, has said.
    fn check_output(&mut self) {
        let world = &self.world;
        let expected = world.expected();
        let given = world.received.iter().chain(&world.client.outbox);
        for (at, byte) in given.enumerate().skip(self.checked) {
            let right = expected.get(at) == Some(byte);
            let wrong = !self.case.quorum && self.case.corrupt_at == Some(at as u64);
            assert!(right || wrong, "byte {at} of {}", expected.len());
        }
        self.checked = world.received.len();
    }

    /// A prefix of what the client sent, and nothing that the replica has not caused yet.
    fn check_input(&mut self) {
        let world = &self.world;
        for (index, server) in world.servers.iter().enumerate() {
            let Some(leg) = &world.legs[index] else {
                continue;
            };
            if leg.phase != Phase::Open {
                continue;
            }
            let checked = self.read[index].min(server.read.len());
            let count = server.read.len() + leg.outbox.len();
            let delivered = server.read[checked..].iter().chain(&leg.outbox);
            assert!(delivered.eq(&world.sent[checked..count]));
            self.read[index] = server.read.len();
            if let Some(last) = count.checked_sub(1) {
                assert!(world.had[last] as u64 <= server.said, "asked too early");
            }
        }
    }

    /// Everything is well again: with a quorum that was always there, everything arrives.
    fn end(mut self) {
        let world = &mut self.world;
        world.disk_hangs = false;
        world.client.outbox_room = world.client.outbox_room.max(64 << 10);
        for server in &mut world.servers {
            server.frozen &= !server.up;
        }
        for second in 0..100 {
            if self.world.ended.is_some() {
                break;
            }
            self.world.ends = second == 50;
            self.world.pass(Duration::from_secs(1));
            self.check();
        }
        let world = &self.world;
        // While one was stopped, two contradicted each other for too long.
        let disputed = self.case.corrupt_at.is_some() && world.ended == Some(EndCause::Diverged);
        if self.doubtful || disputed {
            return;
        }
        assert_eq!(
            world.received.len(),
            world.expected().len(),
            "it does not arrive"
        );
        assert!(world.sending.is_empty(), "it is not sent");
        let tie = !self.case.quorum && self.case.servers == 2;
        assert!(
            world.ended == Some(EndCause::Closed) || tie,
            "{:?}",
            world.ended
        );
        let wrong = |e: &EventKind| matches!(e, EventKind::Diverged { .. });
        assert!(self.case.corrupt_at.is_some() || !world.events.iter().any(wrong));
        assert!(world.ended.is_none() || world.pool.free() == world.pool.total());
        assert!(world.ended.is_some() || world.protection() != SessionState::Orphaned);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_over_any_schedule(case in case()) {
        let mut run = Run::new(case.clone());
        for step in case.steps {
            run.take(step);
        }
        run.end();
    }
}
