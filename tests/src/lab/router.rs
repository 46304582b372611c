//! The router: a kernel that forwards between the client and the rack, with the rack's switch in it.

use super::address::{
    ROUTER_CLIENT_V4, ROUTER_CLIENT_V6, VIP_V4, VIP_V6, balancer_v4, balancer_v6, router_rack_v4,
    router_rack_v6,
};
use super::binaries;
use super::counters::Counters;
use super::injector::Injector;
use super::netns::Netns;
use super::process::output;
use super::run::Run;
use anyhow::Result;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) const CLIENT_DEVICE: &str = "client";
pub(super) const RACK_DEVICE: &str = "rack";

/// The machine between the client and the rack.
#[derive(Debug)]
pub struct Router {
    netns: Netns,
}

impl Router {
    pub(super) fn new(run: &Arc<Run>, mtu: u16) -> Result<Self> {
        let netns = Netns::new(run, "router")?;
        netns.sysctl(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.fib_multipath_hash_policy", "1"),
            ("net.ipv6.fib_multipath_hash_policy", "1"),
        ])?;
        netns.ip("link add rack type bridge stp_state 0 mcast_snooping 0")?;
        netns.ip(&format!("link set dev {RACK_DEVICE} mtu {mtu} up"))?;
        netns.ip(&format!(
            "addr add {}/24 dev {RACK_DEVICE}",
            router_rack_v4()
        ))?;
        netns.ip(&format!(
            "addr add {}/64 dev {RACK_DEVICE} nodad",
            router_rack_v6()
        ))?;
        Ok(Router { netns })
    }

    /// Addresses on the client's side, once the link is there.
    pub(super) fn configure(&self) -> Result<()> {
        self.netns.ip(&format!(
            "addr add {ROUTER_CLIENT_V4}/24 dev {CLIENT_DEVICE}"
        ))?;
        self.netns.ip(&format!(
            "addr add {ROUTER_CLIENT_V6}/64 dev {CLIENT_DEVICE} nodad"
        ))
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The link-layer address that the client sends to.
    pub fn client_mac(&self) -> Result<[u8; 6]> {
        self.netns.mac(CLIENT_DEVICE)
    }

    /// Puts a device of the router on the rack's switch.
    pub(super) fn plug(&self, port: &str) -> Result<()> {
        self.netns
            .ip(&format!("link set dev {port} master {RACK_DEVICE}"))
    }

    /// Sends what is for the VIPs to these balancers, as a routing protocol would: to one, or
    /// hashed by 5-tuple over several.
    pub fn route_vips_to(&self, balancers: &[usize]) -> Result<()> {
        let hops = |address: &dyn Fn(usize) -> String| -> String {
            let hop = |&index: &usize| format!("nexthop via {} ", address(index));
            balancers.iter().map(hop).collect()
        };
        let v4 = hops(&|index| balancer_v4(index).to_string());
        let v6 = hops(&|index| balancer_v6(index).to_string());
        self.netns.ip(&format!("route replace {VIP_V4}/32 {v4}"))?;
        self.netns.ip(&format!("route replace {VIP_V6}/128 {v6}"))
    }

    /// Takes the VIPs for addresses in the rack: it asks there who has them.
    pub fn vips_in_the_rack(&self) -> Result<()> {
        let dev = format!("dev {RACK_DEVICE}");
        self.netns.ip(&format!("route replace {VIP_V4}/32 {dev}"))?;
        self.netns.ip(&format!("route replace {VIP_V6}/128 {dev}"))
    }

    /// The link-layer address that it has learned of an address in the rack, as `ip neigh` writes
    /// it.
    pub fn neighbor(&self, address: IpAddr) -> Result<Option<String>> {
        let words = format!("neigh show {address} dev {RACK_DEVICE}");
        let known = self.netns.ip_json(&words)?;
        Ok(known[0]["lladdr"].as_str().map(String::from))
    }

    /// Takes the routes to the VIPs out: a routing protocol is to bring them.
    pub(super) fn forget_vips(&self) -> Result<()> {
        self.netns.ip(&format!("route del {VIP_V4}/32"))?;
        self.netns.ip(&format!("route del {VIP_V6}/128"))
    }

    /// Takes a port of the switch down or up: `b0`, `s1`, ...
    pub fn set_port(&self, port: &str, up: bool) -> Result<()> {
        self.netns.ip(&format!(
            "link set dev {port} {}",
            if up { "up" } else { "down" }
        ))
    }

    /// Lets a port of the switch take frames that an XDP program at its other end sends: a veth
    /// polls for those only with a program of its own. This one passes everything.
    pub(super) fn take_redirects(&self, port: &str) -> Result<()> {
        let lockstep = binaries::find("lockstep")?;
        let args = ["decap", "attach", port, "--address", "192.0.2.254"];
        output(self.netns.command(lockstep).args(args)).map(drop)
    }

    /// Counts on a balancer's port of the switch: `requests` to the VIPs on their way to it,
    /// `answers` from the VIPs in either direction, and `tunnelled` packets that come from it.
    pub fn count_balancer(&self, index: usize) -> Result<Counters> {
        let v4 = |field: &str| format!("ip {field} {VIP_V4}");
        let v6 = |field: &str| format!("ip6 {field} {VIP_V6}");
        let (to4, to6, from4, from6) = (v4("daddr"), v6("daddr"), v4("saddr"), v6("saddr"));
        let rules = [
            ("requests", "egress", to4.as_str()),
            ("requests", "egress", to6.as_str()),
            ("answers", "egress", from4.as_str()),
            ("answers", "egress", from6.as_str()),
            ("answers", "ingress", from4.as_str()),
            ("answers", "ingress", from6.as_str()),
            ("tunnelled", "ingress", "ip protocol { 4, 41 }"),
            ("tunnelled", "ingress", "ip6 nexthdr { 4, 41 }"),
            ("tunnelled", "ingress", "udp dport 6080"),
        ];
        Counters::start(&self.netns, &format!("b{index}"), &rules)
    }

    /// A way to put frames on a port of the switch.
    pub fn injector(&self, port: &str) -> Result<Injector> {
        Injector::open(&self.netns, port)
    }
}
