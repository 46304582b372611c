//! The ways a service's packets can reach its servers, and what each asks of the lab.

use super::address::{balancer_v4, balancer_v6, host};
use super::builder::Lab;
use super::services::Version;
use anyhow::Result;
use std::fmt::Write;

/// How packets reach the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// In a tunnel of IP in IP.
    Ipip,
    /// In a tunnel of UDP (GUE, variant 1).
    Gue,
    /// With the server as their destination; servers answer by way of the balancer.
    Nat,
    /// With an address of the engine as their source, too.
    FullNat,
}

impl Forwarding {
    /// The keys of a service, as TOML.
    fn keys(self) -> &'static str {
        match self {
            Forwarding::Ipip => "mode = \"tunnel\"",
            Forwarding::Gue => "mode = \"tunnel\"\nencapsulation = \"gue\"",
            Forwarding::Nat => "mode = \"nat\"",
            Forwarding::FullNat => "mode = \"full-nat\"",
        }
    }

    /// Whether the servers have the VIP, and answer the client themselves.
    pub fn tunnels(self) -> bool {
        match self {
            Forwarding::Ipip | Forwarding::Gue => true,
            Forwarding::Nat | Forwarding::FullNat => false,
        }
    }

    /// One service: `ports` such as `80/tcp` of the VIP, brought to the servers of these indices
    /// over the VIP's own IP version. `more` is more of its keys, as TOML.
    pub fn service(
        self,
        name: &str,
        vip: Version,
        ports: &[&str],
        to: &[usize],
        more: &str,
    ) -> String {
        let vips: Vec<String> = ports
            .iter()
            .map(|port| format!("\"{}:{port}\"", host(vip.vip())))
            .collect();
        let (vips, keys) = (vips.join(", "), self.keys());
        let mut text = format!(
            "[[service]]\nname = \"{name}\"\nvips = [{vips}]\n{keys}\n{more}\nbackends = [\n"
        );
        for &index in to {
            let (address, number) = (vip.server(index), index + 1);
            let line = writeln!(
                text,
                "    {{ address = \"{address}\", name = \"s{number}\" }},"
            );
            line.expect("a String takes all that is written");
        }
        text.push_str("]\n\n");
        text
    }
}

impl Lab {
    /// [`Lab::start_lockstep`], and the servers' routes as this way of forwarding needs them.
    pub fn start_forwarding(&mut self, way: Forwarding, services: &str) -> Result<()> {
        if way == Forwarding::Nat {
            for server in &self.servers {
                let netns = server.netns();
                netns.ip(&format!("route replace default via {}", balancer_v4(0)))?;
                netns.ip(&format!("route replace default via {}", balancer_v6(0)))?;
            }
        }
        self.start_lockstep(services)
    }
}
