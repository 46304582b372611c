//! `lockstep bgp`.

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api as api;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `lockstep bgp`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Everything about this router only.
    #[arg(value_name = "ROUTER")]
    router: Option<std::net::IpAddr>,
}

/// Routers and routes as JSON.
#[derive(Debug, Serialize)]
struct Bgp {
    peers: Vec<Router>,
    routes: Vec<Route>,
    withheld: Vec<Withheld>,
    listen_error: Option<String>,
}

/// A router as JSON.
#[derive(Debug, Serialize)]
struct Router {
    address: String,
    r#as: u32,
    description: Option<String>,
    state: String,
    since_seconds: f64,
    flaps: u64,
    last_error: Option<String>,
    bfd: Option<String>,
    session: Option<Session>,
    attributes: Attributes,
    routes: u64,
    counters: Counters,
}

/// What a session has, as JSON.
#[derive(Debug, Serialize)]
struct Session {
    router_id: String,
    local_address: String,
    hold_time_seconds: u32,
    families: Vec<String>,
    add_path: Vec<String>,
    four_octet_as: bool,
    graceful_restart: bool,
}

/// What routes to a router have, as JSON.
#[derive(Debug, Default, Serialize)]
struct Attributes {
    next_hops: Vec<String>,
    as_path: Vec<u32>,
    local_pref: Option<u32>,
    med: Option<u32>,
    communities: Vec<String>,
}

/// How often things happened, as JSON.
#[derive(Debug, Default, Serialize)]
struct Counters {
    sessions: u64,
    messages_received: u64,
    messages_sent: u64,
    updates_received: u64,
    updates_sent: u64,
    malformed_received: u64,
    announced: u64,
    withdrawn: u64,
    notifications_received: u64,
    notifications_sent: u64,
}

/// A route as JSON.
#[derive(Debug, Serialize)]
struct Route {
    prefix: String,
    announced_to: Vec<String>,
}

