use super::{CHUNK, GATE, InputLog, MIN_MEMORY, READ_AHEAD, Read, WINDOWS};
use crate::replicate::chunks::ChunkPool;
use crate::replicate::event::SessionId;
use crate::replicate::spill::{SpillQueue, SpillReply, SpillRequest};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const SESSION: SessionId = SessionId {
    worker: 3,
    number: 7,
};
const KIB: u64 = 1024;
const MIB: u32 = 1 << 20;

/// The byte at an offset of the client's stream.
fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bytes(from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(byte).collect()
}

/// What stands where the engine's thread does.
#[derive(Default)]
struct Thread {
    file: Option<Vec<u8>>,
    replies: VecDeque<SpillReply>,
    full: bool,
    unreadable: bool,
    /// A chunk was not written: nothing that comes behind it is.
    broken: bool,
}

impl Thread {
    fn carry_out(&mut self, request: SpillRequest) {
        let reply = match request {
            SpillRequest::Remove { session } => {
                assert_eq!(session, SESSION);
                assert!(
                    self.file.take().is_some() || self.broken,
                    "a file that is not there"
                );
                self.broken = false;
                return;
            }
            SpillRequest::Append {
                session,
                offset,
                chunk,
            } if self.full || self.broken => {
                self.file = None;
                self.broken = true;
                SpillReply::NotAppended {
                    session,
                    offset,
                    chunk,
                }
            }
            SpillRequest::Append {
                session,
                offset,
                chunk,
            } => {
                let file = self.file.get_or_insert_default();
                assert_eq!(offset, file.len() as u64, "the file grows at its end");
                file.extend_from_slice(chunk.bytes());
                SpillReply::Appended {
                    session,
                    offset,
                    chunk,
                }
            }
            SpillRequest::Read {
                session,
                offset,
                mut chunk,
            } => {
                let from = offset as usize;
                let found = self
                    .file
                    .as_ref()
                    .and_then(|file| file.get(from..from + CHUNK));
                match found.filter(|_| !self.unreadable) {
                    Some(found) => {
                        chunk.bytes_mut().copy_from_slice(found);
                        SpillReply::Filled {
                            session,
                            offset,
                            chunk,
                        }
                    }
                    None => SpillReply::NotFilled {
                        session,
                        offset,
                        chunk,
                    },
                }
            }
        };
        self.replies.push_back(reply);
    }
}

/// A log with everything around it, and what it must be equal to.
struct World {
    log: InputLog,
    pool: ChunkPool,
    queue: SpillQueue,
    thread: Thread,
    memory: usize,
    /// Every gate there was.
    gates: Vec<(u64, u64)>,
    needed: u64,
    /// What other sessions have taken.
    taken: Vec<crate::replicate::chunks::Chunk>,
    /// A replica that joins, and has read this far.
    joining: u64,
}

impl World {
    fn new(memory: u32, disk: u64, chunks: usize, requests: usize) -> Self {
        let mut queue = SpillQueue::new(requests);
        assert!(queue.pop().is_none());
        Self {
            log: InputLog::new(memory, disk, SESSION),
            pool: ChunkPool::new(chunks * CHUNK),
            queue,
            thread: Thread::default(),
            memory: (memory as usize).max(MIN_MEMORY),
            gates: Vec::new(),
            needed: 0,
            taken: Vec::new(),
            joining: 0,
        }
    }

    fn append(&mut self, count: usize) -> usize {
        let end = self.log.end();
        let taken = self.log.append(&bytes(end, count), &mut self.pool);
        assert_eq!(self.log.end(), end + taken as u64);
        taken
    }

    fn gate(&mut self, acknowledged: u64) {
        self.gates.push((self.log.end(), acknowledged));
        self.log.gate(acknowledged);
    }

    fn release(&mut self, keep_whole: bool) {
        self.log
            .release(self.needed, keep_whole, &mut self.pool, &mut self.queue);
    }

    /// Everything that is read is needed no more.
    fn release_all(&mut self) {
        self.needed = self.log.end();
        self.release(true);
    }

    /// Lets the thread do so many requests.
    fn run(&mut self, requests: usize) {
        for _ in 0..requests {
            let Some(request) = self.queue.pop() else {
                break;
            };
            self.thread.carry_out(request);
        }
    }

