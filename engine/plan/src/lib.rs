//! What an engine is told: services, virtual IPs, backends, and the snapshot that holds them.
//!
//! The control daemon makes a [`Snapshot`], the engine's workers follow it. Every type here is
//! valid by construction: a value that exists can be forwarded on. No I/O, no clock.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod backend;
mod drop;
pub mod guard;
pub mod health;
pub mod mask;
mod replicate;
mod service;
mod snapshot;
mod vip;

pub use backend::{Backend, BackendId, BackendState, Weight};
pub use drop::{DropReason, ParseDropReasonError};
pub use guard::{Guard, ParsePrefixError, Prefix, SourceRate};
pub use health::Health;
pub use replicate::{Commit, Divergence, Grouping, Replicate};
pub use service::{
    Encapsulation, IdleTimeouts, Mode, Scheduler, Service, ServiceName, TableSize, Unserved,
};
pub use snapshot::{Limits, PlanError, Snapshot, too_few_backends};
pub use vip::{ParseVipError, Protocol, Vip};
