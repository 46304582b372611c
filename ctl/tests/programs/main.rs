//! The daemon and the command line as programs, with an engine in the test's own process, and with
//! the programs of others that they talk to.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

mod bgp_gobgp;
mod bgp_hostile;
mod bgp_restart;
mod bgp_routers;
mod capture;
mod checks;
mod cli;
mod daemon;
mod deploy;
mod doctor;
mod group;
mod health;
mod kubernetes;
mod kubernetes_check;
mod metrics;
mod privileges;
mod random;
mod sessions;
mod spread;
mod top;
