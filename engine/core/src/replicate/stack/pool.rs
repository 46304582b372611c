//! Connections with their buffers: made once, lent and given back.

use super::connection::Connection;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of memory that buffers are cut from. Zeroed blocks of that size come from the system
/// untouched; on huge pages, which an allocator may choose for larger ones, every byte that is
/// used would cost megabytes.
const SLAB: usize = 1 << 20;

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
        let per_slab = (SLAB / buffer.max(1)).max(1);
        let slabs = (2 * connections).div_ceil(per_slab);
        let mut buffers = (0..slabs).flat_map(|_| {
            let slab: &'static mut [u8] = Box::leak(vec![0; per_slab * buffer].into_boxed_slice());
            slab.chunks_exact_mut(buffer.max(1))
        });
        let mut buffer = || buffers.next().unwrap_or(&mut []);
        let free = (0..connections).map(|_| Box::new(Connection::new(buffer(), buffer())));
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
