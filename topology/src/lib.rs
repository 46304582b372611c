//! `topology.toml`: which queue is polled on which core of this host.

#![forbid(unsafe_code)]

pub mod diagnostics;
pub mod duration;
