//! The input log: what the client has sent, from the first byte on, for every replica to read at its
//! own pace.
//!
//! ```text
//!   0            memory                             end
//!   ├── in a file ──┼──── chunks ── needed ── chunks ─┤
//! ```
//!
//! Bytes from `needed` on, where the slowest replica in sync reads, stay in memory. What is before
//! is kept for replicas that join later or lag: in memory while there is room, then in a file, and
//! when there is no place either, the log is cut. Cut means for good: nobody joins any more.

use super::chunks::{CHUNK, Chunk, ChunkPool};
use super::event::SessionId;
use super::spill::{SpillQueue, SpillReply, SpillRequest};
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;

/// Chunks of the file that are in memory at a time, for replicas that read there.
const WINDOWS: usize = 8;
/// Chunks that are asked for at a time, from where a replica reads on.
const READ_AHEAD: u64 = 4;
/// The least memory of a log: less would not carry a session.
pub const MIN_MEMORY: usize = 16 * CHUNK;
/// What a gate costs.
const GATE: usize = size_of::<Gate>();

/// What is at an offset of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// These bytes, at least one; there may be more behind them.
    Bytes(&'a [u8]),
    /// Bytes in a file: ask for them with [`InputLog::request`] and come back.
    Spilled,
    /// Nothing any more: the log was cut behind it.
    Gone,
    /// Nothing yet, or never when the log is finished.
    End,
}

/// Input from `offset` on was caused by a client that had `acknowledged` bytes of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gate {
    offset: u64,
    acknowledged: u64,
}

/// A chunk of the file in memory.
#[derive(Debug)]
struct Window {
    offset: u64,
    /// None while the request is under way.
    chunk: Option<Chunk>,
}

/// See the module.
#[derive(Debug)]
pub struct InputLog {
    session: SessionId,
    /// Bytes for chunks and gates, windows apart.
    memory: usize,
    disk: u64,
    end: u64,
    finished: bool,
    whole: bool,
    /// What of the log is in `chunks` begins here, at a multiple of [`CHUNK`].
    resident: u64,
    chunks: VecDeque<Chunk>,
    /// In order of both fields. None of them stands before the last one at or before `start()`.
    gates: VecDeque<Gate>,
    /// Chunks that are on their way into the file, and are not the pool's yet.
    leaving: usize,
    /// Oldest request first.
    windows: ArrayVec<Window, WINDOWS>,
    /// Whether there is a file to be removed.
    file: bool,
}

impl InputLog {
    /// An empty log that keeps at most `memory_cap` bytes in memory, gates included (but no less
    /// than [`MIN_MEMORY`]), and `disk_cap` bytes in a file.
    pub fn new(memory_cap: u32, disk_cap: u64, session: SessionId) -> Self {
        let memory = (memory_cap as usize).max(MIN_MEMORY);
        let windows = if disk_cap == 0 { 0 } else { WINDOWS * CHUNK };
        Self {
            session,
            memory: memory - windows,
            disk: disk_cap,
            end: 0,
            finished: false,
            whole: true,
            resident: 0,
            chunks: VecDeque::with_capacity(memory / CHUNK),
            gates: VecDeque::new(),
            leaving: 0,
            windows: ArrayVec::new(),
            file: false,
        }
    }

    /// Bytes appended so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The first byte that is still kept, in memory or in a file.
    pub fn start(&self) -> u64 {
        if self.whole { 0 } else { self.resident }
    }

    /// Whether it is still kept from the first byte on, so that a replica can join.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The client's FIN stands at [`InputLog::end`].
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the client's FIN is there.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Memory it holds, in bytes: chunks, those on their way into or out of the file included, and
    /// gates.
    pub fn memory(&self) -> usize {
        self.kept() + (self.leaving + self.windows.len()) * CHUNK
    }

    /// Bytes in the file.
    pub fn spilled_bytes(&self) -> u64 {
        if self.whole { self.resident } else { 0 }
    }

    /// Appends bytes and returns how many were taken: fewer when the pool or the cap is exhausted,
    /// which [`InputLog::release`] may change.
    pub fn append(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> usize {
        debug_assert!(!self.finished, "bytes behind the client's FIN");
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = self.position(self.end);
            if at.0 == self.chunks.len() {
                if !self.has_room() {
                    break;
                }
                let Some(chunk) = pool.take() else { break };
                self.chunks.push_back(chunk);
            } else if !self.has_room_for_gate() {
                break;
            }
            let room = &mut self.chunks[at.0].bytes_mut()[at.1..];
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.end += now.len() as u64;
            rest = later;
        }
        bytes.len() - rest.len()
    }