    fn reply(&mut self) {
        if let Some(reply) = self.thread.replies.pop_front() {
            self.log.spilled(reply, &mut self.pool, &mut self.queue);
        }
    }

    /// Until nothing is under way.
    fn settle(&mut self) {
        while !self.queue.is_empty() || !self.thread.replies.is_empty() {
            self.run(usize::MAX);
            self.reply();
        }
    }

    /// The joining replica reads a piece, if it is there; `false` when it is gone.
    fn join(&mut self) -> bool {
        match self.log.read(self.joining) {
            Read::Bytes(piece) => {
                assert!(!piece.is_empty());
                assert_eq!(piece, bytes(self.joining, piece.len()));
                self.joining += piece.len() as u64;
            }
            Read::Spilled => self
                .log
                .request(self.joining, &mut self.pool, &mut self.queue),
            Read::Gone => return false,
            Read::End => assert_eq!(self.joining, self.log.end()),
        }
        true
    }

    fn check(&self) {
        let log = &self.log;
        assert!(
            log.memory() <= self.memory,
            "{} of {}",
            log.memory(),
            self.memory
        );
        let chunks = (log.memory() - log.gates.len() * GATE) / CHUNK;
        assert_eq!(
            self.pool.total(),
            self.pool.free() + self.taken.len() + chunks,
            "a chunk is lost"
        );
        assert!(log.start() <= log.end());
        assert!(
            log.resident <= self.needed || log.resident == 0,
            "what is needed is in memory"
        );
        assert!(log.spilled_bytes() <= log.disk);
        if log.is_whole() {
            assert_eq!(log.start(), 0);
        }
    }

    /// Reads are the stream, wherever they begin.
    fn check_read(&self, at: u64) {
        match self.log.read(at) {
            Read::Bytes(piece) => {
                assert!(!piece.is_empty() && at + piece.len() as u64 <= self.log.end());
                assert_eq!(piece, bytes(at, piece.len()));
            }
            Read::Spilled => assert!(self.log.is_whole() && at < self.needed),
            Read::Gone => assert!(!self.log.is_whole() && at < self.log.start()),
            Read::End => assert!(at >= self.log.end()),
        }
    }

    fn check_allowed(&self, at: u64, covered: u64) {
        let closed = self.gates.iter().find(|gate| gate.1 > covered);
        let expected = closed.map_or(self.log.end(), |gate| gate.0.min(self.log.end()));
        assert_eq!(
            self.log.allowed(at, covered),
            expected.max(at),
            "at {at}, covering {covered}"
        );
    }

    /// Ends the session; every chunk has to come back.
    fn close(mut self) {
        self.log.close(&mut self.pool, &mut self.queue);
        while let Some(request) = self.queue.pop() {
            self.thread.carry_out(request);
        }
        for reply in self.thread.replies.drain(..) {
            self.pool.put(reply.into_chunk());
        }
        for chunk in self.taken {
            self.pool.put(chunk);
        }
        assert_eq!(self.pool.free(), self.pool.total());
        assert_eq!(
            self.thread.file, None,
            "the file is removed with the session"
        );
    }
}

#[test]
fn bytes_are_read_where_they_were_appended() {
    let mut world = World::new(MIB, 0, 64, 0);
    assert_eq!(world.log.read(0), Read::End);
    assert_eq!(world.append(CHUNK + 10), CHUNK + 10);
    assert_eq!(world.log.read(0), Read::Bytes(&bytes(0, CHUNK)));
    assert_eq!(world.log.read(5), Read::Bytes(&bytes(5, CHUNK - 5)));
    assert_eq!(
        world.log.read(CHUNK as u64),
        Read::Bytes(&bytes(CHUNK as u64, 10))
    );
    assert_eq!(world.log.read(CHUNK as u64 + 10), Read::End);
    world.log.finish();
    assert!(world.log.is_finished());
    world.check();
    world.close();
}

#[test]
fn a_slow_replica_in_sync_stops_the_client_at_the_cap() {
    let mut world = World::new(MIB, 0, 1024, 0);
    let taken = world.append(2 << 20);
    assert_eq!(
        taken,
        (1 << 20) - CHUNK,
        "a chunk less than the cap: gates need room too"
    );
    world.release(true);
    assert_eq!(world.append(1), 0);
    // It moves on, and nobody has joined: what it read is given up, to make room.
    world.needed = 600 * KIB;
    world.release(true);
    assert!(!world.log.is_whole());
    assert!(world.append(1) > 0);
    world.check();
    world.close();
}

