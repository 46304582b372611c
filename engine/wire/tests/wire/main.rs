//! The crate from outside: rows of packets in and out, read back by independent parsers.

mod gue;
mod icmp;
mod invariants;
mod mutation;
mod packet;
mod parse;
mod properties;
mod push;
