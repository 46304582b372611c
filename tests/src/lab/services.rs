//! The text of `services.toml` files.

use super::address::{CLIENT_V4, CLIENT_V6, VIP_V4, VIP_V6, host, server_v4, server_v6};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// An IP version: of a VIP, or of the tunnel behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The lab's VIP of this version.
    pub fn vip(self) -> IpAddr {
        match self {
            Version::V4 => VIP_V4.into(),
            Version::V6 => VIP_V6.into(),
        }
    }

    /// The client's address.
    pub fn client(self) -> IpAddr {
        match self {
            Version::V4 => CLIENT_V4.into(),
            Version::V6 => CLIENT_V6.into(),
        }
    }

    /// The address of server `index`.
    pub fn server(self, index: usize) -> IpAddr {
        match self {
            Version::V4 => server_v4(index).into(),
            Version::V6 => server_v6(index).into(),
        }
    }

    /// The lab's web service.
    pub fn web(self) -> SocketAddr {
        SocketAddr::new(self.vip(), 80)
    }

    /// The URL of the lab's web service.
    pub fn url(self) -> String {
        format!("http://{}/", host(self.vip()))
    }
}

/// One service: `ports` such as `80/tcp` of the VIP, tunnelled to the servers of these indices by
/// the given IP version.
pub fn service(name: &str, vip: Version, ports: &[&str], tunnel: Version, to: &[usize]) -> String {
    let vips: Vec<String> = ports
        .iter()
        .map(|port| format!("\"{}:{port}\"", host(vip.vip())))
        .collect();
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nvips = [{}]\n",
        vips.join(", ")
    );
    text.push_str("backends = [\n");
    for &index in to {
        let line = writeln!(
            text,
            "    {{ address = \"{}\", name = \"s{}\" }},",
            tunnel.server(index),
            index + 1
        );
        line.expect("a String takes all that is written");
    }
    text.push_str("]\n\n");
    text
}

/// The web service: port 80 of both VIPs, each tunnelled by its own IP version.
pub fn web(servers: &[usize]) -> String {
    let on = |name, version| service(name, version, &["80/tcp"], version, servers);
    on("web", Version::V4) + &on("web-v6", Version::V6)
}