#[test]
fn a_log_that_fits_is_whole_for_good() {
    let mut world = World::new(MIB, 0, 1024, 0);
    for _ in 0..1000 {
        assert_eq!(world.append(1000), 1000);
        world.release_all();
    }
    assert!(world.log.is_whole());
    while world.joining < world.log.end() {
        assert!(world.join());
    }
    world.close();
}

#[test]
fn past_the_cap_the_rest_is_in_a_file_and_comes_back() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..4000 {
        assert_eq!(world.append(1448), 1448, "the client never waits");
        world.release_all();
        world.run(1);
        world.reply();
        world.check();
    }
    assert!(world.log.is_whole());
    assert!(world.log.spilled_bytes() > 4 << 20);
    let mut turns = 0;
    while world.joining < world.log.end() {
        assert!(world.join());
        world.settle();
        world.check();
        turns += 1;
    }
    let windows = world.log.windows.len();
    let before = world.pool.free();
    world.log.forget_windows(&mut world.pool);
    assert_eq!(world.pool.free(), before + windows);
    world.check();
    let chunks = world.log.end() / CHUNK as u64;
    assert!(
        turns < chunks * 3 / 2,
        "{turns} turns for {chunks} chunks: it is not read ahead"
    );
    world.close();
}

/// Each makes progress, though there are more than windows.
#[test]
fn many_replicas_join_at_once_at_different_places() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..4000 {
        world.append(1448);
        world.release_all();
        world.settle();
    }
    let mut cursors: Vec<u64> = (0..2 * WINDOWS as u64).map(|i| i * 70_000).collect();
    let mut turns = 0;
    while cursors.iter().any(|&at| at < world.log.end()) {
        for at in &mut cursors {
            world.joining = *at;
            assert!(world.join());
            *at = world.joining;
        }
        world.settle();
        world.check();
        turns += 1;
        assert!(turns < 60_000, "no progress: {cursors:?}");
    }
    world.close();
}

#[test]
fn a_full_disk_cuts_the_log_and_stops_nobody() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for turn in 0..4000 {
        world.thread.full = turn >= 2000;
        assert_eq!(world.append(1448), 1448);
        world.release_all();
        world.settle();
        world.check();
        if turn == 2000 - 1 {
            assert!(world.log.is_whole() && world.thread.file.is_some());
        }
        // One more chunk is tried.
        if turn == 2000 + CHUNK / 1448 {
            assert!(!world.log.is_whole() && world.thread.file.is_none());
        }
    }
    assert!(world.log.start() > MIB.into());
    assert_eq!(world.log.read(0), Read::Gone);
    world.close();
}

#[test]
fn a_thread_that_hangs_cuts_the_log_and_stops_nobody() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..4000 {
        let mut taken = world.append(1448);
        world.release_all();
        taken += world.append(1448 - taken);
        if taken < 1448 {
            assert!(world.log.is_spilling() && world.log.is_whole());
            world.log.give_up(&mut world.queue);
            world.release_all();
            taken += world.append(1448 - taken);
        }
        assert_eq!(taken, 1448);
        world.check();
    }
    assert!(!world.log.is_whole());
    world.settle();
    world.check();
    world.close();
}

/// The same when everything has to go because others need the pool.
#[test]
fn a_thread_that_hangs_keeps_a_part_of_a_log_only() {
    let mut world = World::new(MIB, 64 << 20, 1024, 512);
    world.append(700 << 10);
    world
        .taken
        .extend((0..800).map_while(|_| world.pool.take()));
    world.release_all();
    assert!(world.log.is_whole() && world.log.is_spilling());
    world.log.give_up(&mut world.queue);
    world.release_all();
    assert!(world.log.memory() <= MIB as usize / 4);
    assert_eq!(world.append(500 << 10), 500 << 10);
    world.close();
}

#[test]
fn a_log_moves_into_its_file_when_others_need_the_pool() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    world.append(700 << 10);
    world
        .taken
        .extend((0..800).map_while(|_| world.pool.take()));
    for _ in 0..10 {
        world.release_all();
        world.settle();
        world.check();
    }
    assert!(world.log.is_whole());
    assert_eq!(world.log.spilled_bytes(), 700 << 10);
    world.close();
}

