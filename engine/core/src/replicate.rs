//! Replicated TCP sessions: one client, N replicas of a deterministic server, no interruption.
//!
//! ```text
//!             client                                   replicas
//!   frames ──▶ Connection ──▶ Session ── input log ──▶ Connection ──▶ frames
//!          ◀── (smoltcp)  ◀──         ◀── comparison ◀─ (smoltcp)  ◀──
//! ```
//!
//! [`session::Session`] is the machine: which replica gets what, whose bytes the client gets, who is
//! in sync. It sees connections as [`leg::Leg`]s: bytes in and out under TCP's own flow control. It is
//! driven by level, not by edge: [`session::Session::drive`] brings a session as far as its legs let
//! it, and may be called at any time. Nothing here performs I/O; time and seeds are arguments.

pub mod chain;
pub mod chunks;
pub mod counters;
pub mod event;
pub mod group;
pub mod leg;
pub mod log;
pub mod mask;
pub mod replicator;
pub mod session;
pub mod spill;
pub mod stack;
