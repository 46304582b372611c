//! The skeletons that libbpf-cargo generates from the C programs.
//!
//! The only unsafe code of this crate, and none of it ours: the generated modules call libbpf.

#![allow(
    unsafe_code,
    dead_code,
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used
)]

pub(crate) mod steer {
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}

pub(crate) mod forward {
    include!(concat!(env!("OUT_DIR"), "/forward.skel.rs"));
}

pub(crate) mod traffic {
    include!(concat!(env!("OUT_DIR"), "/traffic.skel.rs"));
}

pub(crate) mod offer {
    include!(concat!(env!("OUT_DIR"), "/offer.skel.rs"));
}

pub(crate) mod decap {
    include!(concat!(env!("OUT_DIR"), "/decap.skel.rs"));
}

pub(crate) mod arrivals {
    include!(concat!(env!("OUT_DIR"), "/arrivals.skel.rs"));
}
