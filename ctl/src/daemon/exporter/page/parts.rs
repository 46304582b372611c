//! What the daemon's parts say of themselves: checks, routers, the group, random numbers.

use lockstep_api::{
    BackendHealth, BgpCounters, BgpPeer, BgpReply, GroupReply, HealthReply, HealthVerdict,
    Layer2Reply,
};
use lockstep_process::metrics::Page;

/// Of the checks of backends.
pub fn health(page: &mut Page, reply: &HealthReply) {
    type Field = fn(&BackendHealth) -> Option<f64>;
    let families: [(&str, &str, &str, Field); 4] = [
        (
            "lockstep_check_up",
            "gauge",
            "1 while the checks of a backend find it up, 0 while down; absent until they know.",
            |backend| match backend.verdict() {
                HealthVerdict::Up => Some(1.0),
                HealthVerdict::Down => Some(0.0),
                HealthVerdict::Unknown => None,
            },
        ),
        (
            "lockstep_check_latency_seconds",
            "gauge",
            "How long the last check that passed took.",
            |backend| backend.latency_microseconds.map(|n| n as f64 / 1e6),
        ),
        (
            "lockstep_check_held",
            "gauge",
            "1 while a backend that went up and down too often is held down.",
            |backend| Some(f64::from(u8::from(backend.held_until > 0.0))),
        ),
        (
            "lockstep_check_flaps_total",
            "counter",
            "How often a backend went down.",
            |backend| Some(backend.flaps as f64),
        ),
    ];
    for (name, kind, help, field) in families {
        page.family(name, kind, help);
        for backend in &reply.backends {
            if let Some(value) = field(backend) {
                page.sample(&backend_labels(backend), value);
            }
        }
    }
    page.family(
        "lockstep_check_results_total",
        "counter",
        "Checks of a backend, by how they came out.",
    );
    for backend in &reply.backends {
        for (result, checks) in [("passed", backend.passed), ("failed", backend.failed)] {
            let labels = backend_labels(backend);
            page.sample(&[&labels[..], &[("result", result)]].concat(), checks);
        }
    }
}

fn backend_labels(backend: &BackendHealth) -> [(&str, &str); 3] {
    [
        ("service", &backend.service),
        ("backend", &backend.backend_name),
        ("address", &backend.address),
    ]
}

/// Of the routers.
pub fn bgp(page: &mut Page, reply: &BgpReply) {
    type Field = fn(&BgpPeer) -> Option<u64>;
    let families: [(&str, &str, &str, Field); 4] = [
        (
            "lockstep_bgp_peer_up",
            "gauge",
            "1 while there is a session with a router.",
            |peer| Some(u64::from(peer.state == "established")),
        ),
        (
            "lockstep_bgp_peer_flaps_total",
            "counter",
            "Sessions that were lost.",
            |peer| Some(peer.flaps),
        ),
        (
            "lockstep_bgp_peer_routes",
            "gauge",
            "Prefixes that a router has from this balancer.",
            |peer| Some(peer.routes),
        ),
        (
            "lockstep_bfd_up",
            "gauge",
            "1 while the BFD session with a router is up; absent where there is none.",
            |peer| (!peer.bfd.is_empty()).then(|| u64::from(peer.bfd == "up")),
        ),
    ];
    for (name, kind, help, field) in families {
        page.family(name, kind, help);
        for peer in &reply.peers {
            if let Some(value) = field(peer) {
                page.sample(&[("peer", &peer.address)], value);
            }
        }
    }
    bgp_counters(page, reply);
    page.one(
        "lockstep_bgp_listen_error",
        "gauge",
        "1 while connections of routers should be accepted and cannot be.",
        u8::from(!reply.listen_error.is_empty()),
    );
}

