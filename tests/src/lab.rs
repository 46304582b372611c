//! The lab: a client, a router, balancers and real servers, each in a network namespace of its own.
//!
//! ```text
//!                                   rack: 10.0.1.0/24, 2001:db8:1::/64, MTU 1600
//!  client ──────────── router ───┬──────┬──────┬──────┬──────┐
//!  198.51.100.2        .1        │      │      │      │      │
//!  2001:db8:100::2     ::1       b0     b1     s1     s2     s3
//!                                .2     .3     .11    .12    .13
//! ```
//!
//! The router sends what is for the VIPs to the balancers (equal-cost multipath when there are
//! several). The servers have the VIPs on their loopback device and answer by the router, so that
//! answers never meet a balancer. The rack's MTU leaves room for the outer header on a full packet.
//!
//! Everything is taken down on drop, also after a panic; a run that was killed is taken down by
//! the next one.

mod address;
mod balancer;
mod binaries;

mod builder;
mod captures;
mod client;
mod content;
mod counters;
mod curl;
mod datagrams;
mod dice;
mod download;
mod fault;
mod forwarding;
mod injector;
pub mod interrupted;
mod iperf;
mod keepalive;
pub mod kubernetes;
mod links;
mod mounts;
mod netns;
mod postgres;
mod process;
mod redis;
mod replicated;
mod router;
mod routing;
mod run;
mod scenario;
mod server;
mod services;
mod sessions;
mod status;
mod stream;
mod test_server;
mod wait;
mod wire;
mod wrk;

pub use address::{CLIENT_V4, CLIENT_V6, VIP_V4, VIP_V6, balancer_v4, balancer_v6, router_rack_v4};
pub use address::{engine_v4, engine_v6, router_rack_v6, server_v4, server_v6};
pub use balancer::{Balancer, Spread};
pub use binaries::find as find_binary;

pub use builder::{Lab, LabBuilder};
pub use captures::{Capture, Captured};
pub use client::Client;
pub use content::Content;
pub use counters::Counters;
pub use curl::Answer;
pub use datagrams::{Datagrams, Heard, while_echoing};
pub use dice::Dice;
pub use download::Arrived;
pub use fault::Fault;
pub use forwarding::Forwarding;
pub use injector::Injector;
pub use iperf::{Direction, IperfServer, IperfTcp, UdpReport};
pub use keepalive::KeepAlive;
pub use kubernetes::KubeApi;
pub use links::{End, connect};
pub use mounts::{Bpffs, Tmpfs};
pub use netns::Netns;
pub use postgres::{Cluster, Psql};
pub use process::Process;
pub use redis::RedisClient;
pub use replicated::{DATE_MASK, Replicated};
pub use router::Router;
pub use routing::{Program, Routing, Way};
pub use run::{Run, leftovers};
pub use scenario::{print_logs, scenario};
pub use server::Server;
pub use services::{Version, service, web};
pub use sessions::{Event, Replica, Session, server_index};
pub use status::Status;
pub use stream::Stream;
pub use test_server::{Behaviour, TestServer};
pub use wait::wait_until;
pub use wire::{Fate, Wire};
pub use wrk::{RunningWrk, Wrk, WrkReport};
