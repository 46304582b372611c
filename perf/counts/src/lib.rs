//! The dataplane's paths and a replicated session in memory, where they can be timed and their
//! instructions counted; and the gate, which lets none of the counts grow unnoticed.
//!
//! It depends on the dataplane and on little else, so that a clean checkout has it in less than a minute.

#![forbid(unsafe_code)]

pub mod callgrind;
pub mod frames;
pub mod gate;
pub mod packets;
pub mod session;
