//! Scenarios in the lab: real programs in network namespaces, one scenario at a time.

#![allow(clippy::unwrap_used, reason = "a test")]

mod back;
mod capture;
mod capture_icmp;
mod change;
mod compare;
mod consistency;
mod doctor;
mod errors;
mod faults;
mod flood;
mod hostile;
mod http;
mod icmp;
mod icmp_nat;
mod kubernetes;
mod lab;
mod lab_programs;
mod layer2;
mod modes;
mod network;
mod package;
mod quick_start;
mod refused;
mod restart;
mod routing;
mod sessions;
mod sessions_changes;
mod sessions_clients;
mod sessions_databases;
mod sessions_download;
mod sessions_health;
mod sessions_iperf;
mod sessions_limits;
mod sessions_many;
mod sessions_replicas;
mod sessions_servers;
mod sockets;
mod spread;
mod traffic;
mod transactions;
mod udp;
mod workers;
