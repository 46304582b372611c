//! What `lockstepd` and `lockstep` are made of: the daemon, the commands, and the gRPC they talk.

#![forbid(unsafe_code)]

pub mod cli;
pub mod convert;
pub mod daemon;
pub mod transport;
