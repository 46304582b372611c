//! The control plane without its I/O: the text of `services.toml` to services, drains laid over
//! them, and what an engine is to be told. No clock, no files, no sockets: text and time are
//! arguments.

#![forbid(unsafe_code)]

pub mod across;
pub mod announce;
pub mod bfd;
pub mod bgp;
pub mod checks;
pub mod config;
pub mod diff;
pub mod drains;
pub mod group;
pub mod health;
pub mod kubernetes;
pub mod layer2;
pub mod policy;
pub mod random;
pub mod reconcile;
pub mod services;
pub mod spread;

#[cfg(test)]
mod testing;
