//! The agent: everything of the engine that may block, on its own thread.

pub mod convert;
pub mod nexthop;
