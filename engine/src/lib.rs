//! The packet engine's own library: what its binary is made of, so that tests can reach it.

#![forbid(unsafe_code)]

pub mod agent;