    /// What is at `at`.
    pub fn read(&self, at: u64) -> Read<'_> {
        if at >= self.end {
            return Read::End;
        }
        if at < self.start() {
            return Read::Gone;
        }
        if at < self.resident {
            let here = self.windows.iter().find(|window| window.offset == base(at));
            return match here.and_then(|window| window.chunk.as_ref()) {
                Some(chunk) => Read::Bytes(&chunk.bytes()[within(at)..]),
                None => Read::Spilled,
            };
        }
        let (index, first) = self.position(at);
        let last = (self.end - base(at)).min(CHUNK as u64) as usize;
        Read::Bytes(&self.chunks[index].bytes()[first..last])
    }

    /// Asks for what [`InputLog::read`] said is spilled, and some more behind it. Call it whenever
    /// it says so: what was asked for already is not asked for again, and what could not be (no
    /// chunk or no room in the queue) is then.
    pub fn request(&mut self, at: u64, pool: &mut ChunkPool, out: &mut SpillQueue) {
        if !self.whole {
            return;
        }
        for ahead in 0..READ_AHEAD {
            let offset = base(at) + ahead * CHUNK as u64;
            if offset >= self.resident || !out.has_room() {
                return;
            }
            if self.windows.iter().any(|window| window.offset == offset) {
                continue;
            }
            let Some(chunk) = self.window_chunk((ahead > 0).then_some(base(at)), pool) else {
                return;
            };
            self.windows.push(Window {
                offset,
                chunk: None,
            });
            out.push(SpillRequest::Read {
                session: self.session,
                offset,
                chunk,
            });
        }
    }

    /// From here on, input was caused by a client that had acknowledged this much output.
    pub fn gate(&mut self, acknowledged: u64) {
        match self.gates.back_mut() {
            Some(last) if acknowledged <= last.acknowledged => {}
            Some(last) if last.offset == self.end => last.acknowledged = acknowledged,
            _ if acknowledged == 0 => {}
            _ => self.gates.push_back(Gate {
                offset: self.end,
                acknowledged,
            }),
        }
    }

    /// How far, from `at` on, a replica may be fed whose own output covers `covered`.
    pub fn allowed(&self, at: u64, covered: u64) -> u64 {
        let closed = self
            .gates
            .partition_point(|gate| gate.acknowledged <= covered);
        match self.gates.get(closed) {
            Some(gate) => gate.offset.max(at).min(self.end.max(at)),
            None => self.end.max(at),
        }
    }

    /// Makes room: bytes before `needed`, the smallest cursor that has to be served from memory,
    /// are spilled or given up as the caps and the pool demand. Without `keep_whole` nobody else
    /// reads them, and they go at once.
    pub fn release(
        &mut self,
        needed: u64,
        keep_whole: bool,
        pool: &mut ChunkPool,
        out: &mut SpillQueue,
    ) {
        let floor = base(needed.min(self.end));
        if !keep_whole {
            if self.start() < floor {
                self.cut(out);
            }
            self.drop_chunks(floor, 0, pool);
            return;
        }
        // Spilling begins before the cap is reached: the client need not wait for the disk.
        let low = pool.is_low();
        let mark = if low { 0 } else { self.memory / 4 * 3 };
        while self.kept() > mark && self.resident < floor && self.spill_one(out) {}
        // Chunks on their way into the file will make room. When they take too long, the caller
        // gives up.
        let stuck = self.leaving == 0 && self.resident < floor && (low || !self.has_room());
        let gates = floor > 0 && self.gates.len() * GATE > self.memory / 2;
        if self.whole && (stuck || gates) {
            self.cut(out);
        }
        if !self.whole {
            self.drop_chunks(floor, mark, pool);
        }
    }

    /// Whether chunks are on their way into the file, and will make room.
    pub fn is_spilling(&self) -> bool {
        self.leaving > 0
    }

    /// Cuts the log: the disk is too slow. [`InputLog::release`] makes room then.
    pub fn give_up(&mut self, out: &mut SpillQueue) {
        if self.whole {
            self.cut(out);
        }
    }

    /// Takes the reply to one of its requests. A failure cuts the log.
    pub fn spilled(&mut self, reply: SpillReply, pool: &mut ChunkPool, out: &mut SpillQueue) {
        debug_assert_eq!(reply.session(), self.session);
        match reply {
            SpillReply::Appended { chunk, .. } => {
                self.leaving -= 1;
                pool.put(chunk);
            }
            SpillReply::Filled { offset, chunk, .. } => {
                match self.windows.iter_mut().find(|w| w.offset == offset) {
                    Some(window) => window.chunk = Some(chunk),
                    None => pool.put(chunk),
                }
            }
            SpillReply::NotAppended { chunk, .. } => {
                self.leaving -= 1;
                pool.put(chunk);
                self.cut(out);
            }
            SpillReply::NotFilled { offset, chunk, .. } => {
                self.windows.retain(|window| window.offset != offset);
                pool.put(chunk);
                self.cut(out);
            }
        }
        if !self.whole {
            self.forget_windows(pool);
        }
    }

    /// Gives back what was read from the file. For when nobody reads there any more: whoever does has to
    /// ask again. What is under way stays until its reply.
    pub fn forget_windows(&mut self, pool: &mut ChunkPool) {
        self.windows.retain(|window| match window.chunk.take() {
            Some(chunk) => {
                pool.put(chunk);
                false
            }
            None => true,
        });
    }

    /// Gives everything back. What is on its way to or from the file comes back by replies.
    pub fn close(mut self, pool: &mut ChunkPool, out: &mut SpillQueue) {
        self.cut(out);
        self.forget_windows(pool);
        for chunk in self.chunks {
            pool.put(chunk);
        }
    }
}

