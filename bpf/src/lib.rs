//! The XDP programs, their skeletons and the map ABI.
//!
//! - [`Steer`] is the balancer's program on an interface: it redirects what is for one of our
//!   [`Destination`]s into the AF_XDP socket of its queue, with [`Room`] in front for a tunnel
//!   header. While no live agent beats, or no socket is there, it carries packets of tunnels by
//!   itself, as its [`Carrier`] was told. Everything else goes to the kernel as it came.
//! - [`Decap`] is what a real server needs where its kernel has no tunnel driver.
//! - [`Forward`] passes packets on and does nothing else: what any program can do at most.
//! - [`OfferProgram`] makes packets and sends them at a rate, as a driver receives them.
//! - [`Arrivals`] counts and drops them at the end of a path.
//! - [`Traffic`] takes packets for the load generator, its sink and its responder.
//! - [`SteerProgram`], [`DecapProgram`] and [`TrafficProgram`] are the same programs without an interface, to run
//!   single frames through.
//!
//! Programs are attached by netlink and not by a `bpf_link`: libbpf-rs has no safe way to make a
//! link in generic mode, and an attachment by netlink stays when its process is killed or its BPF
//! file system goes away with a mount namespace. Ours are known by their names, so a successor
//! finds and replaces them in one step.
//!
//! Loading a program redirects libbpf's messages, for the whole process, from standard error into
//! the errors of this crate.

mod abi;
mod arrivals;
mod carry;
mod decap;
mod error;
mod forward;
mod interface;
mod log;
mod mirror;
mod offer;
mod owner;
mod pins;
mod program;
mod ranges;
mod skeleton;
mod steer;
mod traffic;

pub use abi::{
    BACKENDS, DESTINATIONS, DecapCounters, Destination, LOCALS, PINNED, QUEUES, RANGES, Room,
    SERVICES, SOURCES, STEER_ETHERTYPE, ServiceNumber, SteerCounters, Steered, TrafficCounters,
};
pub use arrivals::{Arrivals, Arriving};
pub use carry::{CARRY_MEMORY, CarriedFlow, CarriedService, Carrier, Numbers, Tunnel, Way};
pub use decap::{DECAP_ADDRESSES, Decap, DecapProgram};
pub use error::BpfError;
pub use forward::{Forward, ForwardProgram, Onward};
pub use interface::{AttachMode, ModeChoice};
pub use offer::{OFFER_BATCH, Offer, OfferProgram, Offered};
pub use program::{Action, TestRun};
pub use steer::{DEFAULT_PIN_DIR, Seeds, Steer, SteerOptions, SteerProgram};
pub use traffic::{
    TRAFFIC_ADDRESSES, TRAFFIC_QUEUES, TRAFFIC_RANGES, Traffic, TrafficProgram, Wanted,
};
