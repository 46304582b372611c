//! The whole replicator against smoltcp hosts on a simulated network, without a clock.

mod flood;
mod limits;
mod sessions;
mod world;
