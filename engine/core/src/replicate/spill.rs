//! How a log's older parts get into a file and back, without I/O here.
//!
//! A log puts requests into its worker's [`SpillQueue`]; the engine moves them to a thread that owns
//! the files, and brings its replies back to [`InputLog::spilled`](super::log::InputLog::spilled).
//! Requests of one session are carried out in their order. Every request that carries a chunk gets
//! one reply, which carries it back.

use super::chunks::Chunk;
use super::event::SessionId;
use alloc::collections::VecDeque;

/// What is asked of the thread that owns the files.
#[derive(Debug)]
pub enum SpillRequest {
    /// To write a chunk at this offset of the session's file, which is where the file ends (0 for
    /// one that is to be made). It is whole.
    Append {
        /// Whose file.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// What.
        chunk: Chunk,
    },
    /// To fill a chunk from this offset of the session's file.
    Read {
        /// Whose file.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// Where to; its content means nothing.
        chunk: Chunk,
    },
    /// To remove the session's file. It has no reply, and nothing of the session follows it.
    Remove {
        /// Whose file.
        session: SessionId,
    },
}

/// What became of a request.
#[derive(Debug)]
pub enum SpillReply {
    /// It was written.
    Appended {
        /// Whose it is.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// Given back.
        chunk: Chunk,
    },
    /// It was read.
    Filled {
        /// Whose it is.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// With the bytes that were asked for.
        chunk: Chunk,
    },
    /// It was not written, and the file is of no use any more.
    NotAppended {
        /// Whose it is.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// Given back.
        chunk: Chunk,
    },
    /// It cannot be read.
    NotFilled {
        /// Whose it is.
        session: SessionId,
        /// Where in the log.
        offset: u64,
        /// Given back.
        chunk: Chunk,
    },
}

impl SpillReply {
    /// Whose log it is for.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Appended { session, .. }
            | Self::Filled { session, .. }
            | Self::NotAppended { session, .. }
            | Self::NotFilled { session, .. } => *session,
        }
    }

    /// The chunk alone, for the pool, when the session has ended meanwhile.
    pub fn into_chunk(self) -> Chunk {
        match self {
            Self::Appended { chunk, .. }
            | Self::Filled { chunk, .. }
            | Self::NotAppended { chunk, .. }
            | Self::NotFilled { chunk, .. } => chunk,
        }
    }
}

/// The requests of a worker that the thread has not been given yet. Until somebody has looked for
/// some, it has no room: an engine without a place for files spills nothing.
#[derive(Debug)]
pub struct SpillQueue {
    requests: VecDeque<SpillRequest>,
    capacity: usize,
    served: bool,
}

impl SpillQueue {
    /// A queue for that many chunks. With room for none, nothing is ever spilled.
    pub fn new(capacity: usize) -> Self {
        Self {
            requests: VecDeque::with_capacity(capacity),
            capacity,
            served: false,
        }
    }

    /// Whether it takes one more chunk.
    pub fn has_room(&self) -> bool {
        self.served && self.requests.len() < self.capacity
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The next one for the thread.
    pub fn pop(&mut self) -> Option<SpillRequest> {
        self.served = true;
        self.requests.pop_front()
    }

    /// Puts back what [`SpillQueue::pop`] gave and the thread had no room for.
    pub fn unpop(&mut self, request: SpillRequest) {
        self.requests.push_front(request);
    }

    /// Only with room. The removal of a file always has room: there is one for each session that
    /// has a file, and without it the file would stay.
    pub(super) fn push(&mut self, request: SpillRequest) {
        debug_assert!(self.has_room() || matches!(request, SpillRequest::Remove { .. }));
        self.requests.push_back(request);
    }
}
