//! The packet engine as a library, for its binary and its tests.
//!
//! Workers ([`worker`]) are pinned threads that carry packets; the [`agent`] is a tokio thread
//! beside them that talks to the kernel and to the daemon.

#![forbid(unsafe_code)]

pub mod agent;
pub mod capture;
pub mod handover;
pub mod mailbox;
pub mod spill;
pub mod worker;
pub mod workers;

#[cfg(test)]
mod fixtures;
