//! Seed 003 (Takahashi, A Study on Portable Load Balancer for Container Clusters): its figures.
//!
//! The lab is the seed's figures 4.1, 4.8 and 4.12: a client with wrk, a router, balancers and
//! web servers, each in a namespace. Servers answer a limited number of requests a second, as one of
//! the seed's nginx pods did, so that throughput grows with their number until something else is the
//! limit: the link, made as slow as it has to be for that, or a CPU.
//!
//! Numbers of theirs are those of the seed's text and tables; its figures are pictures of which the text
//! has no numbers.

mod balanced;
mod case;
mod delay;
mod ecmp;
mod farm;
mod latency;
mod paced;
mod queues;
mod sweep;
mod throughput;
mod varying;

use super::Experiment;

/// In their order.
pub const ALL: &[Experiment] = &[
    Experiment {
        id: "003-4.2",
        about: "throughput by servers under the four (RSS, RPS) settings; nftables too (4.3)",
        run: queues::run,
    },
    Experiment {
        id: "003-4.6",
        about: "throughput by servers beside nftables and nginx",
        run: throughput::beside_nginx,
    },
    Experiment {
        id: "003-4.7",
        about: "latency at two constant loads beside nftables",
        run: latency::run,
    },
    Experiment {
        id: "003-4.9",
        about: "tunnel against NAT on a slow link",
        run: throughput::tunnel_against_nat,
    },
    Experiment {
        id: "003-4.13",
        about: "throughput of one to four balancers behind equal-cost routes",
        run: ecmp::run,
    },
    Experiment {
        id: "003-4.14",
        about: "throughput while the number of balancers changes",
        run: varying::run,
    },
    Experiment {
        id: "003-4.15",
        about: "how long the router's route takes to follow balancers",
        run: delay::run,
    },
    Experiment {
        id: "003-5.2",
        about: "throughput and CPU by servers without a limit of the link (5.3 to 5.5)",
        run: throughput::without_limit,
    },
    Experiment {
        id: "003-5.7",
        about: "throughput and CPU of one core: the engine, its XDP program alone, nftables (5.8)",
        run: throughput::one_core,
    },
];

/// Where the numbers of theirs stand.
const SEED: &str = "seed 003 (Takahashi, A Study on Portable Load Balancer for Container Clusters)";
/// Of client, router and servers.
const ENDPOINTS: usize = 0;
/// Of balancers.
const BALANCER: usize = 1;

#[cfg(test)]
mod tests;
