//! The dataplane as a whole, in memory: packets in, packets out.

#![allow(clippy::unwrap_used, reason = "a test")]

mod packets;
mod two_balancers;
