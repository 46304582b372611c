//! The memory of input logs: chunks of one size, all taken at the start.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Bytes in a chunk. A page, so that spilled ones are written and read whole.
pub const CHUNK: usize = 4096;

/// Memory for a part of a log. It belongs to one pool, log or request at a time: it is moved, never
/// copied, and has to come back to its pool.
pub struct Chunk {
    bytes: Box<[u8; CHUNK]>,
}

impl Chunk {
    fn new() -> Self {
        Self {
            bytes: Box::new([0; CHUNK]),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; CHUNK] {
        &self.bytes
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8; CHUNK] {
        &mut self.bytes
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunk")
    }
}

/// The chunks of one worker. All logs of its sessions live off them, so that their memory is capped
/// whatever the sessions do.
#[derive(Debug)]
pub struct ChunkPool {
    free: Vec<Chunk>,
    total: usize,
}

impl ChunkPool {
    /// Takes as many chunks as there are in `bytes`.
    pub fn new(bytes: usize) -> Self {
        let total = bytes / CHUNK;
        Self {
            free: (0..total).map(|_| Chunk::new()).collect(),
            total,
        }
    }

    /// A chunk with any content, while there are some.
    pub fn take(&mut self) -> Option<Chunk> {
        self.free.pop()
    }

    /// Takes a chunk back.
    pub fn put(&mut self, chunk: Chunk) {
        debug_assert!(self.free.len() < self.total, "a chunk of another pool");
        self.free.push(chunk);
    }

    /// Chunks that can be taken.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Chunks there are in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Whether so few are left that what is only kept for replicas to come has to go: the last
    /// quarter is for input that replicas in sync still need.
    pub fn is_low(&self) -> bool {
        self.free.len() < self.total.div_ceil(4)
    }
}