/// An engine without a place for files: nobody waits for a disk that is not there.
#[test]
fn a_queue_that_nobody_empties_takes_nothing() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    world.queue = SpillQueue::new(64);
    for _ in 0..4000 {
        let taken = world.append(1448);
        world.release_all();
        assert_eq!(taken + world.append(1448 - taken), 1448);
        assert!(world.queue.is_empty() && !world.log.is_spilling());
        world.check();
    }
    assert!(!world.log.is_whole());
    assert!(
        world.log.end() - world.log.start() > 700 << 10,
        "it is kept as far as memory goes"
    );
    world.close();
}

#[test]
fn the_disk_cap_is_kept() {
    let mut world = World::new(MIB, 2 << 20, 1024, 64);
    while world.log.is_whole() {
        assert_eq!(world.append(1448), 1448);
        world.release_all();
        world.settle();
        world.check();
    }
    // What fits in memory, and in the file.
    assert!(world.log.end() > 5 << 19, "{}", world.log.end());
    assert_eq!(world.thread.file, None);
    world.close();
}

#[test]
fn a_file_that_cannot_be_read_cuts_the_log() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..2000 {
        world.append(1448);
        world.release_all();
        world.settle();
    }
    assert!(world.join());
    world.thread.unreadable = true;
    world.settle();
    assert!(!world.log.is_whole());
    assert!(!world.join());
    world.check();
    world.close();
}

#[test]
fn nothing_is_kept_for_nobody() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..100 {
        world.append(1448);
        world.needed = world.log.end();
        world.release(false);
        assert!(world.log.memory() <= CHUNK);
    }
    assert!(!world.log.is_whole());
    assert_eq!(world.log.start(), super::base(world.log.end()));
    world.check();
    world.close();
}

/// Otherwise sessions that are idle would hold every chunk for replicas that may never come.
#[test]
fn a_pool_that_is_low_takes_history_back() {
    let mut world = World::new(MIB, 0, 100, 0);
    world.append(60 * CHUNK);
    world.release_all();
    assert!(world.log.is_whole());
    world.taken.extend((0..20).map_while(|_| world.pool.take()));
    world.release_all();
    assert!(!world.log.is_whole());
    assert_eq!(world.log.memory(), 0);
    world.check();
    world.close();
}

/// A conversation of one byte each way, for ever: gates are most of its memory.
#[test]
fn gates_count_and_a_log_of_gates_is_cut() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for turn in 1..200_000 {
        assert_eq!(world.append(1), 1);
        world.log.gate(turn);
        world.release_all();
        world.settle();
        assert!(world.log.memory() <= MIB as usize);
    }
    assert!(!world.log.is_whole());
    assert_eq!(world.log.allowed(world.log.start(), 0), world.log.start());
    world.close();
}

#[test]
fn a_replica_is_fed_up_to_the_first_gate_that_is_closed() {
    let mut world = World::new(MIB, 0, 1024, 0);
    world.append(10);
    world.gate(100);
    world.gate(120);
    world.append(10);
    world.gate(120);
    world.append(10);
    world.gate(200);
    let log = &world.log;
    assert_eq!(log.allowed(0, 0), 10);
    assert_eq!(log.allowed(4, 119), 10);
    assert_eq!(log.allowed(0, 120), 30);
    assert_eq!(log.allowed(15, 0), 15);
    assert_eq!(log.allowed(0, 200), 30);
    assert_eq!(log.gates.len(), 2);
    world.append(5);
    assert_eq!(world.log.allowed(0, 199), 30);
    assert_eq!(world.log.allowed(0, 200), 35);
    world.close();
}

#[test]
fn it_reads_ahead_once() {
    let mut world = World::new(MIB, 64 << 20, 1024, 64);
    for _ in 0..2000 {
        world.append(1448);
        world.release_all();
        world.settle();
    }
    for _ in 0..3 {
        assert!(world.join());
        assert_eq!(world.queue.len() as u64, READ_AHEAD);
    }
    world.close();
}

