//! What is wrong with a real server that gets its packets in tunnels.

use super::Finding;
use super::facts::{Kind, ServerFacts, ServerInterface};
use std::net::IpAddr;

/// Bytes of the outer header over IPv4.
const OUTER: u32 = 20;
/// A source address must be one that the kernel would send to by the same interface.
const STRICT: u32 = 1;

/// Everything that is found.
pub fn judge(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(ends(facts));
    for interface in &facts.interfaces {
        findings.extend(rp_filter(interface));
        findings.extend(mtu(interface, facts));
    }
    for vip in &facts.vips {
        findings.extend(self::vip(*vip, facts));
    }
    if facts.vips.is_empty() {
        findings.push(Finding::note(
            "VIPs",
            "none were named, so none were looked for",
            "name them with --vip",
        ));
    }
    findings
}

/// Who takes packets out of their tunnels.
fn ends(facts: &ServerFacts) -> Option<Finding> {
    let tunnel = |i: &&ServerInterface| matches!(i.kind, Kind::Tunnel(_));
    let decap = facts.interfaces.iter().any(|i| i.decap);
    if decap || facts.interfaces.iter().any(|i| tunnel(&i) && i.up) {
        return None;
    }
    if let Some(down) = facts.interfaces.iter().find(tunnel) {
        let name = &down.name;
        return Some(Finding::error(
            name,
            "it is down: nobody takes packets out of their tunnels",
            format!("`ip link set {name} up`"),
        ));
    }
    Some(Finding::error(
        "tunnels",
        "nobody takes packets out of their tunnels: there is no tunnel interface, and no XDP program",
        "`modprobe ipip && ip link set tunl0 up` (ip6_tunnel and ip6tnl0 over IPv6), or `lockstep decap attach INTERFACE`",
    ))
}

/// What comes out of a tunnel is from a client to whom the way leads by another interface.
fn rp_filter(interface: &ServerInterface) -> Option<Finding> {
    let name = &interface.name;
    (interface.kind == Kind::Tunnel(4) && interface.up && interface.rp_filter == STRICT).then(|| {
        Finding::error(
            name,
            "rp_filter is strict there: the kernel drops what comes out of the tunnel, since the way back to clients is another",
            format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2` (where net.ipv4.conf.all.rp_filter is 1, it counts: set 0 or 2 there too)"),
        )
    })
}

/// Whether a client's longest packet gets in with its tunnel header.
fn mtu(interface: &ServerInterface, facts: &ServerFacts) -> Option<Finding> {
    let needed = facts.client_mtu + OUTER;
    let carries =
        interface.kind == Kind::Ethernet && interface.up && !interface.addresses.is_empty();
    (carries && interface.mtu < needed).then(|| {
        let (name, mtu) = (&interface.name, interface.mtu);
        Finding::warning(
            name,
            format!("its MTU is {mtu}: a client's packet of {} bytes has {needed} in its tunnel (40 more over IPv6)", facts.client_mtu),
            format!("`ip link set {name} mtu {needed}` where tunnels come by it"),
        )
    })
}

/// Whether a VIP is an address here that nobody else hears of.
fn vip(vip: IpAddr, facts: &ServerFacts) -> Option<Finding> {
    let length = if vip.is_ipv4() { 32 } else { 128 };
    let holder = facts.interfaces.iter().find(|i| i.addresses.contains(&vip));
    let Some(holder) = holder else {
        return Some(Finding::error(
            vip,
            "it is no address of this host: what comes out of the tunnel for it is dropped",
            format!("`ip addr add {vip}/{length} dev lo`"),
        ));
    };
    let ethernet = facts
        .interfaces
        .iter()
        .filter(|i| i.kind == Kind::Ethernet && i.up);
    let mut heard = ethernet.filter(|i| i.arp_ignore == 0);
    if holder.kind == Kind::Ethernet {
        let name = &holder.name;
        return Some(Finding::error(
            vip,
            format!(
                "{name} has it: the server answers ARP or ND for it, and takes its traffic away from the balancers"
            ),
            format!("`ip addr del {vip}/{length} dev {name} && ip addr add {vip}/{length} dev lo`"),
        ));
    }
    (vip.is_ipv4() && heard.next().is_some()).then(|| {
        Finding::warning(
            vip,
            "the kernel answers ARP for it on every interface: a router on the same link may send its traffic here",
            "`sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`",
        )
    })
}
