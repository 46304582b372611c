//! TCP connections in userspace: one smoltcp interface and socket each, and what has to stand
//! around them in the open Internet: a gate for SYNs, TIME-WAIT, timers, local ports.

pub mod connection;
mod device;
pub mod pool;
pub mod ports;
pub mod time_wait;
pub mod wheel;

pub use crate::handshake::{cookie, segment};
pub use connection::{Connection, Options, Role};
pub use device::{Scratch, Transmit, Way};

#[cfg(test)]
pub(crate) mod peer;