#[test]
fn it_asks_for_no_more_than_the_queue_takes() {
    let mut world = World::new(MIB, 64 << 20, 1024, 2);
    while world.log.spilled_bytes() < MIB.into() {
        world.append(1448);
        world.release_all();
        world.settle();
    }
    for _ in 0..3 {
        assert!(world.join());
        assert_eq!(world.queue.len(), 2);
    }
    while world.joining < world.log.end() {
        world.settle();
        assert!(world.join());
    }
    world.close();
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Gate(u64),
    Advance(u64),
    Release,
    ReleaseForNobody,
    Join(usize),
    Run(usize),
    Reply(usize),
    Pressure(usize),
    Relief,
    DiskFull(bool),
    Unreadable,
    GiveUp,
    ForgetWindows,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1_usize..30_000).prop_map(Step::Append),
        4 => (1_usize..20).prop_map(Step::Append),
        6 => (0_u64..200).prop_map(Step::Gate),
        12 => (0_u64..60_000).prop_map(Step::Advance),
        12 => Just(Step::Release),
        8 => (1_usize..5).prop_map(Step::Join),
        1 => Just(Step::ForgetWindows),
        10 => (1_usize..20).prop_map(Step::Run),
        10 => (1_usize..20).prop_map(Step::Reply),
        1 => (1_usize..40).prop_map(Step::Pressure),
        2 => Just(Step::Relief),
        1 => any::<bool>().prop_map(Step::DiskFull),
    ]
}

/// With what ends a log's wholeness among the steps, or without.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rare = prop_oneof![
        300 => step(),
        1 => Just(Step::Unreadable),
        1 => Just(Step::GiveUp),
        1 => Just(Step::ReleaseForNobody),
    ];
    prop::collection::vec(rare, 0..250)
}

proptest! {
    #[test]
    fn a_log_is_the_stream_whatever_happens(
        memory in prop_oneof![Just(0_u32), 65_536_u32..300_000],
        disk in prop_oneof![Just(0_u64), 0_u64..600_000, Just(64 << 20)],
        requests in prop_oneof![Just(0_usize), 1_usize..4, 4_usize..64],
        steps in steps(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        let mut world = World::new(memory, disk, 100, requests);
        let mut acknowledged = 0;
        for step in steps {
            let was_whole = world.log.is_whole();
            let started = world.log.start();
            match step {
                Step::Append(count) => {
                    let before = world.pool.free();
                    let taken = world.append(count);
                    // Fewer only where there is no room.
                    prop_assert!(taken == count || world.pool.free() == 0 || !world.log.has_room());
                    prop_assert!(world.pool.free() <= before);
                }
                Step::Gate(more) => {
                    acknowledged += more;
                    world.gate(acknowledged);
                }
                Step::Advance(by) => world.needed = (world.needed + by).min(world.log.end()),
                Step::Release => world.release(true),
                Step::ReleaseForNobody => world.release(false),
                Step::Join(times) => {
                    for _ in 0..times {
                        let there = world.join();
                        prop_assert_eq!(there, world.log.is_whole() || world.joining >= world.log.start());
                    }
                }
                Step::Run(count) => world.run(count),
                Step::Reply(count) => (0..count).for_each(|_| world.reply()),
                Step::Pressure(count) => {
                    let taken: Vec<_> = (0..count).map_while(|_| world.pool.take()).collect();
                    world.taken.extend(taken);
                }
                Step::Relief => world.taken.drain(..).for_each(|chunk| world.pool.put(chunk)),
                Step::DiskFull(full) => world.thread.full = full,
                Step::Unreadable => world.thread.unreadable = true,
                Step::ForgetWindows => world.log.forget_windows(&mut world.pool),
                Step::GiveUp => world.log.give_up(&mut world.queue),
            }
            world.check();
            prop_assert!(was_whole || !world.log.is_whole(), "cut is for good");
            prop_assert!(world.log.start() >= started);
            for place in &places {
                let at = place.index(world.log.end() as usize + 1) as u64;
                world.check_read(at);
                let from = at.max(world.log.start());
                let covered = place.index(acknowledged as usize + 2) as u64;
                world.check_allowed(from, covered);
            }
        }
        // A whole log can be read from its first byte to its last.
        world.taken.drain(..).for_each(|chunk| world.pool.put(chunk));
        world.needed = world.log.end();
        world.joining = 0;
        let mut turns = 0;
        while world.log.is_whole() && world.joining < world.log.end() {
            prop_assert!(world.join());
            world.settle();
            world.check();
            turns += 1;
            prop_assert!(turns < 10_000, "no progress at {}", world.joining);
        }
        world.close();
    }
}
