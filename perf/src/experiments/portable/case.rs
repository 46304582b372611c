//! The cases: what balances.

use super::BALANCER;
use super::farm::PORT;
use crate::site::{Site, nginx_stream, start_nginx, upstream};
use anyhow::Result;
use lockstep_tests::lab::{Forwarding, Lab, Process, VIP_V4, Version, server_v4};
use std::net::SocketAddr;

/// What balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// The engine, answers by way of it: what the seed calls IPVS.
    Nat,
    /// The engine, servers answering the client themselves: the seed's IPVS-TUN, or L3DSR.
    Tunnel,
    /// The same, its worker sleeping whenever there is nothing: what it does not spend on polling.
    TunnelInterrupt,
    /// The tunnels of the engine's XDP program alone, the engine killed.
    Fallback,
    /// nftables, for the seed's iptables DNAT.
    Nftables,
    /// nginx, which reads HTTP: the seed's.
    NginxHttp,
    /// nginx, which passes streams on.
    NginxStream,
}

impl Case {
    /// Its name in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Case::Nat => "Lockstep, NAT",
            Case::Tunnel => "Lockstep, tunnel",
            Case::TunnelInterrupt => "Lockstep, tunnel, not polling",
            Case::Fallback => "Lockstep, tunnel by XDP alone",
            Case::Nftables => "nftables DNAT",
            Case::NginxHttp => "nginx, HTTP",
            Case::NginxStream => "nginx, stream",
        }
    }

    /// Whether it has an engine.
    pub const fn is_lockstep(self) -> bool {
        match self {
            Case::Nat | Case::Tunnel | Case::TunnelInterrupt | Case::Fallback => true,
            Case::Nftables | Case::NginxHttp | Case::NginxStream => false,
        }
    }

    /// How the engine's worker waits for packets.
    pub const fn poll(self) -> &'static str {
        match self {
            Case::TunnelInterrupt => "interrupt",
            _ => "adaptive",
        }
    }

    /// The services of an engine, on so many servers.
    pub fn services(self, servers: usize) -> String {
        let way = match self {
            Case::Nat => Forwarding::Nat,
            _ => Forwarding::Ipip,
        };
        services(way, servers)
    }

    /// nginx on the balancer, for the cases that are nginx.
    pub fn nginx(self, lab: &Lab, servers: usize) -> Result<Process> {
        let site = Site {
            netns: lab.balancers[0].netns(),
            directory: lab.run().dir(),
        };
        let at = SocketAddr::from((VIP_V4, PORT));
        let servers: Vec<SocketAddr> = (0..servers)
            .map(|index| (server_v4(index), PORT).into())
            .collect();
        match self {
            Case::NginxHttp => nginx_http(site, BALANCER, at, &servers),
            _ => nginx_stream(site, BALANCER, at, false, &servers),
        }
    }
}

/// nginx as it reads requests, with connections to servers that stay for 100 of them: the seed's.
fn nginx_http(
    site: Site<'_>,
    cpu: usize,
    at: SocketAddr,
    servers: &[SocketAddr],
) -> Result<Process> {
    let dir = site.directory.display();
    let upstream = upstream(servers);
    let body = format!(
        "http {{\n  access_log off;\n  client_body_temp_path {dir}/lb-body;\n  \
         proxy_temp_path {dir}/lb-proxy;\n  fastcgi_temp_path {dir}/lb-fastcgi;\n  \
         uwsgi_temp_path {dir}/lb-uwsgi;\n  scgi_temp_path {dir}/lb-scgi;\n  \
         upstream servers {{{upstream} keepalive 1000; }}\n  keepalive_requests 100;\n  \
         server {{ listen {at} backlog=4096; location / {{ proxy_pass http://servers; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n}}\n"
    );
    start_nginx(site, cpu, "http", &body, (at, false))
}

/// The service on the first so many servers, forwarded in some way.
pub fn services(way: Forwarding, servers: usize) -> String {
    let to: Vec<usize> = (0..servers).collect();
    way.service("web", Version::V4, &[&format!("{PORT}/tcp")], &to, "")
}
