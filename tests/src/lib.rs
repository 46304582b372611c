//! End-to-end tests: the [`lab`] of network namespaces that scenarios and the demo run in.
//!
//! The programs in the lab are the real ones: the engine, the daemon and the command line as built,
//! nginx, wrk, curl and iperf3, over real veth links of the kernel.

#![forbid(unsafe_code)]

pub mod lab;
