//! Connections with their buffers: made once, lent and given back.

use super::connection::Connection;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::slice::ChunksExactMut;

/// Connections of one kind that are not in use.
///
/// The one given back last is lent first: its buffers have been touched already. The memory of
/// buffers is never given back to the system: an engine makes its connections once.
#[derive(Debug)]
pub struct Pool {
    #[expect(
        clippy::vec_box,
        reason = "they are lent as they are, without being moved"
    )]
    free: Vec<Box<Connection>>,
    total: usize,
}

impl Pool {
    /// Makes connections whose receive buffers have so many bytes each, and their send buffers as
    /// many. The buffers are touched only where bytes arrive.
    pub fn new(connections: usize, buffer: usize) -> Self {
        let mut buffers = Buffers::new(2 * connections, buffer);
        let mut next = || buffers.next().unwrap_or(&mut []);
        let free = (0..connections).map(|_| Box::new(Connection::new(next(), next())));
        Pool {
            free: free.collect(),
            total: connections,
        }
    }

    /// Lends one, while there are some.
    pub fn take(&mut self) -> Option<Box<Connection>> {
        self.free.pop()
    }

    /// Takes one back.
    pub fn put(&mut self, connection: Box<Connection>) {
        debug_assert!(self.free.len() < self.total, "of another pool");
        self.free.push(connection);
    }

    /// Those that can be taken.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Those that are in use.
    pub fn used(&self) -> usize {
        self.total - self.free.len()
    }
}

/// Memory is asked for in pieces of this size. Zeroed ones come from the system untouched; twice as
/// large ones would be put on huge pages, and so be touched from the start.
const SLAB: usize = 1 << 20;

/// Buffers of one size.
struct Buffers {
    left: usize,
    size: usize,
    slab: ChunksExactMut<'static, u8>,
}

impl Buffers {
    fn new(count: usize, size: usize) -> Self {
        Buffers {
            left: count,
            size: size.max(1),
            slab: <&mut [u8]>::default().chunks_exact_mut(1),
        }
    }
}

impl Iterator for Buffers {
    type Item = &'static mut [u8];

    fn next(&mut self) -> Option<&'static mut [u8]> {
        self.left = self.left.checked_sub(1)?;
        if self.slab.len() == 0 {
            let count = (SLAB / self.size).clamp(1, self.left + 1);
            let slab: &'static mut [u8] = Box::leak(vec![0; count * self.size].into_boxed_slice());
            self.slab = slab.chunks_exact_mut(self.size);
        }
        self.slab.next()
    }
}
