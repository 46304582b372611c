//! AF_XDP: UMEM, move-only frames, typed rings and sockets.
//!
//! One worker is one pinned thread with one [`Umem`]. All of its [`Port`]s (an interface and one
//! of its queues) share that UMEM, so that a frame which came in on one interface goes out on
//! another without a copy. Each port has its own four rings:
//!
//! ```text
//!                   refill              receive
//!        FramePool ────────▶ fill ring ─ kernel ─▶ RX ring ────────▶ Burst ─▶ Frame
//!            ▲                                                                 │
//!            └──── reap ── completion ring ◀─ kernel ─ TX ring ◀── flush ◀─ send
//! ```
//!
//! A [`Frame`] owns one chunk of the UMEM and can only be moved: [`Port::send`] and
//! [`FramePool::put`] consume it, so that a frame the kernel has cannot be touched. A frame that
//! is dropped instead is not lost: its chunk finds its way back to the pool (see [`Frame`]).
//!
//! Between workers, frames go by an [`Exchange`]: to whoever is to process them, and back to the one
//! whose UMEM they are of.
//!
//! A worker's loop, for one port:
//!
//! ```no_run
//! # use lockstep_xsk::*;
//! # fn main() -> Result<(), XskError> {
//! let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
//! let mut port = Port::bind(&umem, &mut pool, "eth0", 0, &PortOptions::default())?;
//! let mut burst = Burst::new(&umem);
//! # let stop = || true;
//! while !stop() {
//!     port.receive(&mut burst);
//!     for bytes in burst.iter_mut() {
//!         // Decide on `bytes`, rewrite them in place.
//!         # let _ = bytes;
//!     }
//!     for frame in burst.drain() {
//!         if let Err(frame) = port.send(frame) {
//!             pool.put(frame); // The TX ring is full: count a drop.
//!         }
//!     }
//!     port.flush()?;
//!     port.reap(&mut pool);
//!     port.refill(&mut pool);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! This crate loads no XDP program. Whoever does puts [`Port::fd`] in its `XSKMAP`, and tells
//! [`PortOptions::program_native`] how the program is attached.
//!
//! It is also the only crate with `unsafe`, so the allocator that puts large tables on huge pages
//! ([`HugePages`]) is here too.

#![allow(unsafe_code)]

mod burst;
mod error;
mod exchange;
mod frame;
mod huge_pages;
mod memlock;
mod mode;
mod pool;
mod port;
mod region;
mod socket;
mod umem;
mod wait;
mod waker;

pub use burst::{BURST, Burst, Drain};
pub use error::XskError;
pub use exchange::Exchange;
pub use frame::{Frame, TooLong};
pub use huge_pages::HugePages;
pub use memlock::raise_memlock;
pub use mode::{BindMode, Mode};
pub use pool::FramePool;
pub use port::{Port, PortCounters, PortOptions, Statistics, statistics_of};
pub use umem::{FrameSize, RingSize, Umem, UmemConfig};
pub use wait::{MAX_WAIT_PORTS, wait};
pub use waker::Waker;