impl InputLog {
    /// The chunk of `at`, which may be the one to come, and the place in it.
    fn position(&self, at: u64) -> (usize, usize) {
        (((at - self.resident) / CHUNK as u64) as usize, within(at))
    }

    /// Bytes of chunks and gates.
    fn kept(&self) -> usize {
        self.chunks.len() * CHUNK + self.gates.len() * GATE
    }

    /// For one more chunk, and the gate that may follow any bytes.
    fn has_room(&self) -> bool {
        self.kept() + (self.leaving + 1) * CHUNK + GATE <= self.memory
    }

    /// What every append leaves room for.
    fn has_room_for_gate(&self) -> bool {
        self.kept() + self.leaving * CHUNK + GATE <= self.memory
    }

    /// Sends the first chunk into the file, if that is possible. No more than a quarter of the memory
    /// is on its way: what a disk that hangs has, nobody else gets.
    fn spill_one(&mut self, out: &mut SpillQueue) -> bool {
        let fits = self.resident + CHUNK as u64 <= self.disk;
        let hurried = self.leaving * CHUNK >= self.memory / 4;
        if !self.whole || !fits || hurried || !out.has_room() {
            return false;
        }
        let Some(chunk) = self.chunks.pop_front() else {
            return false;
        };
        out.push(SpillRequest::Append {
            session: self.session,
            offset: self.resident,
            chunk,
        });
        self.file = true;
        self.leaving += 1;
        self.resident += CHUNK as u64;
        true
    }

    /// Gives up what is in the file, and the promise to keep everything.
    fn cut(&mut self, out: &mut SpillQueue) {
        self.whole = false;
        if core::mem::take(&mut self.file) {
            out.push(SpillRequest::Remove {
                session: self.session,
            });
        }
        self.drop_gates();
    }

    /// Gives chunks before `floor` back until no more than `mark` bytes are kept, those included that
    /// the file has not taken yet: a disk that hangs stops nobody.
    fn drop_chunks(&mut self, floor: u64, mark: usize, pool: &mut ChunkPool) {
        while self.resident < floor && self.kept() + self.leaving * CHUNK > mark {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            pool.put(chunk);
            self.resident += CHUNK as u64;
            self.drop_gates();
        }
        if !self.whole {
            self.forget_windows(pool);
        }
    }

    /// Forgets gates that no later one needs: the last at or before the start holds for it.
    fn drop_gates(&mut self) {
        let start = self.start();
        while self.gates.get(1).is_some_and(|gate| gate.offset <= start) {
            self.gates.pop_front();
        }
    }

    /// A chunk for one more window: of the pool, or the oldest one's. For `ahead`, only of a window
    /// that the replica at that offset has behind it.
    fn window_chunk(&mut self, ahead: Option<u64>, pool: &mut ChunkPool) -> Option<Chunk> {
        if !self.windows.is_full() {
            return pool.take();
        }
        let oldest = self
            .windows
            .iter()
            .position(|w| w.chunk.is_some() && ahead.is_none_or(|at| w.offset < at))?;
        self.windows.remove(oldest).chunk
    }
}

/// The offset at which the chunk of `at` begins.
const fn base(at: u64) -> u64 {
    at - at % CHUNK as u64
}

/// The place of `at` in its chunk.
const fn within(at: u64) -> usize {
    (at % CHUNK as u64) as usize
}

#[cfg(test)]
mod tests;
