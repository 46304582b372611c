//! The sans-IO dataplane: what happens to a packet, and nothing else.
//!
//! This crate performs no I/O, reads no clock and draws no random numbers: frames, the time and
//! seeds are arguments. A worker calls [`Dataplane::process`] with a burst of frames; the agent
//! compiles a [`plan::Snapshot`](lockstep_plan::Snapshot) into [`Tables`] and hands them over.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod counters;
pub mod dataplane;
pub mod explain;
pub mod flows;
pub mod guard;
pub mod handshake;
pub mod histogram;
pub mod maglev;
pub mod replicate;
pub mod schedule;
pub mod tables;
mod time;
mod tracking;

#[cfg(test)]
mod fixtures;

pub use counters::Counters;
pub use dataplane::{Dataplane, DataplaneConfig, Spread, SpreadBy, Verdict};
pub use tables::{EngineAddresses, NextHop, PortId, Route, Tables};
pub use time::{Micros, Seconds};
pub use tracking::FlowState;

/// Frames that are processed together: enough to overlap the memory accesses of their flow
/// lookups, few enough to stay in the first-level cache.
pub const BURST: usize = 64;
