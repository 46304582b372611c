//! What is wrong with a real server whose answers have to come back by the balancer.

use super::Finding;
use serde_json::Value;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// How the packets of clients come to a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// In tunnels, or in replicated sessions: answers go where they like.
    #[default]
    Tunnel,
    /// Rewritten, from the client.
    Nat,
    /// Rewritten, from an address of the engine.
    FullNat,
}

/// Where packets to an address leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub to: IpAddr,
    /// None where the kernel has no route.
    pub route: Option<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The router; none on a link of this host.
    pub gateway: Option<IpAddr>,
    pub device: String,
    /// Nobody answered for the address when the kernel asked last.
    pub silent: bool,
}

/// What is known of the ways of a server.
#[derive(Debug, Default)]
pub struct Ways {
    pub mode: Mode,
    /// Of the balancers, or with full NAT of their engines.
    pub balancers: Vec<IpAddr>,
    /// With NAT to a client of each IP version that a balancer has, with full NAT to the balancers.
    pub ways: Vec<Way>,
}

/// Looks where answers would leave. `client` stands for all of them; without, one that has no route of
/// its own.
pub fn look(mode: Mode, balancers: Vec<IpAddr>, clients: &[IpAddr]) -> Ways {
    // Of the documentation (RFC 5737, RFC 3849): they have the default route.
    let any = |v4| match v4 {
        true => IpAddr::from([198, 51, 100, 1]),
        false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    let mut to: Vec<IpAddr> = Vec::new();
    for &balancer in &balancers {
        let v4 = balancer.is_ipv4();
        let mut named = clients.iter().filter(|client| client.is_ipv4() == v4);
        match mode {
            Mode::Tunnel => {}
            Mode::Nat => match named.next() {
                None => to.push(any(v4)),
                Some(first) => to.extend(std::iter::once(first).chain(named)),
            },
            Mode::FullNat => to.push(balancer),
        }
    }
    to.sort_unstable();
    to.dedup();
    let ways = to.into_iter().map(|to| Way {
        to,
        route: route(to),
    });
    Ways {
        mode,
        ways: ways.collect(),
        balancers,
    }
}

fn route(to: IpAddr) -> Option<Route> {
    let to = to.to_string();
    let (routes, neighbours) = (
        ip(&["route", "get", &to])?,
        ip(&["neigh", "show", "to", &to]),
    );
    parse(&routes, neighbours.as_ref())
}

fn ip(args: &[&str]) -> Option<Value> {
    let mut command = Command::new("ip");
    let output = command.arg("-json").args(args).stdin(Stdio::null());
    let output = output.output().ok()?;
    output.status.success().then_some(())?;
    serde_json::from_slice(&output.stdout).ok()
}

/// What `ip -json route get` and `ip -json neigh show` say.
fn parse(routes: &Value, neighbours: Option<&Value>) -> Option<Route> {
    let route = routes.get(0)?;
    // What is unreachable or a blackhole has a type; what is reached may have one too.
    let kind = route["type"].as_str().unwrap_or("unicast");
    (kind == "unicast").then_some(())?;
    // A router of the other IP version stands in "via".
    let gateway = route["gateway"]
        .as_str()
        .or_else(|| route["via"]["host"].as_str());
    let states = neighbours.and_then(|all| all[0]["state"].as_array());
    let silent = |state: &Value| state == "FAILED" || state == "INCOMPLETE";
    Some(Route {
        gateway: gateway.and_then(|gateway| gateway.parse().ok()),
        device: route["dev"].as_str()?.to_owned(),
        silent: states.is_some_and(|states| states.iter().any(silent)),
    })
}

/// Everything that is found.
pub fn judge(ways: &Ways) -> Vec<Finding> {
    if ways.balancers.is_empty() {
        return vec![Finding::note(
            "balancers",
            "none was named, so where answers go was not judged",
            "name the balancer's address with --balancer; with full-nat, the engine's",
        )];
    }
    let one = |way| match ways.mode {
        Mode::Tunnel => None,
        Mode::Nat => by_balancer(way, &ways.balancers),
        Mode::FullNat => to_engine(way),
    };
    ways.ways.iter().filter_map(one).collect()
}

/// The answer's source is the server's own address: only the balancer makes it the VIP's.
fn by_balancer(way: &Way, balancers: &[IpAddr]) -> Option<Finding> {
    let version = |balancer: &&IpAddr| balancer.is_ipv4() == way.to.is_ipv4();
    let balancer = balancers.iter().find(version)?;
    let found = match &way.route {
        None => "there is no route to clients".to_owned(),
        Some(Route {
            gateway: Some(gateway),
            ..
        }) if balancers.contains(gateway) => return None,
        Some(route) => match route.gateway {
            // Routers of IPv6 are often known by their address on the link.
            Some(IpAddr::V6(gateway)) if gateway.is_unicast_link_local() => {
                return Some(Finding::note(
                    way.to,
                    format!("the way to clients leads by {gateway}: is that the balancer?"),
                    "compare with `ip addr` there",
                ));
            }
            Some(gateway) => format!("the way to clients leads by {gateway}, past the balancer"),
            None => format!(
                "clients are on the link of {}: the way leads past the balancer",
                route.device
            ),
        },
    };
    Some(Finding::error(
        way.to,
        format!("{found}: they drop answers, which come from an address that they do not know"),
        format!("`ip route replace default via {balancer}`, or a route for the clients' prefixes"),
    ))
}

fn to_engine(way: &Way) -> Option<Finding> {
    match &way.route {
        None => Some(Finding::error(
            way.to,
            "there is no route to this address of the engine: answers do not leave",
            format!("`ip route add {} via` the balancer's own address", way.to),
        )),
        Some(route) if route.silent => Some(Finding::error(
            way.to,
            format!(
                "nobody answers ARP or ND for this address of the engine on {}",
                route.device
            ),
            format!(
                "on the balancer: `ip addr add {}/{} dev` the interface to this network",
                way.to,
                if way.to.is_ipv4() { 32 } else { 128 }
            ),
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cli::doctor::Severity;
    use serde_json::json;

    fn ways(mode: Mode, to: &str, route: Option<(Option<&str>, bool)>) -> Ways {
        let route = route.map(|(gateway, silent)| Route {
            gateway: gateway.map(|g| g.parse().unwrap()),
            device: "eth0".to_owned(),
            silent,
        });
        Ways {
            mode,
            balancers: vec![
                "10.0.1.2".parse().unwrap(),
                "2001:db8:1::2".parse().unwrap(),
            ],
            ways: vec![Way {
                to: to.parse().unwrap(),
                route,
            }],
        }
    }

    #[test]
    fn answers_have_to_go_by_the_balancer() {
        use Mode::{FullNat, Nat};
        use Severity::{Error, Note};
        let (v4, v6) = ("198.51.100.1", "2001:db8::1");
        let rows = [
            (ways(Nat, v4, Some((Some("10.0.1.2"), false))), None),
            (ways(Nat, v6, Some((Some("2001:db8:1::2"), false))), None),
            (
                ways(Nat, v4, Some((Some("10.0.1.1"), false))),
                Some((Error, "by 10.0.1.1, past the balancer")),
            ),
            (
                ways(Nat, v4, Some((None, false))),
                Some((Error, "on the link of eth0")),
            ),
            (ways(Nat, v6, None), Some((Error, "no route to clients"))),
            (
                ways(Nat, v6, Some((Some("fe80::1"), false))),
                Some((Note, "is that the balancer?")),
            ),
            (ways(FullNat, "192.0.2.10", Some((None, false))), None),
            (
                ways(FullNat, "192.0.2.10", Some((None, true))),
                Some((Error, "nobody answers ARP")),
            ),
            (
                ways(FullNat, "192.0.2.10", None),
                Some((Error, "no route to this address")),
            ),
        ];
        for (ways, expected) in rows {
            let findings = judge(&ways);
            let said = findings.first().map(|f| (f.severity, f.found.as_str()));
            match (said, expected) {
                (None, None) => {}
                (Some((severity, found)), Some((expected, part))) => {
                    assert_eq!(severity, expected, "{found}");
                    assert!(found.contains(part), "{found}");
                }
                other => panic!("{other:?}"),
            }
        }
        let unnamed = judge(&Ways {
            mode: Nat,
            ..Ways::default()
        });
        assert!(unnamed[0].mend.contains("--balancer"));
    }

    #[test]
    fn what_ip_says_is_read() {
        let by =
            json!([{ "dst": "198.51.100.1", "gateway": "10.0.1.2", "dev": "eth0", "flags": [] }]);
        let neighbour =
            |state: &str| json!([{ "dst": "10.0.1.202", "dev": "eth0", "state": [state] }]);
        let route = |gateway: Option<&str>, silent| Route {
            gateway: gateway.map(|g| g.parse().unwrap()),
            device: "eth0".to_owned(),
            silent,
        };
        assert_eq!(parse(&by, None), Some(route(Some("10.0.1.2"), false)));
        let on_link = json!([{ "dst": "10.0.1.202", "dev": "eth0" }]);
        assert_eq!(
            parse(&on_link, Some(&neighbour("REACHABLE"))),
            Some(route(None, false))
        );
        assert_eq!(
            parse(&on_link, Some(&neighbour("FAILED"))),
            Some(route(None, true))
        );
        let nowhere = json!([{ "type": "unreachable", "dst": "10.0.1.202", "dev": "lo" }]);
        assert_eq!(parse(&nowhere, None), None);
        assert_eq!(parse(&json!([]), None), None);
    }
}
