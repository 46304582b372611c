//! End-to-end tests: the [`lab`] of network namespaces that scenarios and the demo run in.
//!
//! The programs in the lab are the real ones: the engine, the daemon and the command line as built,
//! nginx, wrk, curl, iperf3, redis-server and PostgreSQL, over real veth links of the kernel. What no
//! decent server does is done by `lockstep-test-server`.

#![forbid(unsafe_code)]

pub mod lab;
pub mod pattern;