fn bgp_counters(page: &mut Page, reply: &BgpReply) {
    type Split = fn(&BgpCounters) -> [(&'static str, u64); 2];
    let families: [(&str, &str, &str, Split); 4] = [
        (
            "lockstep_bgp_messages_total",
            "Messages of BGP, by direction.",
            "direction",
            |c| [("in", c.messages_received), ("out", c.messages_sent)],
        ),
        (
            "lockstep_bgp_updates_total",
            "UPDATE messages, by direction.",
            "direction",
            |c| [("in", c.updates_received), ("out", c.updates_sent)],
        ),
        (
            "lockstep_bgp_notifications_total",
            "NOTIFICATION messages, by direction.",
            "direction",
            |c| {
                [
                    ("in", c.notifications_received),
                    ("out", c.notifications_sent),
                ]
            },
        ),
        (
            "lockstep_bgp_prefixes_total",
            "Prefixes that a router was told of, by what.",
            "change",
            |c| [("announced", c.announced), ("withdrawn", c.withdrawn)],
        ),
    ];
    let counters = || {
        let peers = reply.peers.iter();
        peers.filter_map(|peer| Some((peer.address.as_str(), peer.counters.as_ref()?)))
    };
    for (name, help, label, split) in families {
        page.family(name, "counter", help);
        for (peer, counters) in counters() {
            for (which, times) in split(counters) {
                page.sample(&[("peer", peer), (label, which)], times);
            }
        }
    }
    page.family(
        "lockstep_bgp_malformed_updates_total",
        "counter",
        "UPDATE messages that were malformed, all of which are ignored.",
    );
    for (peer, counters) in counters() {
        page.sample(&[("peer", peer)], counters.malformed_received);
    }
}

/// Of what is announced on the link, where it is.
pub fn layer2(page: &mut Page, reply: &Layer2Reply) {
    if !reply.enabled {
        return;
    }
    page.one(
        "lockstep_layer2_problem",
        "gauge",
        "1 while something keeps this balancer from announcing VIPs on the link.",
        u8::from(!reply.problem.is_empty()),
    );
    page.family(
        "lockstep_layer2_vip_owned",
        "gauge",
        "1 while this balancer answers for a VIP, 0 while it could.",
    );
    for vip in reply.vips.iter().filter(|vip| vip.willing) {
        page.sample(&[("vip", &vip.address)], u8::from(vip.ours));
    }
    page.family(
        "lockstep_layer2_peer_alive",
        "gauge",
        "1 while another balancer on the link is heard.",
    );
    for peer in &reply.peers {
        page.sample(&[("peer", &peer.name)], u8::from(peer.alive));
    }
    page.one(
        "lockstep_layer2_claims_total",
        "counter",
        "How often a VIP became this balancer's.",
        reply.claims,
    );
    page.family(
        "lockstep_layer2_hellos_total",
        "counter",
        "Hellos among balancers on a link, by what became of them.",
    );
    for (result, hellos) in [
        ("sent", reply.hellos_sent),
        ("received", reply.hellos_received),
        ("refused", reply.hellos_refused),
    ] {
        page.sample(&[("result", result)], hellos);
    }
    page.family(
        "lockstep_layer2_neighbors_total",
        "counter",
        "What neighbors on the link were told, or not, about VIPs.",
    );
    for interface in &reply.interfaces {
        for (what, times) in [
            ("answered", interface.answers),
            ("unanswered", interface.unanswered),
            ("announced", interface.announcements),
        ] {
            page.sample(&[("interface", &interface.name), ("what", what)], times);
        }
    }
}

/// Of the group and the random numbers, where there are.
pub fn group(page: &mut Page, reply: &GroupReply) {
    if reply.configured {
        page.one(
            "lockstep_group_store_connected",
            "gauge",
            "1 while the store of the group answers.",
            u8::from(reply.connected),
        );
        page.one(
            "lockstep_group_members",
            "gauge",
            "Balancers of the group that live, this one included.",
            reply.members.iter().filter(|m| !m.returning).count(),
        );
        page.one(
            "lockstep_group_drains",
            "gauge",
            "Drains of the group.",
            reply.drains,
        );
        page.family(
            "lockstep_group_differing",
            "gauge",
            "Backends that a balancer has found otherwise than the group.",
        );
        for member in &reply.members {
            page.sample(&[("member", &member.name)], member.differing_count);
        }
    }
    let Some(random) = reply.random.as_ref().filter(|random| random.configured) else {
        return;
    };
    page.family(
        "lockstep_random_requests_total",
        "counter",
        "Requests for random numbers, by whether they were answered with some.",
    );
    page.sample(&[("result", "answered")], random.answers);
    page.sample(&[("result", "refused")], random.errors);
    page.one(
        "lockstep_random_kept",
        "gauge",
        "Answers and counts of calls that are kept for other replicas.",
        random.kept,
    );
    page.one(
        "lockstep_random_failing",
        "gauge",
        "1 while something stands in the way of random numbers.",
        u8::from(!random.error.is_empty()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{GroupMember, RandomStatus};

    fn text(write: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::default();
        write(&mut page);
        page.into_text()
    }

    #[track_caller]
    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} in\n{text}");
        }
    }

    #[test]
    fn checks_are_of_their_backends() {
        let backend = |name: &str, verdict: HealthVerdict| BackendHealth {
            service: "web".to_owned(),
            backend_name: name.to_owned(),
            address: "10.0.0.1".to_owned(),
            verdict: verdict.into(),
            latency_microseconds: (verdict == HealthVerdict::Up).then_some(1_500),
            flaps: 3,
            passed: 7,
            failed: 2,
            ..BackendHealth::default()
        };
        let backends = vec![
            backend("a", HealthVerdict::Up),
            backend("b", HealthVerdict::Down),
            backend("c", HealthVerdict::Unknown),
        ];
        let text = text(|page| health(page, &HealthReply { backends }));
        let of = |name: &str| format!("{{service=\"web\",backend=\"{name}\",address=\"10.0.0.1\"");
        assert_lines(
            &text,
            &[
                &format!("lockstep_check_up{}}} 1", of("a")),
                &format!("lockstep_check_up{}}} 0", of("b")),
                &format!("lockstep_check_latency_seconds{}}} 0.0015", of("a")),
                &format!("lockstep_check_flaps_total{}}} 3", of("c")),
                &format!(
                    "lockstep_check_results_total{},result=\"passed\"}} 7",
                    of("a")
                ),
                &format!(
                    "lockstep_check_results_total{},result=\"failed\"}} 2",
                    of("a")
                ),
            ],
        );
        let unknown = format!("lockstep_check_up{}", of("c"));
        assert!(!text.contains(&unknown), "{text}");
    }

    #[test]
    fn routers_are_counted_each() {
        let peer = |address: &str, state: &str, bfd: &str| BgpPeer {
            address: address.to_owned(),
            state: state.to_owned(),
            bfd: bfd.to_owned(),
            routes: 4,
            counters: Some(BgpCounters {
                updates_sent: 5,
                withdrawn: 6,
                malformed_received: 1,
                ..BgpCounters::default()
            }),
            ..BgpPeer::default()
        };
        let reply = BgpReply {
            peers: vec![
                peer("10.0.0.9", "established", "down"),
                peer("2001:db8::9", "active", ""),
            ],
            listen_error: "taken".to_owned(),
            ..BgpReply::default()
        };
        let text = text(|page| bgp(page, &reply));
        assert_lines(
            &text,
            &[
                "lockstep_bgp_peer_up{peer=\"10.0.0.9\"} 1",
                "lockstep_bgp_peer_up{peer=\"2001:db8::9\"} 0",
                "lockstep_bgp_peer_routes{peer=\"10.0.0.9\"} 4",
                "lockstep_bfd_up{peer=\"10.0.0.9\"} 0",
                "lockstep_bgp_updates_total{peer=\"10.0.0.9\",direction=\"out\"} 5",
                "lockstep_bgp_prefixes_total{peer=\"2001:db8::9\",change=\"withdrawn\"} 6",
                "lockstep_bgp_malformed_updates_total{peer=\"10.0.0.9\"} 1",
                "lockstep_bgp_listen_error 1",
            ],
        );
        assert!(!text.contains("lockstep_bfd_up{peer=\"2001"), "{text}");
    }

    #[test]
    fn a_group_and_random_numbers_are_there_where_they_are_configured() {
        assert_eq!(text(|page| group(page, &GroupReply::default())), "");
        let member = |name: &str, returning| GroupMember {
            name: name.to_owned(),
            returning,
            differing_count: 2,
            ..GroupMember::default()
        };
        let reply = GroupReply {
            configured: true,
            connected: true,
            members: vec![member("lb1", false), member("lb2", true)],
            drains: 1,
            random: Some(RandomStatus {
                configured: true,
                answers: 9,
                errors: 1,
                kept: 8,
                ..RandomStatus::default()
            }),
            ..GroupReply::default()
        };
        assert_lines(
            &text(|page| group(page, &reply)),
            &[
                "lockstep_group_store_connected 1",
                "lockstep_group_members 1",
                "lockstep_group_drains 1",
                "lockstep_group_differing{member=\"lb2\"} 2",
                "lockstep_random_requests_total{result=\"answered\"} 9",
                "lockstep_random_requests_total{result=\"refused\"} 1",
                "lockstep_random_kept 8",
                "lockstep_random_failing 0",
            ],
        );
    }
}
