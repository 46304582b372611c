//! Seed 002 (Farnham, Supporting Disconnected Operation of Stateful Services Using an Envoy Enabled
//! Dynamic Microservices Approach): mirrored requests, failover, resynchronisation.
//!
//! A request has 7 KiB and its answer 35 KiB, as in theirs. Each answer depends on all requests before
//! it on its connection, and the client checks every byte: a replica that missed one would be found.

mod failover;
mod requests;
mod resync;
mod throughput;

use super::Experiment;

/// In their order.
pub const ALL: &[Experiment] = &[
    Experiment {
        id: "002-7",
        about: "requests with and without a mirror: throughput and latency",
        run: throughput::run,
    },
    Experiment {
        id: "002-failover",
        about: "time without a byte when the primary is killed, frozen or cut off",
        run: failover::run,
    },
    Experiment {
        id: "002-resync",
        about: "a replica that was cut off, or restarted, is in sync again",
        run: resync::run,
    },
];

/// As the report calls it.
const SEED: &str = "seed 002 (Farnham, Supporting Disconnected Operation of Stateful Services)";

/// What is not as it was there, in every figure.
const LAB: &str = "Theirs mirrors HTTP requests between clusters at AWS and at the edge, through API \
                   gateways that authorise each of them; ours replicates connections with requests of \
                   the same sizes in network namespaces of one machine with 2 CPUs.";