/// A VIP that is not announced, as JSON.
#[derive(Debug, Serialize)]
struct Withheld {
    address: String,
    reason: String,
    service: Option<String>,
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Router {
    fn new(peer: api::BgpPeer, now: u64) -> Self {
        Router {
            address: peer.address,
            r#as: peer.r#as,
            description: named(peer.description),
            state: peer.state,
            since_seconds: now.saturating_sub(peer.since) as f64 / 1e3,
            flaps: peer.flaps,
            last_error: named(peer.last_error),
            bfd: named(peer.bfd),
            session: peer.session.map(Session::from),
            attributes: peer.attributes.map(Attributes::from).unwrap_or_default(),
            routes: peer.routes,
            counters: peer.counters.map(Counters::from).unwrap_or_default(),
        }
    }

    fn is_up(&self) -> bool {
        self.session.is_some()
    }
}

impl From<api::BgpSession> for Session {
    fn from(session: api::BgpSession) -> Self {
        Session {
            router_id: session.router_id,
            local_address: session.local_address,
            hold_time_seconds: session.hold_time,
            families: session.families,
            add_path: session.add_path,
            four_octet_as: session.four_octet_as,
            graceful_restart: session.graceful_restart,
        }
    }
}

impl From<api::BgpAttributes> for Attributes {
    fn from(attributes: api::BgpAttributes) -> Self {
        Attributes {
            next_hops: attributes.next_hops,
            as_path: attributes.as_path,
            local_pref: attributes.local_pref,
            med: attributes.med,
            communities: attributes.communities,
        }
    }
}

impl From<api::BgpCounters> for Counters {
    fn from(counters: api::BgpCounters) -> Self {
        Counters {
            sessions: counters.sessions,
            messages_received: counters.messages_received,
            messages_sent: counters.messages_sent,
            updates_received: counters.updates_received,
            updates_sent: counters.updates_sent,
            malformed_received: counters.malformed_received,
            announced: counters.announced,
            withdrawn: counters.withdrawn,
            notifications_received: counters.notifications_received,
            notifications_sent: counters.notifications_sent,
        }
    }
}

impl From<api::BgpReply> for Bgp {
    fn from(reply: api::BgpReply) -> Self {
        let now = now();
        let peers = reply.peers.into_iter();
        let routes = reply.routes.into_iter().map(|route| Route {
            prefix: route.prefix,
            announced_to: route.announced_to,
        });
        let withheld = reply.withheld.into_iter().map(|vip| Withheld {
            address: vip.address,
            reason: vip.withheld,
            service: named(vip.service),
        });
        Bgp {
            peers: peers.map(|peer| Router::new(peer, now)).collect(),
            routes: routes.collect(),
            withheld: withheld.collect(),
            listen_error: named(reply.listen_error),
        }
    }
}

/// Shows routers and routes. The exit code is 1 when one of the routers has no session.
pub async fn run(global: &Global, arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::present(Peer::Daemon, daemon.bgp(api::BgpRequest {})).await?;
    let mut bgp = Bgp::from(reply);
    if let Some(router) = arguments.router {
        let name = router.to_string();
        bgp.peers.retain(|peer| peer.address == name);
        bgp.routes
            .retain(|route| route.announced_to.contains(&name));
        if bgp.peers.is_empty() {
            let refused = format!("{router} is no [[bgp.peer]] of lockstepd.toml");
            return Err(Failure::Refused(refused));
        }
    }
    out.answer(&bgp, || match arguments.router {
        Some(_) => bgp.peers.iter().map(|p| details(p, &bgp)).collect(),
        None => text(&bgp),
    })?;
    let fine = bgp.peers.iter().all(Router::is_up) && bgp.listen_error.is_none();
    Ok(if fine { Answer::Yes } else { Answer::No })
}

fn text(bgp: &Bgp) -> String {
    if bgp.peers.is_empty() {
        return "no routers: lockstepd.toml has no [[bgp.peer]]".to_owned();
    }
    let columns = [
        "ROUTER", ">AS", "STATE", "FOR", ">FLAPS", "BFD", "FAMILIES", ">ROUTES", "REMARKS",
    ];
    let rows = bgp.peers.iter().map(|router| {
        let families = router.session.as_ref().map(|s| s.families.join(", "));
        vec![
            router.address.clone(),
            router.r#as.to_string(),
            router.state.clone(),
            units::time(router.since_seconds),
            router.flaps.to_string(),
            router.bfd.clone().unwrap_or_else(|| "-".to_owned()),
            families.unwrap_or_else(|| "-".to_owned()),
            units::count(router.routes),
            remarks(router),
        ]
    });
    let mut parts = vec![table(&columns, rows)];
    let announced = bgp.routes.iter().map(|route| {
        let to = route.announced_to.join(", ");
        let to = if to.is_empty() { "-".to_owned() } else { to };
        vec![route.prefix.clone(), to]
    });
    parts.push(table(&["ROUTE", "ANNOUNCED TO"], announced));
    let withheld = bgp.withheld.iter().map(|vip| {
        let reason = vip.reason.replace('_', " ");
        let reason = match &vip.service {
            Some(service) => format!("{reason}: {service}"),
            None => reason,
        };
        vec![vip.address.clone(), reason]
    });
    parts.push(table(&["VIP NOT ANNOUNCED", "WHY"], withheld));
    let error = bgp.listen_error.as_ref();
    parts.extend(error.map(|error| format!("routers cannot connect: {error}\n")));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// What needs attention of routers, a sentence each, for `lockstep status`.
pub fn troubles(reply: &api::BgpReply) -> Vec<String> {
    let now = now();
    let without = reply.peers.iter().filter(|peer| peer.session.is_none());
    let without = without.map(|peer| {
        let time = units::time(now.saturating_sub(peer.since) as f64 / 1e3);
        let why = match peer.last_error.as_str() {
            "" => "nothing was heard of it",
            error => error,
        };
        let (address, state) = (&peer.address, &peer.state);
        format!("router {address} has no session, {state} for {time}: {why}; see `lockstep bgp`")
    });
    // What else withholds a VIP is said of the engine, the file or the drain.
    let held = reply.withheld.iter().filter(|vip| {
        let troubles = ["no_backend", "not_in_force", "cut_off"];
        !reply.peers.is_empty() && troubles.contains(&vip.withheld.as_str())
    });
    let held = held.map(|vip| {
        let why = match (vip.withheld.as_str(), vip.service.as_str()) {
            ("cut_off", name) => cut_off(name),
            (_, "") => "the engine does not have it".to_owned(),
            (_, name) => format!("every backend of service {name} is down"),
        };
        format!("VIP {} is not announced: {why}", vip.address)
    });
    let deaf = Some(&reply.listen_error).filter(|error| !error.is_empty());
    let deaf = deaf.map(|error| format!("routers cannot connect: {error}"));
    without.chain(held).chain(deaf).collect()
}

/// Why a VIP is left to other balancers.
pub fn cut_off(service: &str) -> String {
    format!(
        "this balancer reaches no backend of service {service}, others of its group do; see \
         `lockstep health` here and there"
    )
}

/// Its description, and the last error while it counts.
fn remarks(router: &Router) -> String {
    let error = router.last_error.as_deref().filter(|_| !router.is_up());
    let parts = [router.description.as_deref(), error];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    parts.join("; ")
}

/// Everything about a router.
fn details(router: &Router, bgp: &Bgp) -> String {
    let attributes = &router.attributes;
    let numbers: Vec<String> = attributes.as_path.iter().map(u32::to_string).collect();
    let mut rows = vec![
        ("router", format!("{}, AS {}", router.address, router.r#as)),
        (
            "description",
            router.description.clone().unwrap_or_default(),
        ),
        (
            "state",
            format!("{} for {}", router.state, units::time(router.since_seconds)),
        ),
        ("flaps", router.flaps.to_string()),
        ("last error", router.last_error.clone().unwrap_or_default()),
        ("BFD", router.bfd.clone().unwrap_or_default()),
    ];
    if let Some(session) = &router.session {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let hold = match session.hold_time_seconds {
            0 => "none".to_owned(),
            seconds => format!("{seconds}s"),
        };
        rows.extend([
            ("router id", session.router_id.clone()),
            ("our address", session.local_address.clone()),
            ("hold time", hold),
            ("families", session.families.join(", ")),
            ("add-path", session.add_path.join(", ")),
            ("graceful restart", yes(session.graceful_restart)),
            ("4-octet AS", yes(session.four_octet_as)),
        ]);
    }
    let optional = |value: Option<u32>| value.map_or_else(String::new, |v| v.to_string());
    let counters = &router.counters;
    rows.extend([
        ("next hops", attributes.next_hops.join(", ")),
        ("AS path", numbers.join(" ")),
        ("local pref", optional(attributes.local_pref)),
        ("MED", optional(attributes.med)),
        ("communities", attributes.communities.join(", ")),
        (
            "messages",
            format!(
                "{} received, {} sent",
                units::count(counters.messages_received),
                units::count(counters.messages_sent)
            ),
        ),
        (
            "prefixes",
            format!(
                "{} announced, {} withdrawn",
                units::count(counters.announced),
                units::count(counters.withdrawn)
            ),
        ),
        (
            "updates ignored",
            format!(
                "{}, malformed: {}",
                units::count(counters.updates_received),
                units::count(counters.malformed_received)
            ),
        ),
        (
            "notifications",
            format!(
                "{} received, {} sent",
                units::count(counters.notifications_received),
                units::count(counters.notifications_sent)
            ),
        ),
    ]);
    let prefixes: Vec<&str> = bgp.routes.iter().map(|r| r.prefix.as_str()).collect();
    rows.push(("routes", prefixes.join(", ")));
    rows.retain(|(_, value)| !value.is_empty());
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:<17} {value}\n"));
    lines.collect()
}
