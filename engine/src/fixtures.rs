//! The packet memory of tests that bind no socket to it.

use lockstep_xsk::{FramePool, RingSize, Umem, UmemConfig};

pub const FRAMES: u32 = 1_024;

/// So many frames, which are in the pool.
pub fn memory() -> (Umem, FramePool) {
    let ring = RingSize::new(64).unwrap();
    Umem::new(&UmemConfig {
        frames: FRAMES,
        huge_pages: false,
        fill_ring: ring,
        completion_ring: ring,
        ..UmemConfig::default()
    })
    .unwrap()
}
